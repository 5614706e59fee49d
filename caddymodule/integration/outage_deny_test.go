package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// A rule that denies in an outage answers 503 while Redis is away, and nothing else does.
func TestRulesThatDenyInAnOutage(t *testing.T) {
	t.Parallel()
	server := gatetest.Redis(t)
	b := gatetest.NewBackend(nil)
	config := strings.NewReplacer(
		"records sqlite {$DIR}/quota.db", "records sqlite {$DIR}/quota.db\n\t\tcounters redis {env.QUOTA_REDIS}",
	).Replace(site(b.Serve(t).URL, `	quota_health
	quota {
		rule strict {
			match {
				path /strict
			}
			limit strict 100/1m
			on_outage deny
		}
		rule api {
			limit api 100/1m
		}
	}
`))
	g := runFleet(t, 1, config, "", server.URL())[0]
	g.do("GET", "/strict", access("u")).want(t, http.StatusOK)
	server.Kill(t)
	g.do("GET", "/items", access("u")).want(t, http.StatusOK)
	if d := g.do("GET", "/strict", access("u")).want(t, http.StatusServiceUnavailable).detail(t); d["error"] != "limiter_unavailable" {
		t.Errorf("detail = %v", d)
	}
	eventually(t, patience, "readiness shows it", func() bool {
		r := g.do("GET", "/readyz", "").want(t, http.StatusOK)
		return strings.Contains(string(r.body), `"counters":{"status":"degraded"`)
	})
	server.Start(t)
	eventually(t, patience, "the rule is checked again", func() bool { return g.do("GET", "/strict", access("u")).StatusCode == http.StatusOK })
	if n := b.Count(nil); n < 3 {
		t.Errorf("the backend saw %d requests", n)
	}
}
