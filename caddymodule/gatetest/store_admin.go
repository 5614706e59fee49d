package gatetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func adminTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"admin, usage adjusted":              testAdjust,
		"admin, usage that cannot be taken":  testAdjustRefused,
		"admin, usage adjusted at once":      testAdjustConcurrently,
		"admin, usage adjusted and the rest": testAdjustIsNobodysEpoch,
		"admin, a level measured":            testMeasure,
		"admin, a level measured by many":    testMeasureAtOnce,
		"admin, plan created":                testCreatePlan,
		"admin, plan changed":                testChangePlan,
		"admin, plan changed at once":        testChangePlanConcurrently,
		"admin, overrides":                   testOverridesAudited,
		"admin, too many overrides":          testOverridesBounded,
		"admin, whose account":               testAccount,
	}
}

// root is who does what in these tests.
var root = store.Actor{Type: store.ActorUser, ID: "root", IP: "192.0.2.1"}

// noted is the newest event of the audit log: its action, and what it says of changes.
func (t *storeTest) noted() (action string, changes map[string]store.AuditChange) {
	t.Helper()
	var text string
	err := t.db.QueryRowContext(t.Context(), "SELECT action, changes FROM audit_events WHERE actor_id = 'root' ORDER BY seq DESC LIMIT 1").Scan(&action, &text)
	t.ok(err)
	t.ok(json.Unmarshal([]byte(text), &changes))
	return action, changes
}

func (t *storeTest) wantNoted(action string, changes map[string]store.AuditChange) {
	t.Helper()
	a, c := t.noted()
	if diff := cmp.Diff(changes, c); a != action || diff != "" {
		t.Errorf("audited %s, want %s:\n%s", a, action, diff)
	}
}

func testAdjust(t *storeTest) {
	now := t.clock.Now()
	calls := func(p quota.Period) quota.UsageKey { return key(total(alice, "api_calls", p, now, 0, 0)) }
	t.flush("e1", total(alice, "api_calls", quota.PeriodDay, now, 8, 1), total(alice, "api_calls", quota.PeriodMonth, now, 50, 0))
	adjust := func(a store.Adjustment, want ...int64) {
		t.Helper()
		before := t.number("SELECT MAX(seq) FROM changes")
		done, err := t.store.AdjustUsage(t.Context(), root, alice, a)
		t.ok(err)
		for i, d := range done {
			if d.After != want[i] || t.usage(alice, calls(d.Period)) != want[i] {
				t.Errorf("%+v: %+v, and the sum is %d, want %d", a, d, t.usage(alice, calls(d.Period)), want[i])
			}
		}
		if len(done) != len(want) {
			t.Errorf("%+v: %+v", a, done)
		}
		if n := t.number("SELECT COUNT(*) FROM changes WHERE seq > $1 AND subject = 'user:alice'", before); n == 0 {
			t.Errorf("%+v: the gateways are not told", a)
		}
	}
	adjust(store.Adjustment{Metric: "api_calls", Delta: 5, Reason: "lost"}, 12, 55)
	t.wantNoted("usage.adjusted", map[string]store.AuditChange{
		"api_calls/day": {From: 7.0, To: 12.0}, "api_calls/month": {From: 50.0, To: 55.0},
	})
	adjust(store.Adjustment{Metric: "api_calls", Delta: -12}, 0, 43)
	adjust(store.Adjustment{Metric: "api_calls", Delta: -43, Period: "month"}, 0)
	adjust(store.Adjustment{Metric: "api_calls", Delta: 3, Period: "day"}, 3)
	adjust(store.Adjustment{Metric: "api_calls", Delta: quota.MaxAmount - 3, Period: "day"}, quota.MaxAmount)
	// The gateway goes on to count where it was.
	t.flush("e1", total(alice, "api_calls", quota.PeriodMonth, now, 51, 0))
	if n := t.usage(alice, calls(quota.PeriodMonth)); n != 1 {
		t.Errorf("%d in the month, want 1", n)
	}
	// What a shorter period did not hold is not taken from it.
	t.flush("e1", total(alice, "jobs", quota.PeriodMonth, now, 4, 0))
	done, err := t.store.AdjustUsage(t.Context(), root, alice, store.Adjustment{Metric: "jobs", Delta: -4})
	if err != nil || len(done) != 1 || done[0].Before != 4 || done[0].After != 0 || !done[0].End.Equal(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("jobs: %+v, %v", done, err)
	}
	if n := t.usage("user:bob", calls(quota.PeriodDay)); n != 0 {
		t.Errorf("somebody else's: %d", n)
	}
}

