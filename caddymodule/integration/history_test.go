package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// What was admitted and what was denied stands in the user's charts under each
// metric, whatever the rules and their scopes are called.
func TestHistoryShowsWhatWasUsed(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota_account
	quota {
		rule submit {
			match {
				method POST
				path /jobs
			}
			require user
			limit bursts 1000/1h
			spend jobs
			spend compute_seconds 30
		}
		rule api {
			limit api 1000/1m
			spend api_calls
		}
	}
`))
	user := access("historian")
	const jobs, denied = 10, 3 // the free plan's limit, and more
	for i := range jobs + denied {
		want := http.StatusOK
		if i >= jobs {
			want = http.StatusPaymentRequired
		}
		g.do("POST", "/jobs", user).want(t, want)
	}
	g.do("GET", "/items", user).want(t, http.StatusOK)
	for metric, want := range map[string][2]float64{
		"jobs": {jobs, denied}, "compute_seconds": {30 * jobs, denied}, "api_calls": {jobs + 1, denied},
	} {
		var used, blocked float64
		eventually(t, patience, "the charts show "+metric, func() bool {
			used, blocked = 0, 0
			for _, p := range g.history(metric, user) {
				used += p.(object)["used"].(float64)
				blocked += p.(object)["blocked"].(float64)
			}
			return used == want[0] && blocked == want[1]
		})
	}
	for _, p := range g.history("jobs", access("somebody-else")) {
		if p.(object)["used"] != 0.0 {
			t.Errorf("somebody else's charts: %v", p)
		}
	}
	table := g.do("GET", "/v1/usage/history?metric=jobs&format=csv", user).want(t, http.StatusOK)
	if body := string(table.body); !strings.HasPrefix(body, "t,used,blocked\r\n") || !strings.Contains(body, ",10,3\r\n") {
		t.Errorf("table:\n%s", body)
	}
}

func (g *gateway) history(metric, token string) []any {
	g.t.Helper()
	var v object
	decode(g.t, g.do("GET", "/v1/usage/history?metric="+metric, token).want(g.t, http.StatusOK), &v)
	return v["series"].([]any)
}
