package gatetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/caddymodule/store/column"
)

func statsTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"statistics":                          testStats,
		"statistics of nobody":                testStatsEmpty,
		"statistics and entitlements agree":   testStatsModel,
		"what comes in, by month and by year": testRevenue,
	}
}

func (t *storeTest) stats() *store.Stats {
	t.Helper()
	st, err := t.store.Stats(t.Context())
	return must(t, st, err)
}

// see makes accounts known.
func (t *storeTest) see(accounts ...quota.Subject) {
	t.Helper()
	seen := make([]quota.Seen, len(accounts))
	for i, a := range accounts {
		seen[i] = quota.Seen{Account: a, At: t.clock.Now()}
	}
	t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "seen"}, Seen: seen}))
}

func testStatsEmpty(t *storeTest) {
	want := &store.Stats{ByPlan: map[string]int64{"free": 0, "pro": 0, "enterprise": 0}, DefaultPlan: "free", Monthly: map[string]int64{}}
	if diff := cmp.Diff(want, t.stats()); diff != "" {
		t.Error(diff)
	}
}

func testStats(t *storeTest) {
	now := t.clock.Now()
	t.see("user:free", "user:suspended", "user:out", "user:deleted", "org:acme")
	grant := func(account quota.Subject, g store.Grant) {
		t.Helper()
		_, err := t.store.Upgrade(t.Context(), account, g)
		t.ok(err)
	}
	grant("user:pro", store.Grant{Plan: "pro"})
	grant("user:trying", store.Grant{Plan: "pro", Trial: true, Duration: day})
	grant("user:tried", store.Grant{Plan: "pro", Trial: true, Duration: time.Hour})
	grant("user:deleted", store.Grant{Plan: "enterprise"})
	grant("org:acme", store.Grant{Plan: "enterprise"})
	t.patch("suspended", "suspended", "")
	t.patch("out", "suspended", "")
	t.until("out", now.Add(time.Hour))
	t.ok(second(t.store.RemoveUser(t.Context(), boss(), "deleted", store.Removal{})))
	// By hand, of some whom nobody has seen.
	t.exec("INSERT INTO user_controls (user_id, state) VALUES ('stranger', 'suspended')")
	t.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status) SELECT 'ghost', id, 'manual', 'active' FROM subscription_plans WHERE name = 'pro'`)
	t.clock.Set(now.Add(time.Hour))
	want := &store.Stats{
		TotalUsers: 7, ActiveUsers: 5,
		ByPlan: map[string]int64{"free": 3, "pro": 2, "enterprise": 0}, DefaultPlan: "free", Trialing: 1, Monthly: map[string]int64{},
	}
	if diff := cmp.Diff(want, t.stats()); diff != "" {
		t.Error(diff)
	}
}

// Whatever rows there are, the statistics count the plans that the gateways enforce.
func testStatsModel(t *storeTest) {
	rnd := rand.New(rand.NewPCG(1, 2))
	now := t.clock.Now()
	moment := func(required bool) column.Time {
		grace := store.DefaultGrace
		at := []time.Duration{0, -grace - time.Second, -grace, -grace + time.Second, -time.Second, 0, time.Second, time.Hour}
		i := rnd.IntN(len(at))
		if i == 0 && !required {
			return column.Time{}
		}
		return column.At(now.Add(at[i]))
	}
	one := func(words ...string) string { return words[rnd.IntN(len(words))] }
	const n = 400
	var accounts []quota.Subject
	for i := range n {
		accounts = append(accounts, quota.UserSubject(fmt.Sprint("u", i)))
	}
	t.see(accounts...)
	for i := range n {
		status := one("active", "trial", "past_due", "cancelled", "expired")
		var pendingAt, pendingEnd column.Time
		pending := one("", "free", "enterprise")
		if pending != "" {
			pendingAt, pendingEnd = moment(true), moment(false)
		}
		t.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status, trial_end, past_due_since, current_period_end,
				cancel_at_period_end, cancelled_at, ended_at, pending_plan_id, pending_effective_at, pending_period_end)
			VALUES ($1, (SELECT id FROM subscription_plans WHERE name = $2), $3, $4, $5, $6, $7, $8, $9, $10,
				(SELECT id FROM subscription_plans WHERE name = $11), $12, $13)`,
			accounts[i].ID(), one("", "free", "pro", "enterprise"), one("manual", "stripe", "trial"), status, moment(status == "trial"),
			moment(status == "past_due"), moment(false), rnd.IntN(2) == 0, moment(false), moment(false), pending, pendingAt, pendingEnd)
	}
	want := &store.Stats{
		TotalUsers: n, ActiveUsers: n, DefaultPlan: "free", ByPlan: map[string]int64{"free": 0, "pro": 0, "enterprise": 0}, Monthly: map[string]int64{},
	}
	for _, a := range accounts {
		state, err := t.store.AccountState(t.Context(), a)
		t.ok(err)
		want.ByPlan[state.Plan.Name]++
		if sub := state.Subscription; sub.Running && sub.Status == quota.StatusTrial {
			want.Trialing++
		} else if sub.Running && sub.Status == quota.StatusPastDue {
			want.PastDue++
		}
	}
	if diff := cmp.Diff(want, t.stats()); diff != "" {
		t.Error(diff)
	}
	if want.ByPlan["pro"] == 0 || want.PastDue == 0 || want.Trialing == 0 {
		t.Errorf("the model is too narrow: %+v", want)
	}
}

func testRevenue(t *storeTest) {
	now := t.clock.Now()
	t.apply(`
plans:
  - {name: team, tier: 15, rate_limit_multiplier: 7, prices: [
      {interval: month, currency: eur, unit_amount: 1000, per_seat: true}, {interval: year, currency: usd, unit_amount: 10001}]}
`)
	subscribe := func(account, plan, price, status string, seats int64, ended column.Time) {
		t.Helper()
		t.exec(`INSERT INTO subscriptions (account_id, plan_id, plan_price_id, source, status, quantity, past_due_since, trial_end, ended_at)
			SELECT $1, p.id, r.id, 'stripe', $2, $3, $4, $4, $5 FROM subscription_plans p JOIN plan_prices r ON r.plan_id = p.id
			WHERE p.name = $6 AND r.currency || ' ' || r."interval" = $7`,
			account, status, seats, column.At(now.Add(time.Hour)), ended, plan, price)
	}
	subscribe("a", "pro", "usd month", "active", 3, column.Time{}) // not by seats
	subscribe("b", "pro", "usd year", "past_due", 1, column.Time{})
	subscribe("c", "pro", "usd month", "trial", 1, column.Time{})
	subscribe("d", "pro", "usd month", "active", 1, column.At(now))
	subscribe("e", "team", "eur month", "active", 7, column.Time{})
	subscribe("f", "team", "usd year", "active", 7, column.Time{})
	st := t.stats()
	if diff := cmp.Diff(map[string]int64{"usd": (12*1999 + 19990 + 10001) / 12, "eur": 7000}, st.Monthly); diff != "" || st.PastDue != 1 || st.Trialing != 1 {
		t.Errorf("%+v\n%s", st, diff)
	}
	t.exec("UPDATE plan_prices SET unit_amount = 9007199254740992")
	t.exec("UPDATE subscriptions SET quantity = 9007199254740992")
	for currency, n := range t.stats().Monthly {
		if n < 0 {
			t.Errorf("%d %s in a month", n, currency)
		}
	}
}
