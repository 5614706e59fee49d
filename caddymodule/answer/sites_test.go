package answer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// allowed is what Access-Control-Allow-Origin a denial of the host has.
func allowed(t *testing.T, o *Origins, host, origin string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/", nil)
	r.Header.Set("Origin", origin)
	h := http.Header{}
	o.Apply(h, r)
	return h.Get("Access-Control-Allow-Origin")
}

// Handlers of a later config know what those of an earlier one have seen, of
// their own site and no other; what is configured is the config's own.
func TestSites(t *testing.T) {
	t.Parallel()
	const app, other = "https://app.example", "https://other.example"
	var s Sites
	first := s.Of(":80", other)
	first.Observe("a.example", app, allow(app, true))
	first.Observe("open.example", app, allow("*", false))
	first.Observe("mute.example", app, allow(other, true))
	later, elsewhere, configured := s.Of(":80"), s.Of(":81"), s.Of(":80", "*")
	for _, tt := range []struct {
		name         string
		of           *Origins
		host, origin string
		want         string
	}{
		{"learned", later, "a.example", app, app},
		{"learned for everybody", later, "open.example", other, "*"},
		{"of another host", later, "b.example", app, ""},
		{"of another server", elsewhere, "a.example", app, ""},
		{"for another origin", later, "mute.example", other, ""},
		{"configured", first, "a.example", other, other},
		{"configured before", later, "a.example", other, ""},
		{"configured for everybody", configured, "b.example", other, "*"},
		{"learned where everybody is configured", configured, "a.example", app, app},
	} {
		if got := allowed(t, tt.of, tt.host, tt.origin); got != tt.want {
			t.Errorf("%s: Access-Control-Allow-Origin = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whoever makes hosts up pushes out those that others made up, not those in use.
func TestSitesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // whose clock tells one site from the next
		const app = "https://app.example"
		var s Sites
		o := s.Of(":80")
		host := func(i int) string { return fmt.Sprintf("%d.example", i) }
		for i := range 2 * maxSites {
			time.Sleep(time.Millisecond)
			o.Observe(host(i), app, allow(app, false))
			time.Sleep(time.Millisecond)
			if got := allowed(t, o, host(0), app); got != app {
				t.Fatalf("the site in use is forgotten after %d others", i)
			}
		}
		if n := len(*s.known.Load()); n != maxSites {
			t.Errorf("%d sites are kept", n)
		}
		for i, want := range map[int]string{1: "", maxSites: "", maxSites + 1: app, 2*maxSites - 1: app} {
			if got := allowed(t, o, host(i), app); got != want {
				t.Errorf("site %d: Access-Control-Allow-Origin = %q, want %q", i, got, want)
			}
		}
	})
}

func TestSitesObserveForNothing(t *testing.T) {
	const app = "https://app.example"
	var s Sites
	o := s.Of(":80")
	h := allow(app, true)
	o.Observe("a.example", app, h)
	if n := testing.AllocsPerRun(100, func() { o.Observe("a.example", app, h); o.Observe("b.example", app, http.Header{}) }); n != 0 {
		t.Errorf("%v allocations where nothing is new", n)
	}
}
