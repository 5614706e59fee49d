package answer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func allow(origin string, credentials bool) http.Header {
	h := http.Header{"Access-Control-Allow-Origin": {origin}}
	if credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	return h
}

func apply(t *testing.T, c *CORS, origin string, have http.Header) http.Header {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	h := have.Clone()
	if h == nil {
		h = http.Header{}
	}
	c.Apply(h, r)
	return h
}

func TestCORS(t *testing.T) {
	t.Parallel()
	const app, other = "https://app.example", "https://other.example"
	type seen struct {
		origin string
		header http.Header
	}
	expose := http.Header{"Access-Control-Expose-Headers": {exposed}}
	echo := http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Expose-Headers": {exposed}, "Vary": {"Origin"}}
	credentialed := echo.Clone()
	credentialed.Set("Access-Control-Allow-Credentials", "true")
	star := http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Expose-Headers": {exposed}}
	tests := []struct {
		name       string
		configured []string
		seen       []seen
		origin     string
		have, want http.Header
	}{
		{name: "nothing known", origin: app},
		{name: "no origin", seen: []seen{{app, allow("*", false)}}},
		{name: "any", seen: []seen{{app, allow("*", false)}}, origin: other, want: star},
		{name: "any without an origin", seen: []seen{{"", allow("*", false)}}, origin: other, want: star},
		{name: "any never with credentials", seen: []seen{{app, allow("*", true)}}, origin: other, want: star},
		{name: "echo", seen: []seen{{app, allow(app, false)}}, origin: app, want: echo},
		{name: "echo is for its origin only", seen: []seen{{app, allow(app, false)}}, origin: other},
		{name: "echo with credentials", seen: []seen{{app, allow(app, true)}}, origin: app, want: credentialed},
		{name: "credentials stay", seen: []seen{{app, allow(app, true)}, {app, allow(app, false)}}, origin: app, want: credentialed},
		{name: "credentials come", seen: []seen{{app, allow(app, false)}, {app, allow(app, true)}}, origin: app, want: credentialed},
		{name: "an answer for another origin", seen: []seen{{app, allow(other, true)}}, origin: app},
		{name: "an answer for another origin, the other side", seen: []seen{{app, allow(other, true)}}, origin: other},
		{name: "no CORS headers", seen: []seen{{app, http.Header{}}}, origin: app},
		{name: "two values are none", seen: []seen{{app, http.Header{"Access-Control-Allow-Origin": {app, app}}}}, origin: app},
		{name: "an endless origin", seen: []seen{{strings.Repeat("a", 256), allow(strings.Repeat("a", 256), false)}}, origin: strings.Repeat("a", 256)},
		{name: "configured", configured: []string{app}, origin: app, want: credentialed},
		{name: "configured any", configured: []string{"*"}, origin: app, want: star},
		{name: "not configured", configured: []string{app}, origin: other},
		{
			name: "headers that stand already win", seen: []seen{{app, allow(app, true)}}, origin: app,
			have: http.Header{"Access-Control-Allow-Origin": {"https://set.example"}, "Access-Control-Expose-Headers": {"X"}},
			want: http.Header{"Access-Control-Allow-Origin": {"https://set.example"}, "Access-Control-Expose-Headers": {"X"}},
		},
		{
			name: "exposed where somebody else keeps the policy", origin: app,
			have: http.Header{"Access-Control-Allow-Origin": {app}},
			want: http.Header{"Access-Control-Allow-Origin": {app}, "Access-Control-Expose-Headers": expose["Access-Control-Expose-Headers"]},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := NewCORS(tt.configured...)
			for _, s := range tt.seen {
				c.Observe(s.origin, s.header)
			}
			want := tt.want
			if want == nil {
				want = http.Header{}
			}
			if diff := cmp.Diff(want, apply(t, c, tt.origin, tt.have)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCORSIsBounded(t *testing.T) {
	t.Parallel()
	c := NewCORS("https://kept.example")
	origin := func(i int) string { return fmt.Sprintf("https://%d.example", i) }
	for i := range 3 * maxOrigins {
		c.Observe(origin(i), allow(origin(i), false))
	}
	if n := len(c.grants.Load().origins); n != maxOrigins+1 {
		t.Errorf("%d origins are kept", n)
	}
	for _, o := range []string{"https://kept.example", origin(2 * maxOrigins), origin(3*maxOrigins - 1)} {
		if apply(t, c, o, nil).Get("Access-Control-Allow-Origin") != o {
			t.Errorf("%s was forgotten", o)
		}
	}
	if apply(t, c, origin(2*maxOrigins-1), nil).Get("Access-Control-Allow-Origin") != "" {
		t.Error("the oldest was kept")
	}
}

func TestCORSConcurrently(t *testing.T) {
	t.Parallel()
	var (
		c  CORS
		wg sync.WaitGroup
	)
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				o := fmt.Sprintf("https://%d.example", (i*j)%150)
				c.Observe(o, allow(o, j%2 == 0))
				r := &http.Request{Header: http.Header{"Origin": {o}}}
				c.Apply(http.Header{}, r)
			}
		})
	}
	wg.Wait()
	const last = "https://last.example"
	c.Observe(last, allow(last, false))
	if apply(t, &c, last, nil).Get("Access-Control-Allow-Origin") != last {
		t.Errorf("%s is not known", last)
	}
	if kept, order := len(c.grants.Load().origins), len(c.learned); kept > maxOrigins || kept != order {
		t.Errorf("%d origins are kept, %d in the order of their coming, want at most %d", kept, order, maxOrigins)
	}
}

func TestCORSObservesForNothing(t *testing.T) {
	c := NewCORS()
	const app = "https://app.example"
	h := allow(app, true)
	c.Observe(app, h)
	if n := testing.AllocsPerRun(100, func() { c.Observe(app, h) }); n != 0 {
		t.Errorf("%v allocations where nothing is new", n)
	}
}

func TestIsPreflight(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, origin, wanted string
		want                   bool
	}{
		{"OPTIONS", "https://app.example", "POST", true},
		{"OPTIONS", "", "POST", false},
		{"OPTIONS", "https://app.example", "", false},
		{"GET", "https://app.example", "POST", false},
	}
	for _, tt := range tests {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, "/", nil)
		r.Header.Set("Origin", tt.origin)
		r.Header.Set("Access-Control-Request-Method", tt.wanted)
		if got := IsPreflight(r); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func BenchmarkCORSObserve(b *testing.B) {
	c := NewCORS()
	const app = "https://app.example"
	h := allow(app, true)
	b.ReportAllocs()
	for b.Loop() {
		c.Observe(app, h)
	}
}
