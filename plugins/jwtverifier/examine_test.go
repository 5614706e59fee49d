package jwtverifier

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

func texts(findings []doctor.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(string(f.Level) + " " + f.Detail + "\n" + f.Configure + "\n")
	}
	return b.String()
}

func TestExamineToken(t *testing.T) {
	t.Parallel()
	strict := hmac(t, "require type access", "audience api", "session_claim sid")
	for _, tt := range []struct {
		name, token string
		v           *Verifier
		claimed     bool
		want        string
	}{
		{"accepted", signed(map[string]any{"aud": "api", "sid": "s"}), strict, true, "ok verify jwt accepts it: user "},
		{"refresh", signed(map[string]any{"aud": "api", "type": "refresh"}), strict, true, `refuses it: invalid credential: the claim "type" is not "access"`},
		{"audience", signed(map[string]any{"aud": "app"}), strict, true, "another audience\naudience app\n"},
		{"expired", signed(map[string]any{"aud": "api", "exp": time.Now().Add(-time.Hour).Unix()}), strict, true, "it has expired\n\n"},
		{"no user", signed(map[string]any{"sub": nil, "user_id": 7, "aud": "api"}), strict, true, "user_claim user_id\n"},
		{"another secret", gatetest.HS256(strings.Repeat("x", 40), claims(nil)), hmac(t), true, "the signature does not verify\nsecret <"},
		{"no iat", signed(map[string]any{"iat": nil}), hmac(t), true, "warn it has no iat"},
		{"jti", signed(map[string]any{"jti": "j"}), hmac(t), true, "session_claim jti\n"},
		{"another's audience", signed(map[string]any{"aud": "app"}), hmac(t), true, "audience app\n"},
		{"type", signed(nil), hmac(t), true, "require type access\n"},
		{"organization", signed(map[string]any{"org_id": "acme"}), hmac(t), true, `not_org_member: this release keeps no organizations, and the token's claim "org_id" names one` + "\norg_claim <"},
		{"organization of a claim", signed(map[string]any{"team": "acme"}), hmac(t, "org_claim team"), true, `fail a request with it gets 403`},
		{"organization unread", signed(map[string]any{"org_id": "acme"}), hmac(t, "org_claim none"), true, "warn it has no claim \"sid\""},
		{"algorithm", gatetest.HS256(testSecret, claims(nil)), provision(t, "secret "+strings.Repeat("y", 64)+"\nalgorithms HS512"), false, `its alg is "HS256", and algorithms has HS512`},
		{"issuer", signed(map[string]any{"iss": "other"}), hmac(t, "issuer me"), false, `its iss is "other", and issuer is "me"`},
		{"opaque", "0123456789abcdef", hmac(t), false, "three parts"},
	} {
		claimed, findings := tt.v.ExamineToken(t.Context(), tt.token)
		if got := texts(findings); claimed != tt.claimed || !strings.Contains(got, tt.want) {
			t.Errorf("%s: claimed %t, want %t:\n%s\nwithout %q", tt.name, claimed, tt.claimed, got, tt.want)
		}
	}
}

func TestExamineRemoteKeys(t *testing.T) {
	t.Parallel()
	var body atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text, _ := body.Load().(string)
		if text == "" {
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = w.Write([]byte(text)) // to a test that looks at what it gets
	}))
	defer s.Close()
	v := provision(t, "jwks "+s.URL+"\nalgorithms HS256")
	for _, tt := range []struct{ body, want string }{
		{`{"keys":[]}`, "fail the keys of "},
		{`{"keys":[{"kty":"oct","kid":"a","k":"` + gatetest.Encode(testSecret) + `"}]}`, "ok 1 keys at "},
		{`{"keys":[{"kty":"oct","kid":"a","k":"` + gatetest.Encode(testSecret) + `"},{"kty":"oct","kid":"b","k":"YQ"}]}`, `left out: "b": `},
		{"", "fail the keys of "},
	} {
		body.Store(tt.body)
		if got := texts(v.Examine(t.Context(), caddymodule.Env{})); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", tt.body, got)
		}
	}
}
