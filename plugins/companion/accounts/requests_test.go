package accounts

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

func TestCallersThatAreRefused(t *testing.T) {
	t.Parallel()
	nobody := gate.Caller{Identity: gate.Identity{Principal: &quota.Principal{}}}
	invalid := nobody
	invalid.Invalid = &gate.InvalidError{Reason: "it has expired"}
	known := gate.Caller{Identity: gate.Identity{Principal: &quota.Principal{Subject: ann}}}
	const (
		private = "/v1/subscription/me /v1/subscription/usage /v1/usage/history"
		all     = private + " /v1/subscription/plans"
	)
	for name, c := range map[string]struct {
		caller        gate.Caller
		refusal       error
		paths         string
		status        int
		body          string // exact, or how it begins
		authenticate  string
		publicAnswers bool
	}{
		"anonymous": {caller: nobody, paths: private, status: 401, body: `{"detail":"Could not validate credentials"}`,
			authenticate: "Bearer", publicAnswers: true},
		"invalid token": {caller: invalid, paths: private, status: 401, body: `{"detail":"Could not validate credentials"}`,
			authenticate: `Bearer error="invalid_token"`, publicAnswers: true},
		"suspended": {caller: known, refusal: quota.Refuse(quota.CodeSuspended), paths: all, status: 403,
			body: `{"detail":{"error":"account_suspended","message":"This account is suspended","decision_id":"`},
		"deleted": {caller: known, refusal: quota.Refuse(quota.CodeDeleted), paths: all, status: 403,
			body: `{"detail":{"error":"account_deleted",`},
		"ambiguous": {caller: nobody, refusal: quota.Refuse(quota.CodeBadRequest), paths: all, status: 400,
			body: `{"detail":{"error":"bad_request",`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.caller, f.refusal = c.caller, c.refusal
			for path := range strings.FieldsSeq(c.paths) {
				w := f.do(http.MethodGet, path)
				if w.Code != c.status || !strings.HasPrefix(w.Body.String(), c.body) {
					t.Errorf("%s: %d %s, want %d %s", path, w.Code, w.Body, c.status, c.body)
				}
				h := w.Header()
				if got := h.Get("WWW-Authenticate"); got != c.authenticate {
					t.Errorf("%s: WWW-Authenticate = %q, want %q", path, got, c.authenticate)
				}
				if h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/json" {
					t.Errorf("%s: headers %v", path, h)
				}
				if id := h.Get("X-Quota-Decision-Id"); id == "" || f.log.FilterField(zap.String("decision_id", id)).Len() != 1 {
					t.Errorf("%s: decision %q is not in the log: %v", path, id, f.log.All())
				}
			}
			if w := f.do(http.MethodGet, "/v1/subscription/plans"); c.publicAnswers && w.Code != http.StatusOK {
				t.Errorf("plans: %d %s, want 200", w.Code, w.Body)
			}
		})
	}
}

func TestRefusalAsAProblem(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.caller.Principal = &quota.Principal{}
	w := f.do(http.MethodGet, "/v1/subscription/me", "Accept", "application/problem+json")
	p := decode(t, w.Body.Bytes())
	if w.Code != 401 || w.Header().Get("Content-Type") != "application/problem+json" || p["code"] != "unauthenticated" {
		t.Errorf("%d %v: %s", w.Code, w.Header(), w.Body)
	}
}

func TestFaultsAreUnavailable(t *testing.T) {
	t.Parallel()
	const body = `{"detail":"This information is not available at the moment"}`
	for name, c := range map[string]struct {
		breaks func(*fixture)
		paths  string
	}{
		"records": {func(f *fixture) { f.recordsDown = true }, "me usage plans"},
		"database": {func(f *fixture) {
			f.caller.Entitlement = &quota.Entitlement{Account: ann, Plan: &quota.Plan{Name: "free"}}
			if err := f.db.Close(); err != nil {
				f.Fatal(err)
			}
		}, "me usage plans"},
		"identity": {func(f *fixture) { f.refusal = errDown }, "me usage plans"},
		"no plan known": {func(f *fixture) {
			f.caller.Entitlement = &quota.Entitlement{Account: ann}
		}, "usage"},
		"bad row": {func(f *fixture) {
			f.exec(`UPDATE subscription_plans SET rate_limits = '{"api":{"requests":-1,"window":60}}' WHERE name = 'free'`)
		}, "plans"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			c.breaks(f)
			n := 0
			for path := range strings.FieldsSeq(c.paths) {
				n++
				w := f.do(http.MethodGet, "/v1/subscription/"+path)
				if w.Code != http.StatusServiceUnavailable || strings.TrimSpace(w.Body.String()) != body {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
				if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
					t.Errorf("%s: headers %v", path, w.Header())
				}
			}
			if got := f.log.FilterLevelExact(zap.ErrorLevel).Len(); got != n {
				t.Errorf("%d errors in the log, want %d: %v", got, n, f.log.All())
			}
		})
	}
}

