package gatetest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func usageTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"usage across period boundaries":           testPeriods,
		"a level is what was set and what came on": testLevel,
		"a level that is set while usage is held":  testLevelExcept,
		"rollups":                    testRollups,
		"callers":                    testCallers,
		"thresholds are raised once": testThresholds,
		"a flush of many rows":       testManyRows,
		"what cannot be flushed":     testRefusedFlushes,
	}
}

// replaceParameter puts a literal in place of $n.
func replaceParameter(stmt string, n int, literal string) string {
	return strings.ReplaceAll(stmt, "$"+strconv.Itoa(n), literal)
}

// total is a row of usage in the period that contains at.
func total(account quota.Subject, metric string, p quota.Period, at time.Time, spent, refunded int64) quota.Total {
	t := quota.Total{Account: account, Metric: metric, Period: p, Spent: spent, Refunded: refunded}
	if start, end := p.Span(at, time.Time{}); !start.IsZero() {
		t.Start, t.End = start.Unix(), end.Unix()
	}
	return t
}

func key(t quota.Total) quota.UsageKey {
	return quota.UsageKey{Metric: t.Metric, Period: t.Period, Start: t.Start}
}

func (t *storeTest) flush(epoch string, rows ...quota.Total) {
	t.Helper()
	t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch, Rows: rows}}))
}

func (t *storeTest) setLevel(account quota.Subject, metric string, value int64) error {
	return t.store.SetLevels(t.Context(), root, []store.Level{{Account: account, Metric: metric, Value: value}})
}

func testPeriods(t *storeTest) {
	usedOf := func(metric string, p quota.Period, want int64) {
		t.Helper()
		for _, c := range quota.UsageCharges(t.entitlement(alice), t.clock.Now()) {
			k := quota.UsageKey{Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start}
			if k.Metric != metric || k.Period != p {
				continue
			}
			if n := t.usage(alice, k); n != want {
				t.Errorf("at %s: %d %s used in the %s, want %d", t.clock.Now(), n, metric, p, want)
			}
			return
		}
		t.Errorf("%s is not counted by %s", metric, p)
	}
	used := func(want int64) {
		t.Helper()
		usedOf("jobs", quota.PeriodMonth, want)
	}
	last := time.Date(2026, 2, 28, 23, 59, 59, 999e6, time.UTC)
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	february := total(alice, "jobs", quota.PeriodMonth, last, 9, 2)
	t.clock.Set(last)
	t.flush("e1", february)
	used(7)
	t.clock.Set(march)
	used(0)
	t.flush("e1", february, total(alice, "jobs", quota.PeriodMonth, march, 4, 0))
	used(4)
	_, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro"})
	t.ok(err)
	used(4) // an upgrade resets no usage
	// A settle may come late: it belongs to the period of its reservation.
	february.Refunded = 9
	t.flush("e1", february)
	used(4)
	if n := t.usage(alice, key(february)); n != 0 {
		t.Errorf("february: %d", n)
	}
	// A plan that counts by day finds what was used today, not what was used this month.
	t.flush("e1", total(alice, "api_calls", quota.PeriodDay, march, 3, 0), total(alice, "api_calls", quota.PeriodMonth, march, 3, 0))
	t.clock.Add(day)
	usedOf("api_calls", quota.PeriodDay, 0)
	usedOf("api_calls", quota.PeriodMonth, 3)
}