func testAdjustRefused(t *storeTest) {
	now := t.clock.Now()
	t.flush("e1", total(alice, "api_calls", quota.PeriodDay, now, 3, 0), total(alice, "api_calls", quota.PeriodMonth, now, 50, 0))
	for name, a := range map[string]store.Adjustment{
		"nothing":             {Metric: "api_calls"},
		"more than was used":  {Metric: "api_calls", Delta: -4},
		"more than the month": {Metric: "api_calls", Delta: -51, Period: "month"},
		"too much":            {Metric: "api_calls", Delta: quota.MaxAmount - 2},
		"beyond 2^53":         {Metric: "api_calls", Delta: quota.MaxAmount + 1},
		"below -2^53":         {Metric: "api_calls", Delta: -quota.MaxAmount - 1},
		"another period":      {Metric: "api_calls", Delta: 1, Period: "billing"},
		"no period":           {Metric: "api_calls", Delta: 1, Period: "week"},
		"a level's period":    {Metric: "api_calls", Delta: 1, Period: "none"},
	} {
		if _, err := t.store.AdjustUsage(t.Context(), root, alice, a); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for metric, want := range map[string]error{"storage_bytes": store.ErrLevel, "renders": store.ErrUnknownMetric} {
		if _, err := t.store.AdjustUsage(t.Context(), root, alice, store.Adjustment{Metric: metric, Delta: 1}); !isErr(err, want) {
			t.Errorf("%s: %v", metric, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM usage_totals WHERE epoch = 'adjusted'") + t.number("SELECT COUNT(*) FROM audit_events"); n != 0 {
		t.Errorf("%d rows were left behind", n)
	}
	if err := t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "adjusted"}}); asErr[*store.InvalidError](err) == nil {
		t.Errorf("a process that calls its epoch so: %v", err)
	}
}

// However many admins adjust at once, the sum is exact and never below zero.
func testAdjustConcurrently(t *storeTest) {
	const n = 12
	now := t.clock.Now()
	t.flush("e1", total(alice, "jobs", quota.PeriodMonth, now, n/2, 0))
	errs := concurrently(t.Context(), n, func(ctx context.Context, _ int) error {
		return second(t.store.AdjustUsage(ctx, root, alice, store.Adjustment{Metric: "jobs", Delta: -1}))
	})
	refused := 0
	for _, err := range errs {
		if err != nil && asErr[*store.InvalidError](err) == nil {
			t.Error(err)
		} else if err != nil {
			refused++
		}
	}
	if used := t.usage(alice, key(total(alice, "jobs", quota.PeriodMonth, now, 0, 0))); used != 0 || refused != n/2 {
		t.Errorf("%d used, %d refused", used, refused)
	}
	if events := t.number("SELECT COUNT(*) FROM audit_events"); events != n/2 {
		t.Errorf("%d events", events)
	}
}

// What was adjusted is no process's: it is neither closed nor folded away.
func testAdjustIsNobodysEpoch(t *storeTest) {
	_, err := t.store.AdjustUsage(t.Context(), root, alice, store.Adjustment{Metric: "jobs", Delta: 7})
	t.ok(err)
	now := t.clock.Now()
	t.clock.Add(2 * store.CompactAfter)
	t.ok(t.store.Maintain(t.Context(), "m"))
	if n := t.number("SELECT spent FROM usage_totals WHERE epoch = 'adjusted' AND metric = 'jobs'"); n != 7 {
		t.Errorf("%d", n)
	}
	before := t.number("SELECT MAX(seq) FROM changes")
	t.exec("DELETE FROM usage_totals WHERE epoch = 'adjusted'") // by hand
	if n := t.number("SELECT COUNT(*) FROM changes WHERE seq > $1", before); n == 0 {
		t.Error("the gateways are not told")
	}
	t.flush("e1", total(alice, "jobs", quota.PeriodMonth, now, 1, 0))
	latest := t.number("SELECT MAX(seq) FROM changes")
	t.flush("e1", total(alice, "jobs", quota.PeriodMonth, now, 2, 0))
	if n := t.number("SELECT MAX(seq) FROM changes"); n != latest {
		t.Error("a flush is no change")
	}
}

