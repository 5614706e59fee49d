package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Another site cannot make a browser do something with the cookie that it keeps.
func TestCrossSiteRequests(t *testing.T) {
	t.Parallel()
	s, _ := served(knownCaller())
	done := 0
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		huma.Register(s.API(), huma.Operation{OperationID: method, Method: method, Path: "/v1/thing", Security: Authenticated()},
			func(context.Context, *struct{}) (*item, error) { done++; return &item{}, nil })
	}
	const cookie, bearer = "Cookie: access_token=x", "Authorization: Bearer x"
	for name, c := range map[string]struct {
		headers []string
		status  int
	}{
		"a bearer token":                    {[]string{bearer}, 200},
		"a bearer token of another site":    {[]string{bearer, "Origin: https://app.example.net", cookie}, 200},
		"an API key":                        {[]string{"X-Api-Key: x", "Origin: https://app.example.net"}, 200},
		"a cookie":                          {[]string{cookie}, 403},
		"a cookie from another site":        {[]string{cookie, "Origin: https://evil.example.net"}, 403},
		"a cookie from no site":             {[]string{cookie, "Origin: null"}, 403},
		"a cookie from this site":           {[]string{cookie, "Origin: http://example.com"}, 200},
		"a cookie, as the browser says":     {[]string{cookie, "Sec-Fetch-Site: same-origin"}, 200},
		"a cookie, from a subdomain":        {[]string{cookie, "Sec-Fetch-Site: same-site", "Origin: http://example.com"}, 403},
		"a cookie beside a link's password": {[]string{"Authorization: Basic eDp5", cookie}, 403},
		"a cookie beside a digest":          {[]string{`Authorization: Digest username="x"`, cookie}, 403},
		"a cookie beside a domain's login":  {[]string{"Authorization: NEGOTIATE x", cookie}, 403},
		"a cookie beside nothing":           {[]string{"Authorization: ", cookie}, 403},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
			r := httptest.NewRequestWithContext(t.Context(), method, "http://example.com/v1/thing", nil)
			for _, h := range c.headers {
				field, value, _ := strings.Cut(h, ": ")
				r.Header.Add(field, value)
			}
			want, before := c.status, done
			if method == http.MethodGet {
				want = 200
			}
			if w := send(t, s, r); w.Code != want || (done > before) != (want == 200) {
				t.Errorf("%s: %s: %d, done: %v, want %d", name, method, w.Code, done > before, want)
			}
		}
	}
}

func TestActor(t *testing.T) {
	t.Parallel()
	c := knownCaller()
	c.Principal.Email, c.Principal.Impersonator = "ann@example.com", "eve"
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/x", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("User-Agent", "test")
	a := Actor(withCaller(r, &c).Context())
	if a.Type != "user" || a.ID != "ann" || a.Label != "ann@example.com" || a.Impersonator != "eve" || a.IP != "192.0.2.7" ||
		a.UserAgent != "test" || a.RequestID == "" {
		t.Errorf("%+v", a)
	}
	c.Principal = &quota.Principal{}
	if a := Actor(withCaller(r, &c).Context()); a.ID != "" {
		t.Errorf("nobody acts as %q", a.ID)
	}
}
