package integration

import (
	"io"
	"net/http"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// A change is seen within the bound, and the first request sent after the
// gateway shows its number is judged by it.
func TestChangesAreSeenInOrder(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	c := client(t)
	plans := []string{"free", "pro", "enterprise"}
	limits := map[string]string{"free": "60", "pro": "300", "enterprise": "1200"}
	for i := range 60 {
		plan := plans[i%len(plans)]
		g.subscribe("flipper", plan)
		g.noticed()
		r, err := g.try(c, "GET", "/items", access("flipper"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode == 429 {
			continue // the rate is its own business here
		}
		if got := r.Header.Get("X-RateLimit-Limit"); got != limits[plan] {
			t.Fatalf("change %d: limit %s after the change to %s was shown", i, got, plan)
		}
	}
}

func (g *gateway) adminGet(t testing.TB, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + g.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