func testLevel(t *storeTest) {
	k := quota.UsageKey{Metric: "storage_bytes", Period: quota.PeriodNone}
	stored := func(spent, refunded int64) quota.Total {
		return total(alice, "storage_bytes", quota.PeriodNone, t.clock.Now(), spent, refunded)
	}
	want := func(n int64) {
		t.Helper()
		if got := t.usage(alice, k); got != n {
			t.Errorf("level %d, want %d", got, n)
		}
	}
	t.flush("e1", stored(100, 30))
	want(70)
	t.ok(t.setLevel(alice, "storage_bytes", 500))
	want(500)
	t.flush("e1", stored(120, 30))
	t.flush("e2", stored(5, 0))
	want(525)
	t.exec("UPDATE usage_levels SET value = 10 WHERE account_id = 'alice'") // by hand: from now on
	want(10)
	t.flush("e1", stored(120, 34))
	want(6)
	t.clock.Add(40 * day) // it never resets
	want(6)
	for _, tt := range []struct {
		metric string
		value  int64
		want   error
	}{{"jobs", 1, store.ErrNotLevel}, {"renders", 1, store.ErrUnknownMetric}} {
		if err := t.setLevel(alice, tt.metric, tt.value); !isErr(err, tt.want) {
			t.Errorf("%s: %v", tt.metric, err)
		}
	}
	for _, bad := range []int64{-1, quota.MaxAmount + 1} {
		if err := t.setLevel(alice, "storage_bytes", bad); asErr[*store.InvalidError](err) == nil {
			t.Errorf("a level of %d: %v", bad, err)
		}
	}
}

func testLevelExcept(t *storeTest) {
	k := quota.UsageKey{Metric: "storage_bytes", Period: quota.PeriodNone}
	now := t.clock.Now()
	t.flush("own", total(alice, "storage_bytes", quota.PeriodNone, now, 100, 0))
	t.flush("other", total(alice, "storage_bytes", quota.PeriodNone, now, 7, 0))
	t.ok(t.setLevel(alice, "storage_bytes", 20))
	t.flush("own", total(alice, "storage_bytes", quota.PeriodNone, now, 103, 0))
	const ownTotal = 104 // one is not flushed yet
	if got := t.usage(alice, k, "own", "unknown") + ownTotal; got != 24 {
		t.Errorf("level with the own epoch on top: %d, want 24", got)
	}
}

func testRollups(t *storeTest) {
	hour := time.Date(2026, 3, 15, 23, 0, 0, 0, time.UTC).Unix()
	rollup := func(hour, n int64) quota.Rollup {
		return quota.Rollup{Hour: hour, Account: alice, Scope: "api", Decision: "admitted", StatusClass: 2, Requests: n, Cost: 2 * n}
	}
	flush := func(seq int64, rs ...quota.Rollup) {
		t.Helper()
		t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e1"}, Seq: seq, Rollups: rs}))
	}
	flush(5, rollup(hour, 10), rollup(hour+3600, 1))
	flush(5, rollup(hour, 10), rollup(hour+3600, 1)) // its answer was lost: sent again
	flush(4, rollup(hour, 99))
	flush(6, rollup(hour, 3), quota.Rollup{Hour: hour, Scope: "api", Decision: "rate_limit_exceeded", StatusClass: 4, Requests: 8})
	if n := t.number("SELECT SUM(requests) FROM usage_hourly WHERE account_id = 'alice'"); n != 14 {
		t.Errorf("%d requests, want 14", n)
	}
	if n := t.number("SELECT COUNT(*) FROM usage_hourly"); n != 3 {
		t.Errorf("%d hourly rows, want 3", n)
	}
	if n := t.number("SELECT MAX(cost) FROM usage_daily WHERE account_id = 'alice'"); n != 26 {
		t.Errorf("cost of the day %d, want 26", n)
	}
	if n := t.number("SELECT COUNT(*) FROM usage_daily"); n != 3 {
		t.Errorf("%d daily rows, want 3: two days and the anonymous", n)
	}
}

