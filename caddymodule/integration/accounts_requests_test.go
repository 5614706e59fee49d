package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// The directive authenticates by itself, wherever it stands.
func TestAccountInOtherSites(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	backend := b.Serve(t).URL
	for name, body := range map[string]string{
		"without a quota handler": "	quota_account\n",
		"with a matcher":          "	quota_account /v1/subscription/*\n",
		"before a quota handler":  accountSite,
		"behind a quota handler":  "	route {\n" + jobsSite + "\n	quota_account\n	}\n",
		"in a handle":             "	handle /v1/* {\n	quota_account\n	}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, "", site(backend, body))
			g.subscribe("u", "pro")
			g.wantPlan(access("u"), "pro", "active")
			if got := g.account("usage", access("u"))["limits"].(object)["jobs"]; got != 500.0 {
				t.Errorf("limits.jobs = %v", got)
			}
			g.account("plans", "")
			r := g.do("GET", "/v1/subscription/me", "").want(t, 401)
			if string(r.body) != `{"detail":"Could not validate credentials"}` {
				t.Errorf("%s", r.body)
			}
			g.do("GET", "/items", access("u"))
		})
	}
}

// Where no verifier is configured nobody can say who he is.
func TestAccountWithoutVerifiers(t *testing.T) {
	t.Parallel()
	g := start(t, "", `{
	admin {$ADMIN}
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	quota {
		records sqlite {$DIR}/quota.db
	}
}
http://:{$PORT} {
	quota_account
	respond 404
}
`)
	for _, tok := range []string{"", access("u"), "garbage"} {
		for _, path := range []string{"me", "usage"} {
			r := g.do("GET", "/v1/subscription/"+path, tok).want(t, 401)
			if string(r.body) != `{"detail":"Could not validate credentials"}` || r.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %v", r.body, r.Header)
			}
		}
		g.account("plans", tok)
	}
	g.do("GET", "/", "").want(t, 404)
}

func TestAccountRefusals(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	for name, c := range map[string]struct{ token, authenticate string }{
		"anonymous": {"", "Bearer"},
		"expired":   {token(map[string]any{"sub": "u", "type": "access", "exp": time.Now().Add(-time.Hour).Unix()}), `Bearer error="invalid_token"`},
		"refresh":   {token(map[string]any{"sub": "u", "type": "refresh"}), `Bearer error="invalid_token"`},
		"garbage":   {"garbage", `Bearer error="invalid_token"`},
	} {
		for _, path := range []string{"me", "usage"} {
			r := g.do("GET", "/v1/subscription/"+path, c.token).want(t, 401)
			if string(r.body) != `{"detail":"Could not validate credentials"}` || r.Header.Get("WWW-Authenticate") != c.authenticate ||
				r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Quota-Decision-Id") == "" {
				t.Errorf("%s, %s: %s %v", name, path, r.body, r.Header)
			}
		}
	}
	g.account("me", access("suspect"))
	g.exec(`INSERT INTO user_controls (user_id, state) VALUES ('suspect', 'suspended')`)
	g.noticed()
	for _, path := range []string{"me", "usage", "plans"} {
		if d := g.do("GET", "/v1/subscription/"+path, access("suspect")).want(t, 403).detail(t); d["error"] != "account_suspended" {
			t.Errorf("%s: %v", path, d)
		}
	}
	old := token(map[string]any{"sub": "out", "type": "access", "sid": "s1"})
	g.account("me", old)
	g.exec(`INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'out')`)
	g.noticed()
	g.do("GET", "/v1/subscription/me", old).want(t, 401)
	if n := b.Count(nil); n != 0 {
		t.Errorf("the backend saw %d requests, want none", n)
	}
}