// What is not an operation of ours is the next handler's, whatever it looks like.
func TestOtherRequestsPassOn(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.refusal = errDown // nobody is to be asked who calls
	for _, path := range []string{
		"/v1/subscription/me/", "/v1/subscription/usage/", "/v1/subscription", "/v1/subscription/", "/v1/subscription/mee",
		"/v1//subscription/me", "//v1/subscription/me", "/v1/./subscription/me", "/v1/subscription/x/../me", "/V1/subscription/me",
		"/v1/subscription%2Fme", "/v1/subscription/me%2F", "/v1/subscription/%2e/me", "/v1/subscription/me%00", "/v1/subscription/me;x",
		"/v1/openapi.yaml", "/v1/openapi-3.0.json", "/v1/openapi", "/docs", "/schemas/Plan.json", "/", "/items",
	} {
		if w := f.do(http.MethodGet, path); w.Code != passedOn {
			t.Errorf("GET %s: %d %s, want it to pass on", path, w.Code, w.Body)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"} {
		if w := f.do(method, "/v1/subscription/me"); w.Code != passedOn {
			t.Errorf("%s: %d %s, want it to pass on", method, w.Code, w.Body)
		}
	}
	w := f.do(http.MethodOptions, "/v1/subscription/me", "Origin", "https://app.example.com", "Access-Control-Request-Method", "GET")
	if w.Code != passedOn || len(w.Header()) != 0 {
		t.Errorf("a preflight: %d %v, want it to pass on untouched", w.Code, w.Header())
	}
}

func TestSpellingsOfTheSamePath(t *testing.T) {
	t.Parallel()
	f := start(t)
	plain := f.do(http.MethodGet, "/v1/subscription/me").Body.String()
	for _, path := range []string{"/v1/subscription/%6De", "/v1/%73ubscription/me", "/v1/subscription/me?x=1&x=2", "/v1/subscription/me?%"} {
		if w := f.do(http.MethodGet, path); w.Code != http.StatusOK || w.Body.String() != plain {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, accept := range []string{"text/html", "application/xml", "application/problem+json", "*/*;q=0", ",;"} {
		w := f.do(http.MethodGet, "/v1/subscription/me", "Accept", accept)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("Accept %s: %d %v", accept, w.Code, w.Header())
		}
	}
	if w := f.do(http.MethodHead, "/v1/subscription/me"); w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
}

const origin = "https://app.example.com"

// corsBackend answers preflights as the backend's own CORS middleware does.
type corsBackend struct {
	allow     string
	preflight []*http.Request
	fails     func() error
}

func (b *corsBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	b.preflight = append(b.preflight, r)
	if b.fails != nil {
		return b.fails()
	}
	if r.Header.Get("Origin") == b.allow {
		w.Header().Set("Access-Control-Allow-Origin", b.allow)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
	w.WriteHeader(http.StatusOK)
	_, err := w.Write([]byte("OK"))
	return err
}

func TestScriptsOfOriginsThatTheBackendAllows(t *testing.T) {
	t.Parallel()
	f := start(t)
	b := &corsBackend{allow: origin}
	get := func(path, from string) http.Header {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.example.com"+path, nil)
		r.Header.Set("Origin", from)
		r.Header.Set("Authorization", "Bearer secret")
		r.Header.Set("Cookie", "session=secret")
		return f.send(r, b).Header()
	}
	for range 3 {
		h := get("/v1/subscription/me", origin)
		if h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin" {
			t.Errorf("headers %v", h)
		}
	}
	if len(b.preflight) != 1 {
		t.Fatalf("the backend was asked %d times, want once", len(b.preflight))
	}
	p := b.preflight[0]
	if p.Method != http.MethodOptions || p.URL.Path != "/v1/subscription/me" || p.Header.Get("Access-Control-Request-Method") != "GET" {
		t.Errorf("the backend was asked by %s %s %v", p.Method, p.URL, p.Header)
	}
	if p.Header.Get("Authorization") != "" || p.Header.Get("Cookie") != "" {
		t.Errorf("the question carries a credential: %v", p.Header)
	}
	if h := get("/v1/subscription/me", "https://evil.example"); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("an origin that the backend does not allow: %v", h)
	}
	// Denials and faults too: else a script sees a network error.
	f.caller.Principal = &quota.Principal{}
	if h := get("/v1/subscription/me", origin); h.Get("Access-Control-Allow-Origin") != origin || h.Get("WWW-Authenticate") == "" {
		t.Errorf("a denial: %v", h)
	}
	f.refusal = errDown
	if h := get("/v1/subscription/plans", origin); h.Get("Access-Control-Allow-Origin") != origin {
		t.Errorf("a fault: %v", h)
	}
	asked := len(b.preflight)
	get("/v1/subscription/plans", "http://api.example.com")
	if len(b.preflight) != asked {
		t.Error("the backend was asked about the site's own origin")
	}
}

func TestBackendsThatCannotBeAskedForTheirPolicy(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]func() error{
		"down":       func() error { return caddyhttp.Error(http.StatusBadGateway, errors.New("refused")) },
		"breaks off": func() error { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			b := &corsBackend{fails: fails}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/subscription/me", nil)
			r.Header.Set("Origin", origin)
			if w := f.send(r, b); w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "" || len(b.preflight) != 1 {
				t.Errorf("%d %v after %d questions", w.Code, w.Header(), len(b.preflight))
			}
		})
	}
}

// A site that says itself which origins it allows needs no backend for it.
func TestHeadersOfTheSiteWin(t *testing.T) {
	t.Parallel()
	f := start(t)
	b := &corsBackend{allow: "https://other.example"}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/subscription/plans", nil)
	r.Header.Set("Origin", origin)
	w := httptest.NewRecorder()
	w.Header().Set("Access-Control-Allow-Origin", origin)
	if err := f.server.ServeHTTP(w, r, b); err != nil {
		t.Fatal(err)
	}
	if got := w.Header().Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != origin || len(b.preflight) != 0 {
		t.Errorf("Access-Control-Allow-Origin = %v after %d questions", got, len(b.preflight))
	}
}
