package jwtverifier

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	u1, u2 := signed(nil), signed(map[string]any{"sub": "u2"})
	otherOrg := signed(map[string]any{"org_id": "o2"})
	expired := signed(map[string]any{"exp": 1})
	again := signed(map[string]any{"jti": "again"}) // of u1 too
	tests := map[string]struct {
		options string
		headers []string
		want    string // the user, "none", "unclaimed", or the reason of a refusal behind "!"
	}{
		"bearer":                 {"", []string{"Authorization", "Bearer " + u1}, "u1"},
		"lower case":             {"", []string{"Authorization", "bearer " + u1}, "u1"},
		"upper case":             {"", []string{"Authorization", "BEARER " + u1}, "u1"},
		"two spaces":             {"", []string{"Authorization", "Bearer  " + u1}, "u1"},
		"no credential":          {"", nil, "none"},
		"empty header":           {"", []string{"Authorization", ""}, "none"},
		"basic":                  {"", []string{"Authorization", "Basic dTE6cHc="}, "none"},
		"tab":                    {"", []string{"Authorization", "Bearer\t" + u1}, "unclaimed"},
		"space of latin-1":       {"", []string{"Authorization", "Bearer\xa0" + u1}, "unclaimed"},
		"comma":                  {"", []string{"Authorization", "Bearer," + u1}, "unclaimed"},
		"odd space before":       {"", []string{"Authorization", "\x85Bearer " + u1}, "unclaimed"},
		"odd space behind":       {"", []string{"Authorization", "Bearer " + u1 + "\xa0"}, "unclaimed"},
		"longer scheme":          {"", []string{"Authorization", "Bearer-2 " + u1}, "none"},
		"odd space, basic":       {"", []string{"Authorization", "\xa0Basic dTE6cHc="}, "none"},
		"digest":                 {"", []string{"Authorization", `Digest username="u1"`}, "none"},
		"scheme with a prefix":   {"", []string{"Authorization", "BearerX " + u1}, "none"},
		"no scheme":              {"", []string{"Authorization", u1}, "none"},
		"scheme only":            {"", []string{"Authorization", "Bearer"}, "unclaimed"},
		"scheme and space":       {"", []string{"Authorization", "Bearer "}, "unclaimed"},
		"garbage":                {"", []string{"Authorization", "Bearer garbage"}, "unclaimed"},
		"a key":                  {"", []string{"Authorization", "Bearer qgk_0123456789"}, "unclaimed"},
		"two tokens":             {"", []string{"Authorization", "Bearer " + u1 + ", Bearer " + u2}, "unclaimed"},
		"two words":              {"", []string{"Authorization", "Bearer " + u1 + " " + u2}, "unclaimed"},
		"too large":              {"", []string{"Authorization", "Bearer " + strings.Repeat("a", maxToken) + "." + u1}, "unclaimed"},
		"two headers":            {"", []string{"Authorization", "Bearer " + u1, "Authorization", "Bearer " + u1}, "!more than one"},
		"other scheme":           {"scheme JWT", []string{"Authorization", "Bearer " + u1}, "none"},
		"own scheme":             {"scheme JWT", []string{"Authorization", "jwt " + u1}, "u1"},
		"cookie not asked":       {"", []string{"Cookie", "tok=" + u1}, "none"},
		"cookie":                 {"cookie tok", []string{"Cookie", "tok=" + u1}, "u1"},
		"cookie among others":    {"cookie tok", []string{"Cookie", "a=b; tok=" + u1 + "; c=d"}, "u1"},
		"cookie beside basic":    {"cookie tok", []string{"Authorization", "Basic dTE6cHc=", "Cookie", "tok=" + u1}, "u1"},
		"second line":            {"cookie tok", []string{"Cookie", "a=b", "Cookie", "tok=" + u1}, "u1"},
		"quoted cookie":          {"cookie tok", []string{"Cookie", `tok="` + u1 + `"`}, "u1"},
		"spaced cookie":          {"cookie tok", []string{"Cookie", "tok = " + u1 + " ;a=b"}, "u1"},
		"other cookie":           {"cookie tok", []string{"Cookie", "token=" + u1}, "none"},
		"spelled cookie":         {"cookie tok", []string{"Cookie", "Tok=" + u1}, "none"},
		"cleared cookie":         {"cookie tok", []string{"Cookie", "tok="}, "none"},
		"garbage cookie":         {"cookie tok", []string{"Cookie", "tok=garbage"}, "unclaimed"},
		"cookie net/http drops":  {"cookie tok", []string{"Cookie", "tok=" + u1 + "\x80"}, "!base64url"},
		"header, odd cookie":     {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + u2 + "\x80"}, "!base64url"},
		"header, refresh cookie": {"cookie tok\nrequire type access", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + signed(map[string]any{"type": "refresh"})}, "!type"},
		"header, forged cookie":  {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + gatetest.HS256(strings.Repeat("f", 32), claims(nil))}, "u1"},
		"name net/http drops":    {"cookie tok", []string{"Cookie", "\xa0tok=" + u1}, "u1"},
		"expired cookie":         {"cookie tok", []string{"Cookie", "tok=" + expired}, "!expired"},
		"same cookie twice":      {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=" + u1}, "u1"},
		"same caller":            {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=" + again}, "u1"},
		"stale cookie first":     {"cookie tok", []string{"Cookie", "tok=" + expired + "; tok=" + u1}, "u1"},
		"stale cookie last":      {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=" + expired}, "u1"},
		"two callers":            {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=" + u2}, "!different callers"},
		"two lines":              {"cookie tok", []string{"Cookie", "tok=" + u1, "Cookie", "tok=" + u2}, "!different callers"},
		"two organizations":      {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=" + otherOrg}, "!different callers"},
		"one is garbage":         {"cookie tok", []string{"Cookie", "tok=" + u1 + "; tok=garbage"}, "unclaimed"},
		"five":                   {"cookie tok", []string{"Cookie", strings.Repeat("tok="+u1+";", 5)}, "!too many"},
		"header and cookie":      {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + u1}, "u1"},
		"header, other cookie":   {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + u2}, "!different callers"},
		"header, stale cookie":   {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=" + expired}, "u1"},
		"header, garbage cookie": {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "tok=x"}, "unclaimed"},
		"header, no such cookie": {"cookie tok", []string{"Authorization", "Bearer " + u1, "Cookie", "a=b"}, "u1"},
		"stale header, cookie":   {"cookie tok", []string{"Authorization", "Bearer " + expired, "Cookie", "tok=" + u1}, "!expired"},
		"garbage header, cookie": {"cookie tok", []string{"Authorization", "Bearer x", "Cookie", "tok=" + u1}, "unclaimed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := hmac(t, tt.options)
			for range 2 { // the second time from the cache
				p, err := verify(t, v, tt.headers...)
				reason, refused := strings.CutPrefix(tt.want, "!")
				switch {
				case refused:
					refuse(t, err, reason)
				case tt.want == "none":
					wantError(t, err, gate.ErrNoCredential)
				case tt.want == "unclaimed":
					wantError(t, err, gate.ErrUnclaimed)
				case err != nil:
					t.Error(err)
				case p.Subject != quota.UserSubject(tt.want):
					t.Errorf("subject = %q", p.Subject)
				}
			}
		})
	}
}

