package integration

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// Every gateway sees changes in the order in which they were made, and never an
// older one again, however they come to it.
func TestFleetSeesChangesInOrder(t *testing.T) {
	t.Parallel()
	const changes, first = 20, 20_000
	f := startFleet(t, 4, gatetest.NewBackend(nil).Serve(t).URL, jobsSite)
	f[0].exec(`UPDATE plan_quotas SET limit_value = NULL`) // the rate is what the answers tell
	stop := make(chan struct{})
	seen := make([][]int, len(f)) // the limits that each gateway told of, one after the other
	var wg sync.WaitGroup
	for i, g := range f {
		wg.Go(func() {
			c := client(t)
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := g.try(c, "GET", "/items", access("flipper"), nil)
				if err != nil {
					t.Error(err)
					return
				}
				limit, err := strconv.Atoi(r.Header.Get("X-RateLimit-Limit"))
				if err != nil {
					t.Errorf("%d %v", r.StatusCode, err)
					return
				}
				if n := len(seen[i]); n == 0 || seen[i][n-1] != limit {
					seen[i] = append(seen[i], limit)
				}
			}
		})
	}
	for i := range changes {
		limit := first + i
		f[0].exec(`UPDATE subscription_plans SET rate_limits = $1 WHERE name = 'free'`, fmt.Sprintf(`{"api": {"requests": %d, "window": 60}}`, limit))
		f.all(fmt.Sprint("the limit ", limit), items("another"), limited(fmt.Sprint(limit)))
	}
	close(stop)
	wg.Wait()
	for i, limits := range seen {
		for n := 1; n < len(limits); n++ {
			if limits[n] < limits[n-1] {
				t.Errorf("gateway %d went back from %d to %d", i, limits[n-1], limits[n])
			}
		}
		if last := limits[len(limits)-1]; last != first+changes-1 {
			t.Errorf("gateway %d ended with %d", i, last)
		}
	}
}

// A suspension, a revocation and a plan count at all gateways within the bound,
// and where nobody tells of changes, within the interval at which they are looked for.
func TestFleetSeesWhatAnAdminDoes(t *testing.T) {
	t.Parallel()
	server := gatetest.Postgres(t)
	dsn := server.Database(t)
	p := gatetest.NewProxy(t, server.Addr())
	config := strings.Replace(fleetConfig(gatetest.NewBackend(nil).Serve(t).URL, jobsSite),
		"migrate auto", "migrate auto\n\t\t\tlisten {env.QUOTA_LISTEN}\n\t\t\tpoll_interval 1s", 1)
	f := runFleet(t, 4, config, dsn, gatetest.Redis(t).URL(), func(_ int, g *gateway) {
		g.extra = append(g.extra, "QUOTA_LISTEN="+strings.Replace(dsn, server.Addr(), p.Addr(), 1))
	})
	acts := func(user string) {
		t.Helper()
		act := func(method, path, body string) {
			t.Helper()
			if r := f.ask(0, method, "/v1/admin/users/"+user+path, body); r.StatusCode/100 != 2 {
				t.Fatalf("%s %s: %d %s", method, path, r.StatusCode, r.body)
			}
		}
		f.know(user)
		held := access(user) // before it is revoked
		items := func(g *gateway) *reply { return g.do("GET", "/items", held) }
		f.all("a user", items, answered(http.StatusOK))
		began := time.Now()
		act("PATCH", "", `{"plan_name": "pro"}`)
		f.all("the plan", items, limited("300"))
		plan := time.Since(began)
		began = time.Now()
		act("PATCH", "", `{"status": "suspended"}`)
		f.all("suspended", items, answered(http.StatusForbidden))
		suspended := time.Since(began)
		act("PATCH", "", `{"status": "active"}`)
		f.all("let in again", items, answered(http.StatusOK))
		began = time.Now()
		act("POST", "/revoke-sessions", "")
		f.all("logged out", items, answered(http.StatusUnauthorized))
		t.Logf("%s: the plan, the suspension and the revocation counted everywhere after %s, %s and %s", user,
			plan.Round(time.Millisecond), suspended.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	acts("told")
	p.Down()
	for _, g := range f {
		eventually(t, patience, "it is noticed that nobody tells", func() bool {
			return strings.Contains(g.logged(), "they are looked for instead")
		})
	}
	acts("untold")
	p.Up(t)
	for _, g := range f {
		eventually(t, patience, "changes are told of again", func() bool { return strings.Contains(g.logged(), "are announced again") })
	}
	acts("told-again")
}