func TestAccountPathsAndMethods(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(*http.Request) gatetest.Answer { return gatetest.Answer{Status: 418} })
	g := start(t, "", site(b.Serve(t).URL, "	quota_account\n"))
	user := access("u")
	h := g.do("HEAD", "/v1/subscription/me", user).want(t, 200)
	if len(h.body) != 0 || h.Header.Get("Content-Type") != "application/json" || h.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("HEAD: %v %q", h.Header, h.body)
	}
	g.do("HEAD", "/v1/subscription/me", "").want(t, 401)
	g.do("GET", "/v1/subscription/%6De?x=1", user).want(t, 200)
	for _, path := range []string{
		"/v1/subscription/me/", "/v1//subscription/me", "/v1/subscription%2Fme", "/v1/subscription/../subscription/me",
		"/v1/subscription/", "/v1/subscription/me/x", "/v1/openapi.yaml", "/items",
	} {
		b.Clear()
		g.do("GET", path, user).want(t, 418)
		if e := b.Entries(); len(e) != 1 || e[0].Target != path {
			t.Errorf("%s: the backend saw %v, want it byte for byte", path, e)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		g.do(method, "/v1/subscription/me", user).want(t, 418)
	}
	g.do("OPTIONS", "/v1/subscription/me", "", "Origin: https://app.example.com", "Access-Control-Request-Method: GET").want(t, 418)
}

// A dashboard of another origin may read these answers if it may read the
// backend's, from its first request on and after a restart.
func TestAccountForScriptsOfOtherOrigins(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		if r.Header.Get("Origin") != origin {
			return gatetest.Answer{Status: 400}
		}
		return gatetest.Answer{Header: http.Header{
			"Access-Control-Allow-Origin": {origin}, "Access-Control-Allow-Credentials": {"true"}, "Vary": {"Origin"},
		}}
	})
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	for _, tok := range []string{access("u"), "", "garbage"} {
		h := g.do("GET", "/v1/subscription/me", tok, "Origin: "+origin).Header
		if h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("headers %v", h)
		}
	}
	if h := g.do("GET", "/v1/subscription/plans", "", "Origin: https://evil.example").want(t, 200).Header; h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("an origin that the backend does not allow: %v", h)
	}
	for _, e := range b.Entries() {
		if e.Method != "OPTIONS" || e.Header.Get("Authorization") != "" {
			t.Errorf("the backend saw %s %s %v", e.Method, e.Target, e.Header)
		}
	}
	if got := g.account("usage", access("u"))["usage"].(object)["api_calls"]; got != 0.0 {
		t.Errorf("%v calls were charged for asking the backend", got)
	}
}

// What quota_account answers itself never reaches the quota handler: explained,
// nobody has judged it.
func TestAccountEndsExplainedRequests(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	body := `{"url": "/v1/subscription/me", "headers": {"Authorization": "Bearer ` + access("u") + `"}}`
	res, err := http.Post("http://"+g.admin+"/quota/explain", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e object
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || e["judged"] != false {
		t.Errorf("%d %v, %v", res.StatusCode, e, err)
	}
}

// The way that docs/reference/quota-account.md shows for a site without a backend.
func TestAccountForScriptsBySiteHeaders(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	g := start(t, "", preamble+`http://:{$PORT} {
	@preflight {
		method OPTIONS
		header Origin `+origin+`
	}
	header {
		Access-Control-Allow-Origin `+origin+`
		Access-Control-Allow-Headers Authorization
		Vary Origin
	}
	respond @preflight 204
	quota_account
}
`)
	r := g.do("OPTIONS", "/v1/subscription/me", "", "Origin: "+origin, "Access-Control-Request-Method: GET").want(t, 204)
	if r.Header.Get("Access-Control-Allow-Headers") != "Authorization" {
		t.Errorf("preflight: %v", r.Header)
	}
	for _, tok := range []string{access("u"), ""} {
		r := g.do("GET", "/v1/subscription/me", tok, "Origin: "+origin)
		if got := r.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != origin {
			t.Errorf("%d: Access-Control-Allow-Origin = %v", r.StatusCode, got)
		}
	}
}

func TestAccountWhileTheRecordsFail(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	user := access("u")
	g.account("me", user)
	g.exec(`ALTER TABLE plan_prices RENAME TO hidden`)
	for _, path := range []string{"me", "plans"} {
		r := g.do("GET", "/v1/subscription/"+path, user).want(t, 503)
		if got, want := strings.TrimSpace(string(r.body)), `{"detail":"This information is not available at the moment"}`; got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	g.do("GET", "/items", user).want(t, 200) // what passes, passes
	log := g.logged()
	if !strings.Contains(log, "answering failed") || strings.Contains(log, user) || strings.Contains(log, secret) {
		t.Errorf("want the fault in the log, and no secret:\n%s", log)
	}
	g.exec(`ALTER TABLE hidden RENAME TO plan_prices`)
	g.wantPlan(user, "free", "")
}
