package jwtverifier

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rsaKeys are made once: they take long.
var rsaKeys = [...]func() any{sync.OnceValue(makeRSA), sync.OnceValue(makeRSA)}

func makeRSA() any {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return private
}

// newKey makes a key; two of the same algorithm differ if n differs.
func newKey(tb testing.TB, alg, kid string, n int) *gatetest.Key {
	tb.Helper()
	if findAlgorithm(alg).family == familyRSA {
		return &gatetest.Key{Alg: alg, Kid: kid, Private: rsaKeys[n]()}
	}
	return gatetest.NewKey(tb, alg, kid)
}

const testSecret = "0123456789abcdef0123456789abcdef"

// parse parses the options of a block, one a line.
func parse(options string) (*Verifier, error) {
	v := &Verifier{}
	d := caddyfile.NewTestDispenser("jwt {\n" + options + "\n}")
	return v, v.UnmarshalCaddyfile(d)
}

// provision makes a verifier that ends with the test.
func provision(tb testing.TB, options string) *Verifier {
	tb.Helper()
	v, err := parse(options)
	if err != nil {
		tb.Fatalf("parsing %s: %v", options, err)
	}
	if err := v.Provision(caddy.Context{}); err != nil {
		tb.Fatalf("provisioning %s: %v", options, err)
	}
	tb.Cleanup(func() {
		if err := v.Cleanup(); err != nil {
			tb.Errorf("cleaning up: %v", err)
		}
	})
	return v
}

// hmac is provision with the test's secret and more options.
func hmac(tb testing.TB, options ...string) *Verifier {
	tb.Helper()
	return provision(tb, "secret "+testSecret+"\nalgorithms HS256\n"+strings.Join(options, "\n"))
}

// request carries headers, given in pairs.
func request(tb testing.TB, headers ...string) *http.Request {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://gateway/", nil)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func verify(tb testing.TB, v *Verifier, headers ...string) (*quota.Principal, error) {
	tb.Helper()
	return v.Verify(tb.Context(), request(tb, headers...))
}

func bearer(tb testing.TB, v *Verifier, token string) (*quota.Principal, error) {
	tb.Helper()
	return verify(tb, v, "Authorization", "Bearer "+token)
}

// accept wants the token to be of the user.
func accept(tb testing.TB, v *Verifier, token, user string) *quota.Principal {
	tb.Helper()
	p, err := bearer(tb, v, token)
	if err != nil {
		tb.Fatalf("verifying a token of %s: %v", user, err)
	}
	if p.Subject != quota.UserSubject(user) {
		tb.Fatalf("subject = %q, want user %q", p.Subject, user)
	}
	return p
}

// refuse wants an *InvalidError whose reason has the text.
func refuse(tb testing.TB, err error, reason string) {
	tb.Helper()
	var bad *gate.InvalidError
	if !errors.As(err, &bad) {
		tb.Fatalf("err = %v, want an invalid credential: %s", err, reason)
	}
	if !strings.Contains(bad.Reason, reason) {
		tb.Fatalf("reason = %q, want %q", bad.Reason, reason)
	}
}

func claims(more map[string]any) map[string]any {
	return gatetest.With(gatetest.Claims("u1", time.Hour), more)
}

func signed(more map[string]any) string { return gatetest.HS256(testSecret, claims(more)) }

func writeFile(tb testing.TB, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
