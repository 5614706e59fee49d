package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// However many gateways share a limit, and whatever their clocks say, no window
// has more than it, no quota is passed, and what the records say was used is what
// the backend has seen.
func TestFleetIsExact(t *testing.T) { // alone: gateways that starve are taken for dead
	const (
		limit  = 10
		window = 2 * time.Second
	)
	users := rounds(40, 200) // so few that each meets its limit on a busy machine
	skews := [...]time.Duration{0, -10 * time.Minute, 7 * time.Second, 15 * time.Minute}
	allowed := rounds(8, 800) // of every fourth user, in the month
	b := gatetest.NewBackend(nil)
	f := runFleet(t, len(skews), patient(onServers(b.Serve(t).URL, limit, window)), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL(),
		func(i int, g *gateway) {
			g.built, g.extra = skewedBinary, append(g.extra, fmt.Sprint(skewVariable, "=", skews[i]))
		})
	for i, g := range f {
		if off := time.Until(g.clock(t)) - skews[i]; off.Abs() > 3*time.Second {
			t.Fatalf("the clock of gateway %d is not off by %s, but by %s more", i, skews[i], off)
		}
	}
	f[0].exec(`UPDATE plan_quotas SET limit_value = $1 WHERE metric = 'jobs' AND plan_id = (SELECT id FROM subscription_plans WHERE name = 'pro')`, allowed)
	f[0].exec(`UPDATE plan_quotas SET limit_value = NULL WHERE metric = 'jobs' AND plan_id <> (SELECT id FROM subscription_plans WHERE name = 'pro')`)
	f[0].exec(`UPDATE subscription_plans SET rate_limits = '{}', rate_limit_multiplier = 1`)
	for i := 0; i < users; i += 4 {
		f[0].subscribe(fmt.Sprint("u", i), "pro")
	}
	f.together()
	tr := &traffic{g: f[0], fleet: f, users: users, token: longLived()}
	began := time.Now()
	tr.during(t, 64, func() { tr.reach(t, int64(rounds(6_000, 1_000_000))) })
	took := time.Since(began)
	f.stop()
	account(t, f[0], b, tr)
	tr.noServerErrors(t)
	if n := f.outages(); n > 0 {
		t.Errorf("%d outages", n)
	}
	most := overAdmitted(t, b, tr, limit, window)
	denied, passed := map[int]int{}, map[string]int{}
	for _, s := range tr.sent {
		denied[s.status]++
		if s.status == 200 {
			passed[s.user]++
		}
	}
	for i := 0; i < users; i += 4 {
		if n := passed[fmt.Sprint("u", i)]; n > allowed {
			t.Errorf("u%d: %d were admitted, the quota is %d", i, n, allowed)
		}
	}
	if denied[429] == 0 || denied[402] == 0 {
		t.Errorf("a limit did not bind: %v", denied)
	}
	t.Logf("%d requests in %s, %.0f a second: %v; at most %d admitted in a window of %s",
		len(tr.sent), took.Round(time.Second), float64(len(tr.sent))/took.Seconds(), denied, most, window)
}

// longLived is a credential of each user that gateways of any clock accept; made once.
func longLived() func(user string) string {
	var made sync.Map
	return func(user string) string {
		if had, ok := made.Load(user); ok {
			return had.(string)
		}
		now := time.Now()
		fresh := token(map[string]any{
			"sub": user, "type": "access", "iat": now.Add(-time.Hour).Unix(), "exp": now.Add(24 * time.Hour).Unix(),
		})
		made.Store(user, fresh)
		return fresh
	}
}

// Gateways that are killed under load lose nothing and double nothing: what they
// had counted in Redis and not flushed is copied by those that live.
func TestKilledGatewaysLoseNothing(t *testing.T) { // alone: gateways that starve are taken for dead
	const limit = 400
	b := gatetest.NewBackend(nil)
	f := runFleet(t, 2, patient(onServers(b.Serve(t).URL, limit, time.Hour)), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL())
	f.unlimit()
	tr := &traffic{g: f[0], fleet: f, users: 20, paths: []string{"/work", "/free"}}
	for i := range rounds(3, 100) {
		tr.during(t, 16, func() {
			tr.more(t, 200)
			f[i%2].kill()
		})
		f[i%2].run()
	}
	l := newLedger(t, b, tr, nil)
	began, missing := time.Now(), int64(1)
	for missing > 0 && time.Since(began) < patience {
		missing, _, _ = l.compare(t, f[0])
	}
	t.Logf("what the dead had counted was copied within %s", time.Since(began).Round(time.Millisecond))
	f.stop()
	account(t, f[0], b, tr)
	overAdmitted(t, b, tr, limit, time.Hour)
	if n := f.outages(); n > 0 { // what is counted in a process dies with it
		t.Errorf("%d outages", n)
	}
}
