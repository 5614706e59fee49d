package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

type (
	item      struct{ Body itemBody }
	itemBody  struct{ Name string }
	itemInput struct {
		ID    string `path:"id" maxLength:"5"`
		Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		Body  struct {
			Name string `json:"name" minLength:"1"`
		}
	}
)

// served is a server with a few operations, whose caller is c.
func served(c gate.Caller, opts ...Option) (*Server, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	s := NewServer(func(*http.Request) (gate.Caller, error) { return c, nil }, zap.New(core), opts...)
	who := func(ctx context.Context, _ *struct{}) (*item, error) {
		c, err := Caller(ctx)
		if err != nil {
			return nil, NewError(http.StatusConflict, err.Error())
		}
		return &item{itemBody{c.Entitlement.Account.ID()}}, nil
	}
	huma.Register(s.API(), huma.Operation{Method: http.MethodGet, Path: "/v1/who", Security: Authenticated()}, who)
	huma.Register(s.API(), huma.Operation{Method: http.MethodGet, Path: "/v1/anybody"}, who)
	huma.Register(s.API(), huma.Operation{Method: http.MethodPut, Path: "/v1/items/{id}"},
		func(_ context.Context, in *itemInput) (*item, error) {
			return &item{itemBody{in.ID + " " + in.Body.Name}}, nil
		})
	huma.Register(s.API(), huma.Operation{Method: http.MethodGet, Path: "/v1/fault"},
		func(context.Context, *struct{}) (*item, error) {
			return nil, errors.New("dial postgres://user:password@db")
		})
	return s, logs
}

const passedOn = http.StatusTeapot

func send(t testing.TB, s *Server, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(passedOn)
		return nil
	})
	if err := s.ServeHTTP(w, r, next); err != nil {
		t.Fatal(err)
	}
	return w
}

func knownCaller() gate.Caller {
	return gate.Caller{
		Identity:    gate.Identity{Principal: &quota.Principal{Subject: "user:ann"}},
		Entitlement: &quota.Entitlement{Account: "user:ann"},
	}
}