// Of levels that are set at once each replaces the one that was set before it.
func testMeasureAtOnce(t *storeTest) {
	const admins = 12
	before := make([]int64, admins)
	var all sync.WaitGroup
	for i := range admins {
		all.Go(func() {
			var err error
			before[i], err = t.store.MeasureLevel(t.Context(), root, store.Level{Account: alice, Metric: "storage_bytes", Value: int64(i + 1)}, "")
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	slices.Sort(before)
	if len(slices.Compact(slices.Clone(before))) != admins {
		t.Errorf("two replaced the same: %v", before)
	}
}

func testMeasure(t *storeTest) {
	now := t.clock.Now()
	t.flush("e1", total(alice, "storage_bytes", quota.PeriodNone, now, 100, 30))
	level := store.Level{Account: alice, Metric: "storage_bytes", Value: 500, MeasuredAt: now.Add(-time.Minute)}
	before, err := t.store.MeasureLevel(t.Context(), root, level, "counted")
	if err != nil || before != 70 || t.usage(alice, quota.UsageKey{Metric: "storage_bytes", Period: quota.PeriodNone}) != 500 {
		t.Errorf("before %d, %v", before, err)
	}
	t.wantNoted("usage.level_set", map[string]store.AuditChange{"storage_bytes": {From: 70.0, To: 500.0}})
	if n := t.number("SELECT COUNT(*) FROM usage_levels WHERE measured_at = $1", "2026-03-15 11:59:00.000000Z"); n != 1 {
		t.Error("when it was measured is not kept")
	}
	for name, l := range map[string]store.Level{
		"negative": {Account: alice, Metric: "storage_bytes", Value: -1}, "tomorrow": {Account: alice, Metric: "storage_bytes", MeasuredAt: now.Add(day)},
		"long ago": {Account: alice, Metric: "storage_bytes", MeasuredAt: time.Unix(-1, 0)}, "nobody": {Metric: "storage_bytes"},
	} {
		if _, err := t.store.MeasureLevel(t.Context(), root, l, ""); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for metric, want := range map[string]error{"jobs": store.ErrNotLevel, "renders": store.ErrUnknownMetric} {
		if _, err := t.store.MeasureLevel(t.Context(), root, store.Level{Account: alice, Metric: metric}, ""); !isErr(err, want) {
			t.Errorf("%s: %v", metric, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM audit_events"); n != 1 {
		t.Errorf("%d events", n)
	}
	t.ok(t.store.SetLevels(t.Context(), root, []store.Level{{Account: alice, Metric: "storage_bytes", Value: 1}, {Account: "org:acme", Metric: "storage_bytes", Value: 2}}))
	if action, _ := t.noted(); action != "usage.imported" || t.number("SELECT COUNT(*) FROM audit_events") != 2 {
		t.Errorf("an import is audited as %s", action)
	}
}

func testOverridesAudited(t *storeTest) {
	now := t.clock.Now()
	id, err := t.store.AddQuotaOverride(t.Context(), root, alice, store.QuotaOverride{
		Metric: "jobs", Mode: store.ModeAdd, Limit: 5, Expires: now.Add(day), Reason: "sorry",
	})
	t.ok(err)
	quotaWas := map[string]any{"metric": "jobs", "mode": "add", "limit": 5.0, "starts_at": "2026-03-15T12:00:00Z", "expires_at": "2026-03-16T12:00:00Z"}
	t.wantNoted("override.created", map[string]store.AuditChange{"override": {To: quotaWas}})
	rate := store.RateOverride{Scope: "api", Rate: quota.Rate{Requests: 7, Window: time.Minute}}
	_, err = t.store.AddRateOverride(t.Context(), root, alice, rate)
	t.ok(err)
	rateWas := map[string]any{"scope": "api", "requests": 7.0, "window": 60.0, "starts_at": "2026-03-15T12:00:00Z", "expires_at": nil}
	t.wantNoted("override.created", map[string]store.AuditChange{"override": {To: rateWas}})
	quotas, rates, err := t.store.ListOverrides(t.Context(), alice)
	if err != nil || len(quotas) != 1 || quotas[0].By != "root" || quotas[0].Reason != "sorry" || len(rates) != 1 || rates[0].By != "root" {
		t.Errorf("%+v, %+v, %v", quotas, rates, err)
	}
	if _, err := t.store.RevokeOverrides(t.Context(), root, "user:bob", store.Revocation{ID: id}); !isErr(err, store.ErrOverrideNotFound) {
		t.Errorf("of another account: %v", err)
	}
	if n, err := t.store.RevokeOverrides(t.Context(), root, alice, store.Revocation{ID: id}); err != nil || n != 1 {
		t.Errorf("one: %d, %v", n, err)
	}
	t.wantNoted("override.revoked", map[string]store.AuditChange{"override": {From: quotaWas}})
	if n, err := t.store.RevokeOverrides(t.Context(), root, alice, store.Revocation{}); err != nil || n != 1 {
		t.Errorf("the rest: %d, %v", n, err)
	}
	t.wantNoted("override.revoked", map[string]store.AuditChange{"override": {From: rateWas}})
	if n, err := t.store.RevokeOverrides(t.Context(), root, alice, store.Revocation{}); err != nil || n != 0 {
		t.Errorf("none: %d, %v", n, err)
	}
	if n := t.number("SELECT COUNT(*) FROM audit_events WHERE account_id = 'alice' AND resource_type = 'override'"); n != 4 {
		t.Errorf("%d events", n)
	}
}

func testOverridesBounded(t *storeTest) {
	add := func(expires time.Time) error {
		_, err := t.store.AddQuotaOverride(t.Context(), root, alice, store.QuotaOverride{Metric: "jobs", Mode: store.ModeAdd, Limit: 1, Expires: expires})
		return err
	}
	for range store.MaxOverrides {
		t.ok(add(t.clock.Now().Add(time.Hour)))
	}
	if err := add(time.Time{}); !isErr(err, store.ErrTooManyOverrides) {
		t.Errorf("one too many: %v", err)
	}
	t.clock.Add(time.Hour)
	t.ok(add(time.Time{}))
	for name, o := range map[string]store.QuotaOverride{
		"over":         {Expires: t.clock.Now()},
		"ages away":    {Expires: t.clock.Now().AddDate(200, 0, 0)},
		"from ages":    {Starts: t.clock.Now().AddDate(200, 0, 0)},
		"before 1970":  {Starts: time.Unix(-1, 0)},
		"over already": {Starts: t.clock.Now().Add(-2 * day), Expires: t.clock.Now().Add(-day)},
	} {
		o.Metric, o.Mode = "jobs", store.ModeSet
		if _, err := t.store.AddQuotaOverride(t.Context(), root, alice, o); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown := store.QuotaOverride{Metric: "renders", Mode: store.ModeSet, Limit: 1}
	if _, err := t.store.AddQuotaOverride(t.Context(), root, alice, unknown); !isErr(err, store.ErrUnknownMetric) {
		t.Errorf("a metric that no plan names: %v", err)
	}
}

func testAccount(t *storeTest) {
	t.see(alice, "org:acme")
	for id, want := range map[string]quota.Subject{"alice": alice, "acme": "org:acme"} {
		if got, err := t.store.Account(t.Context(), id); err != nil || got != want {
			t.Errorf("%s: %s, %v", id, got, err)
		}
	}
	for _, id := range []string{"", "bob", "ALICE", "alice' OR '1'='1", "%", "a\x00", fmt.Sprintf("%256d", 1)} {
		if got, err := t.store.Account(t.Context(), id); !isErr(err, store.ErrAccountNotFound) {
			t.Errorf("%q: %s, %v", id, got, err)
		}
	}
}
