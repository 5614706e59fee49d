package integration

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const adminPlan = `{"name": %q, "rate_limit_multiplier": 1, "rate_limits": {"api": {"requests": %d, "window": 60}},
	"quotas": [{"metric": "jobs", "limit": 10, "period": "month", "exceeded_status": 402}]}`

// What an admin does at one gateway counts at all of them within the bound, in
// the order in which it was done, and what was used stays used.
func TestAdminEffectsReachEveryGateway(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	f := startFleet(t, 4, b.Serve(t).URL, jobsSite)
	f.know("flipper", "worker")
	ids := map[string]string{}
	for i, name := range []string{"small", "medium", "large"} {
		var p struct{ ID string }
		decode(t, f.ask(i, "POST", "/v1/admin/plans", fmt.Sprintf(adminPlan, name, 10001+i)).want(t, http.StatusCreated), &p)
		ids[name] = p.ID
	}
	t.Run("plan", func(t *testing.T) {
		for i := range 12 {
			name, limit := [...]string{"small", "medium", "large"}[i%3], fmt.Sprint(10001+i%3)
			f.ask(i, "PATCH", "/v1/admin/users/flipper", fmt.Sprintf(`{"plan_name": %q}`, name)).want(t, http.StatusOK)
			f.all("the plan "+name, items("flipper"), limited(limit))
		}
		edited := `{"rate_limits": {"api": {"requests": 20000, "window": 60}}}`
		f.ask(0, "PATCH", "/v1/admin/plans/"+ids["large"], edited, `If-Match: "1"`).want(t, http.StatusOK)
		f.all("the edited plan", items("flipper"), limited("20000"))
		f.ask(1, "PATCH", "/v1/admin/plans/"+ids["large"], edited, `If-Match: "1"`).want(t, http.StatusPreconditionFailed)
	})
	t.Run("suspension", func(t *testing.T) {
		for i := range 4 {
			f.ask(i, "PATCH", "/v1/admin/users/flipper", `{"status": "suspended"}`).want(t, http.StatusOK)
			f.all("suspended", items("flipper"), answered(http.StatusForbidden))
			f.ask(i+1, "PATCH", "/v1/admin/users/flipper", `{"status": "active"}`).want(t, http.StatusOK)
			f.all("let in again", items("flipper"), answered(http.StatusOK))
		}
	})
	t.Run("rate override", func(t *testing.T) {
		f.ask(0, "POST", "/v1/admin/accounts/flipper/overrides", `{"scope": "api", "requests": 30000, "window": 60}`).want(t, http.StatusCreated)
		f.all("the account's own limit", items("flipper"), limited("30000"))
		f.ask(1, "DELETE", "/v1/admin/accounts/flipper/overrides", "").want(t, http.StatusOK)
		f.all("the plan's limit", items("flipper"), limited("20000"))
	})
	t.Run("cleared rate limits", func(t *testing.T) { clearingReaches(t, f) })
	t.Run("top-up and adjustment", func(t *testing.T) { usageFollows(t, f) })
}

// clearingReaches uses a rate limit up at all gateways in turn. Once it is cleared
// at one of them, all have it whole again, and together no more than that.
func clearingReaches(t *testing.T, f fleet) {
	const limit = 100
	f.know("retrier")
	f.ask(0, "POST", "/v1/admin/accounts/retrier/overrides", fmt.Sprintf(`{"scope": "api", "requests": %d, "window": 3600}`, limit)).want(t, http.StatusCreated)
	f.all("the account's own limit", items("retrier"), limited(fmt.Sprint(limit)))
	usedUp := func() (admitted int) {
		t.Helper()
		for turn, refused := 0, 0; refused < len(f); turn++ {
			switch r := items("retrier")(f[turn%len(f)]); r.StatusCode {
			case http.StatusOK:
				admitted++
				refused = 0
			case http.StatusTooManyRequests:
				refused++
			default:
				t.Fatalf("%d %s", r.StatusCode, r.body)
			}
		}
		return admitted
	}
	usedUp()
	for i := range 2 * len(f) {
		f.ask(i, "POST", "/v1/admin/users/retrier/clear-rate-limits", `{"scopes": ["api"]}`).want(t, http.StatusOK)
		began := time.Now()
		other := f[(i+1)%len(f)]
		eventually(t, noticeMax, "another gateway admits", func() bool { return items("retrier")(other).StatusCode == http.StatusOK })
		if admitted := 1 + usedUp(); admitted != limit {
			t.Errorf("cleared at gateway %d, %d were admitted in all, want %d", i%len(f), admitted, limit)
		}
		t.Logf("seen at another gateway, and used up, within %s", time.Since(began))
	}
}