func TestAnswersInFastAPIsShape(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		caller             gate.Caller
		method, path, body string
		status             int
		want               string
	}{
		"a caller":         {knownCaller(), "GET", "/v1/who", "", 200, `{"Name":"ann"}`},
		"nobody":           {gate.Caller{}, "GET", "/v1/who", "", 401, `{"detail":"Could not validate credentials"}`},
		"asks anybody":     {gate.Caller{}, "GET", "/v1/anybody", "", 409, `{"detail":"an operation that is open to anybody asks who calls"}`},
		"good input":       {gate.Caller{}, "PUT", "/v1/items/7?limit=9", `{"name":"x"}`, 200, `{"Name":"7 x"}`},
		"a fault":          {gate.Caller{}, "GET", "/v1/fault", "", 500, `{"detail":"Internal Server Error"}`},
		"no body":          {gate.Caller{}, "PUT", "/v1/items/7", "", 422, `{"detail":[{"loc":["body"],"msg":"request body is required","type":"value_error"}]}`},
		"an empty field":   {gate.Caller{}, "PUT", "/v1/items/7", `{"name":""}`, 422, `{"detail":[{"loc":["body","name"],"msg":"expected length >= 1","type":"value_error"}]}`},
		"a number too big": {gate.Caller{}, "PUT", "/v1/items/7?limit=201", `{"name":"x"}`, 422, `{"detail":[{"loc":["query","limit"],"msg":"expected number <= 200","type":"value_error"}]}`},
		"no number":        {gate.Caller{}, "PUT", "/v1/items/7?limit=x", `{"name":"x"}`, 422, `{"detail":[{"loc":["query","limit"],"msg":"invalid integer","type":"value_error"}]}`},
		"a long id":        {gate.Caller{}, "PUT", "/v1/items/1234567", `{"name":"x"}`, 422, `{"detail":[{"loc":["path","id"],"msg":"expected length <= 5","type":"value_error"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := served(c.caller)
			r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
			w := send(t, s, r)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if diff := cmp.Diff(c.want, strings.TrimSpace(w.Body.String())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type = %s", got)
			}
		})
	}
}

// A change is answered when this process has caught up with it; what is only read,
// or refused, is answered as it is.
func TestChangesAreAnsweredAfterCatchingUp(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]int{
		"GET /v1/who": 0, "GET /v1/anybody": 0, "PUT /v1/items/7": 1, "PUT /v1/items/1234567": 0, "PUT /v1/items": 0, "PUT /v1/who": 0,
	} {
		w := httptest.NewRecorder()
		caughtUp := 0
		s, _ := served(knownCaller(), CatchUp(func(context.Context) {
			if caughtUp++; w.Body.Len() > 0 {
				t.Errorf("%s: answered before", target)
			}
		}))
		method, path, _ := strings.Cut(target, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(`{"name":"x"}`))
		next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
		if err := s.ServeHTTP(w, r, next); err != nil || caughtUp != want {
			t.Errorf("%s: caught up %d times, want %d: %v", target, caughtUp, want, err)
		}
	}
}

func TestMalformedBodies(t *testing.T) {
	t.Parallel()
	s, _ := served(gate.Caller{})
	for _, body := range []string{`{`, `[]`, `"x"`, `{"name":1}`, `{"name":null}`, `{"name":"x","more":1}`, "\x00", strings.Repeat("[", 10_000)} {
		w := send(t, s, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v1/items/7", strings.NewReader(body)))
		var v struct {
			Detail any `json:"detail"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || v.Detail == nil || w.Code/100 != 4 {
			t.Errorf("%.20q: %d %s, %v", body, w.Code, w.Body, err)
		}
	}
}

// A request is answered if, and only if, it is an operation's; whatever its
// path, the server neither redirects nor fails.
func FuzzPaths(f *testing.F) {
	for _, path := range []string{
		"/v1/who", "/v1/who/", "//v1/who", "/v1/./who", "/v1/%77ho", "/v1%2Fwho", "/v1/items/7", "/v1/items/%2F", "/v1/items/", "/v1/items/..",
		"/v1/openapi.json", "", "*", "/", "v1/who", "/v1/who%00", "/%zz", "/v1/who?x", "/v1/who#x", "/v1/\xff",
	} {
		f.Add("GET", path)
		f.Add("PUT", path)
	}
	s, _ := served(knownCaller())
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || method == "" {
			return
		}
		r := (&http.Request{Method: method, URL: u, Host: "x", Header: http.Header{}, Body: http.NoBody}).WithContext(t.Context())
		w := send(t, s, r)
		if w.Code/100 == 3 {
			t.Fatalf("%s %q: redirected to %s", method, path, w.Header().Get("Location"))
		}
		if ours := isOperation(method, u.EscapedPath()); ours == (w.Code == passedOn) {
			t.Fatalf("%s %q: status %d, ours: %v", method, path, w.Code, ours)
		}
	})
}

// isOperation compares a path segment by segment, each of them decoded.
func isOperation(method, written string) bool {
	segments := strings.Split(written, "/")
	for i := range segments {
		var err error
		if segments[i], err = url.PathUnescape(segments[i]); err != nil {
			return false
		}
	}
	read := method == http.MethodGet || method == http.MethodHead
	switch {
	case len(segments) == 3 && segments[0] == "" && segments[1] == "v1":
		switch segments[2] {
		case "who", "anybody", "fault", "openapi.json":
			return read
		}
	case len(segments) == 4 && segments[0] == "" && segments[1] == "v1" && segments[2] == "items":
		raw := written[strings.LastIndexByte(written, '/')+1:]
		// net/http takes a segment that is nothing but a slash for a trailing one.
		return method == http.MethodPut && raw != "" && raw != "." && raw != ".." && segments[3] != "/"
	}
	return false
}