func wantError(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("err = %v, want %v", err, want)
	}
}

// A verifier claims by alg and, where it names an issuer, by iss.
func TestClaiming(t *testing.T) {
	t.Parallel()
	rsaKey := newKey(t, "RS256", "", 0)
	raw := func(header, payload string) string {
		return gatetest.SignRaw("HS256", []byte(testSecret), header, payload)
	}
	wrong := strings.Repeat("w", 32)
	iss := claims(map[string]any{"iss": "me"})
	tests := map[string]struct {
		token   string
		claimed bool
	}{
		"other algorithm":         {rsaKey.Sign(iss), false},
		"none":                    {gatetest.Encode(`{"alg":"none"}`) + "." + gatetest.Encode(`{"iss":"me"}`) + ".", false},
		"other HMAC":              {gatetest.SignRaw("HS512", []byte(wrong+wrong), `{"alg":"HS512"}`, `{"iss":"me"}`), false},
		"other issuer":            {signed(map[string]any{"iss": "you"}), false},
		"spelled issuer":          {signed(map[string]any{"iss": "Me"}), false},
		"no issuer":               {signed(nil), false},
		"number issuer":           {signed(map[string]any{"iss": 1}), false},
		"list issuer":             {signed(map[string]any{"iss": []string{"me"}}), false},
		"unreadable payload":      {raw(`{"alg":"HS256"}`, `{"iss":"me"`), false},
		"two issuers":             {raw(`{"alg":"HS256"}`, `{"iss":"me","iss":"you"}`), false},
		"malformed header":        {raw(`{"alg":"HS256"`, `{"iss":"me"}`), false},
		"duplicate alg":           {raw(`{"alg":"HS256","alg":"HS256"}`, `{"iss":"me"}`), false},
		"bad signature":           {gatetest.HS256(wrong, iss), true},
		"expired":                 {gatetest.HS256(testSecret, gatetest.With(iss, map[string]any{"exp": 1})), true},
		"crit":                    {raw(`{"alg":"HS256","crit":["x"],"x":1}`, `{"iss":"me","sub":"u1","exp":9999999999}`), true},
		"no subject":              {raw(`{"alg":"HS256"}`, `{"iss":"me","exp":9999999999}`), true},
		"a kid that means no key": {raw(`{"alg":"HS256","kid":1}`, `{"iss":"me","sub":"u1","exp":9999999999}`), true},
	}
	v := hmac(t, "issuer me")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := bearer(t, v, tt.token)
			if tt.claimed {
				refuse(t, err, "")
			} else {
				wantError(t, err, gate.ErrUnclaimed)
			}
		})
	}
	accept(t, v, gatetest.HS256(testSecret, iss), "u1")
	// Without an issuer the algorithm alone claims.
	_, err := bearer(t, hmac(t), raw(`{"alg":"HS256"}`, `{"sub":`))
	refuse(t, err, "ends early")
}