func testThresholds(t *storeTest) {
	month := total(alice, "jobs", quota.PeriodMonth, t.clock.Now(), 8, 0)
	near := quota.Threshold{Account: alice, Metric: "jobs", Start: month.Start, Percent: 80, Limit: 10, Used: 8}
	reached, other, level := near, near, near
	reached.Percent, reached.Used = 100, 10
	other.Limit = 20 // of another plan
	level.Metric, level.Start = "storage_bytes", 0
	flush := func(epoch string, ts ...quota.Threshold) {
		t.Helper()
		t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch}, Thresholds: ts}))
	}
	flush("e1", near)
	flush("e1", reached, near, near) // told again, and by another gateway
	flush("e2", level, near, other)
	if n := t.number("SELECT COUNT(*) FROM quota_notifications"); n != 4 {
		t.Errorf("%d thresholds, want 4", n)
	}
	if n := t.number("SELECT COUNT(*) FROM quota_notifications WHERE account_id = 'alice' AND metric = 'jobs' AND limit_value = 10 AND threshold IN (80, 100)"); n != 2 {
		t.Errorf("%d thresholds of alice's jobs at 10, want 2", n)
	}
	if n := t.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = 'quota.threshold_reached' AND account_id = 'alice'"); n != 4 {
		t.Errorf("%d events, want one for each threshold", n)
	}
	if n := t.number(`SELECT COUNT(*) FROM outbox_events WHERE payload LIKE '%"metric":"storage_bytes"%"period_start":null%'`); n != 1 {
		t.Errorf("%d events of a level, want 1", n)
	}

	// Many at once, of which some were raised before; of two accounts with one id it is one.
	var many, some []quota.Threshold
	for i := range 300 {
		th := near
		if th.Account = quota.UserSubject(fmt.Sprint("many", i)); i%3 == 0 {
			some = append(some, th)
		}
		many = append(many, th)
	}
	org := many[1]
	org.Account = "org:many1"
	flush("e1", some...)
	flush("e2", append(many, org)...)
	for _, table := range []string{"quota_notifications", "outbox_events"} {
		if n := t.number("SELECT COUNT(DISTINCT account_id) FROM " + table + " WHERE account_id LIKE 'many%'"); n != 300 {
			t.Errorf("%s: %d accounts, want 300", table, n)
		}
		if n := t.number("SELECT COUNT(*) FROM " + table + " WHERE account_id LIKE 'many%'"); n != 300 {
			t.Errorf("%s: %d rows, want 300", table, n)
		}
	}
}

func testCallers(t *storeTest) {
	now := t.clock.Now()
	seen := func(s ...quota.Seen) {
		t.Helper()
		t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e1"}, Seen: s}))
	}
	seen(quota.Seen{Account: alice, Email: "a@example.com", At: now}, quota.Seen{Account: "org:acme", At: now})
	seen(quota.Seen{Account: alice, At: now.Add(time.Hour)}, quota.Seen{Account: alice, At: now.Add(-time.Hour)})
	if n := t.number("SELECT COUNT(*) FROM accounts WHERE id = 'alice' AND kind = 'user' AND email = 'a@example.com' AND last_seen_at > first_seen_at"); n != 1 {
		t.Error("alice is not as she was seen")
	}
	if n := t.number("SELECT COUNT(*) FROM accounts WHERE id = 'acme' AND kind = 'org'"); n != 1 {
		t.Error("acme is not as it was seen")
	}
	// An organization is known by its usage alone, so that its rows say whose they are.
	row := total("org:globex", "jobs", quota.PeriodMonth, now, 1, 0)
	t.flush("e1", row)
	got, err := t.store.EpochTotals(t.Context(), "e1")
	if diff := cmp.Diff([]quota.Total{row}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func testRefusedFlushes(t *storeTest) {
	good := total(alice, "jobs", quota.PeriodMonth, t.clock.Now(), 1, 0)
	for name, change := range map[string]func(*quota.Flush){
		"no epoch":       func(f *quota.Flush) { f.Epoch = "" },
		"reserved epoch": func(f *quota.Flush) { f.Epoch = "compacted" },
		"no account":     func(f *quota.Flush) { f.Rows[0].Account = "" },
		"an address":     func(f *quota.Flush) { f.Rows[0].Account = "ip:10.0.0.0/8" },
		"no metric":      func(f *quota.Flush) { f.Rows[0].Metric = "" },
		"no period":      func(f *quota.Flush) { f.Rows[0].Period = 9 },
		"negative":       func(f *quota.Flush) { f.Rows[0].Refunded = -1 },
		"nobody seen":    func(f *quota.Flush) { f.Seen = []quota.Seen{{}} },
	} {
		f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e1", Rows: []quota.Total{good, good}}}
		change(&f)
		if err := t.store.Flush(t.Context(), f); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM gateway_epochs"); n != 0 {
		t.Errorf("%d epochs were left behind", n)
	}
}