// usageFollows uses a quota up, at all gateways in turn, after each act of an admin.
func usageFollows(t *testing.T, f fleet) {
	f.ask(0, "PATCH", "/v1/admin/users/worker", `{"plan_name": "small"}`).want(t, http.StatusOK)
	f.all("the plan", items("worker"), limited("10001"))
	turn, admitted := 0, int64(0)
	// more works until every gateway refuses, and wants so many to be admitted.
	more := func(why string, want int64) {
		t.Helper()
		had, refused := admitted, 0
		deadline := time.Now().Add(patience)
		for refused < len(f) || admitted-had < want {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d jobs were admitted, want %d", why, admitted-had, want)
			}
			turn++
			switch r := f[turn%len(f)].do("POST", "/jobs", access("worker")); r.StatusCode {
			case http.StatusOK:
				admitted++
				refused = 0
			case http.StatusPaymentRequired:
				refused++
			default:
				t.Fatalf("%s: %d %s", why, r.StatusCode, r.body)
			}
		}
		if admitted-had != want {
			t.Fatalf("%s: %d jobs were admitted, want %d", why, admitted-had, want)
		}
	}
	more("the plan's quota", 10)
	f.ask(1, "POST", "/v1/admin/accounts/worker/overrides", `{"metric": "jobs", "mode": "add", "limit": 2}`).want(t, http.StatusCreated)
	more("a top-up", 2)
	db := f[0].db()
	flushed := func(want int64) {
		t.Helper()
		eventually(t, patience, "usage is in the records", func() bool {
			var n int64
			err := db.QueryRow(`SELECT coalesce(sum(spent - refunded), 0) FROM usage_totals
				WHERE account_id = 'worker' AND metric = 'jobs' AND period = 'month'`).Scan(&n)
			if err != nil {
				t.Fatal(err)
			}
			return n == want
		})
	}
	flushed(12)
	f.ask(2, "POST", "/v1/admin/accounts/worker/usage/adjust", `{"metric": "jobs", "delta": -3, "reason": "failed runs"}`).want(t, http.StatusOK)
	more("given back", 3)
	flushed(12)
	f.ask(3, "POST", "/v1/admin/accounts/worker/usage/adjust", `{"metric": "jobs", "delta": -1000}`).want(t, http.StatusUnprocessableEntity)
	f.ask(3, "PATCH", "/v1/admin/users/worker", `{"plan_name": "large"}`).want(t, http.StatusOK)
	f.all("another plan", items("worker"), limited("20000"))
	more("a change of plan resets nothing", 0)
	flushed(12)
	if admitted != 15 {
		t.Errorf("%d jobs were admitted in all", admitted)
	}
}

// BenchmarkAdminChange is how long it takes from the answer to an admin until all
// of four gateways have applied what he has done: another plan, a suspension, its
// end, revoked sessions, in turn.
func BenchmarkAdminChange(b *testing.B) {
	backend := gatetest.NewBackend(nil)
	f := startFleet(b, 4, backend.Serve(b).URL, jobsSite)
	f.know("flipper")
	db := f[0].db()
	changes := []struct{ method, path, body string }{
		{"PATCH", "/v1/admin/users/flipper", `{"plan_name": "pro"}`}, {"PATCH", "/v1/admin/users/flipper", `{"status": "suspended"}`},
		{"PATCH", "/v1/admin/users/flipper", `{"status": "active"}`}, {"PATCH", "/v1/admin/users/flipper", `{"plan_name": "free"}`},
		{"POST", "/v1/admin/users/flipper/revoke-sessions", `{}`},
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		c := changes[i%len(changes)]
		f.ask(i, c.method, c.path, c.body).want(b, http.StatusOK)
		began := time.Now()
		var want int64
		if err := db.QueryRow(`SELECT max(seq) FROM changes`).Scan(&want); err != nil {
			b.Fatal(err)
		}
		var all sync.WaitGroup
		for _, g := range f {
			all.Go(func() {
				for {
					if applied, _ := g.status()["applied_change"].(float64); int64(applied) >= want {
						return
					}
					time.Sleep(time.Millisecond) // or else the looking is what takes the time
				}
			})
		}
		all.Wait()
		took = append(took, time.Since(began))
	}
	reportTimes(b, took)
}

// reportTimes reports how long things took.
func reportTimes(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
