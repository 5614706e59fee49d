package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// A client whose access token has expired gets a new one through the default
// Caddyfile, whatever it still sends.
func TestExpiredTokensLogInAndRefresh(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g, _ := startRoot(t, b.Serve(t).URL)
	expired := token(map[string]any{"sub": "u", "type": "access", "exp": time.Now().Add(-time.Hour).Unix()})
	refresh := token(map[string]any{"sub": "u", "type": "refresh"})
	for _, old := range []string{"", expired, refresh, "garbage"} {
		for _, path := range []string{"/v1/auth/login", "/v1/auth/refresh", "/v1/auth/2fa/verify", "/v1/auth/verify-email"} {
			g.do("POST", path, old).want(t, 200)
		}
	}
	g.do("GET", "/items", expired).want(t, 401)
	g.do("GET", "/items", refresh).want(t, 401)
	g.do("GET", "/items", access("u")).want(t, 200)
	// A suspended user's valid token is refused there too.
	g.exec(`INSERT INTO user_controls (user_id, state) VALUES ('u', 'suspended')`)
	g.noticed()
	g.do("POST", "/v1/auth/refresh", access("u")).want(t, 403)
}

func TestDefaultCaddyfileLimits(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g, metrics := startRoot(t, b.Serve(t).URL)
	for range 10 {
		g.do("POST", "/v1/auth/login", "").want(t, 200)
	}
	g.do("POST", "/v1/auth/login", "").want(t, 429)
	for range 5 {
		g.do("POST", "/v1/auth/register", "").want(t, 200)
	}
	g.do("POST", "/v1/auth/register", "").want(t, 429)
	g.do("POST", "/jobs", "").want(t, 401)
	for range 10 {
		g.do("POST", "/jobs", access("w")).want(t, 200)
	}
	// The eleventh is 402 for the month, not 429 for the hour.
	d := g.do("POST", "/jobs", access("w")).want(t, 402).detail(t)
	if d["error"] != "quota_exceeded" || d["upgrade_url"] != "https://app.example.com/pricing" {
		t.Errorf("detail = %v", d)
	}
	g.do("GET", "/v1/subscription/plans", "").want(t, 200)
	for path, want := range map[string]string{
		"/metrics": "quotagate_decisions_total{", "/livez": "ok", "/readyz": `"status":"ready"`,
	} {
		res, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %v, want %q in %.300s", path, res.StatusCode, err, want, body)
		}
	}
}

// The profile of the caller gains its subscription, and nothing else changes.
// What is free of limits is free as it is written only: another spelling of it may
// be another route of the backend.
func TestOnlyHealthItselfIsFree(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g, _ := startRoot(t, b.Serve(t).URL)
	for target, free := range map[string]bool{
		"/health": true, "/livez?deep=1": true, "/v1/auth/me": true,
		"/items": false, "/files/..%2fhealth": false, "/files/%2e%2e/health": false, "//health": false, "/files/..%2f..%2fv1/billing/webhook": false,
	} {
		r := g.do("GET", target, access("w")).want(t, 200)
		if got := r.Header.Get("RateLimit") == ""; got != free {
			t.Errorf("%s: %q, want it free: %v", target, r.Header.Get("RateLimit"), free)
		}
	}
}

func TestDefaultCaddyfileProfile(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(*http.Request) gatetest.Answer {
		return gatetest.Answer{
			Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"id":12345678901234567890,"email":"u@example.com"}`),
		}
	})
	g, _ := startRoot(t, b.Serve(t).URL)
	g.subscribe("u", "pro")
	g.noticed()
	r := g.do("GET", "/v1/auth/me", access("u")).want(t, 200)
	if !strings.HasPrefix(string(r.body), `{"id":12345678901234567890,"email":"u@example.com",`) {
		t.Errorf("the backend's own part changed: %s", r.body)
	}
	var me struct {
		Subscription struct {
			Plan, Status string
			DisplayName  string `json:"display_name"`
			Features     map[string]bool
		}
	}
	if err := json.Unmarshal(r.body, &me); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if s := me.Subscription; s.Plan != "pro" || s.Status != "active" || s.DisplayName != "Pro Plan" || !s.Features["custom_models"] {
		t.Errorf("subscription = %+v", s)
	}
}