func TestEachAlgorithm(t *testing.T) {
	t.Parallel()
	for _, alg := range allAlgorithms {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			k := newKey(t, alg, "k1", 0)
			issuer := gatetest.NewIssuer(t, k)
			v := provision(t, "jwks "+issuer.URL+"\nalgorithms "+alg)
			accept(t, v, k.Sign(claims(nil)), "u1")
			_, err := bearer(t, v, newKey(t, alg, "k1", 1).Sign(claims(nil)))
			refuse(t, err, "signature does not verify")
		})
	}
}

func TestReasonsHoldNothingOfTheToken(t *testing.T) {
	t.Parallel()
	v := hmac(t)
	for _, payload := range []string{
		`{"canary":1,"canary":2}`, `{"sub":"canary\n","exp":9999999999}`, `{"sub":"u","exp":"canary"}`, `{"sub":"canary"`,
		`{"sub":{"canary":1},"exp":9999999999}`, `canary`,
	} {
		_, err := bearer(t, v, gatetest.SignRaw("HS256", []byte(testSecret), `{"alg":"HS256"}`, payload))
		refuse(t, err, "")
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestEqualConfigsShare(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s", 40)
	const algorithms = "\nalgorithms HS256\n"
	a := provision(t, "secret "+secret+algorithms)
	token := gatetest.HS256(secret, claims(nil))
	first := accept(t, a, token, "u1")
	b := provision(t, "secret_file "+writeFile(t, secret+"\n")+algorithms+"leeway 30s\nscheme Bearer\nuser_claim sub")
	if got := accept(t, b, token, "u1"); got != first {
		t.Error("an equal config verified the token again")
	}
	if err := a.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got := accept(t, b, token, "u1"); got != first {
		t.Error("the cache went with the first config")
	}
	if got := accept(t, a, token, "u1"); got != first {
		t.Error("a request that outlasts its config is not served")
	}
	for _, other := range []string{
		"require type access", "audience api", "issuer me", "leeway 1s", "scheme JWT", "cookie c",
		"user_claim uid", "org_claim o", "session_claim s",
	} {
		if c := provision(t, "secret "+secret+algorithms+other); c.core == b.core {
			t.Errorf("a config with %s shares the cache", other)
		}
	}
	if c := provision(t, "secret "+secret+"x"+algorithms); c.core == b.core {
		t.Error("a config with another secret shares the cache")
	}
	if strings.Contains(b.key, secret) || len(b.key) != 64 {
		t.Errorf("fingerprint %q", b.key)
	}
}

func TestCleanupWithoutProvision(t *testing.T) {
	t.Parallel()
	if err := new(Verifier).Cleanup(); err != nil {
		t.Error(err)
	}
	if m := new(Verifier).CaddyModule(); m.ID != "quota.verifiers.jwt" || m.New() == nil {
		t.Errorf("module %v", m)
	}
	if _, err := caddy.GetModule("quota.verifiers.jwt"); err != nil {
		t.Error(err)
	}
}

func TestHitsDoNotAllocate(t *testing.T) {
	v := hmac(t, "cookie tok")
	token := signed(nil)
	for name, header := range map[string]http.Header{
		"header": {"Authorization": {"Bearer " + token}},
		"cookie": {"Cookie": {"a=b; tok=" + token}},
	} {
		r := request(t)
		r.Header = header
		n := testing.AllocsPerRun(100, func() {
			if _, err := v.Verify(r.Context(), r); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The cache ends where verification would.
func TestNeverPastExp(t *testing.T) {
	t.Parallel()
	synctestRun(t, func(t *testing.T) {
		v := hmac(t, "leeway 10s")
		exp := time.Now().Add(time.Minute)
		token := signed(map[string]any{"iat": time.Now().Unix(), "exp": exp.Unix()})
		for _, at := range []time.Duration{0, time.Minute - time.Second, time.Minute, 70*time.Second - time.Nanosecond} {
			time.Sleep(time.Until(exp.Add(at - time.Minute)))
			accept(t, v, token, "u1")
		}
		time.Sleep(time.Nanosecond)
		_, err := bearer(t, v, token)
		refuse(t, err, "expired")
	})
}
