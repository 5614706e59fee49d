package gatetest

import (
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func analyticsTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"history of a metric":            testHistory,
		"history, ranges":                testHistoryRanges,
		"series of all accounts":         testSeries,
		"accounts that used most":        testTop,
		"rows of the charts, in batches": testChartRows,
	}
}

// chart writes rows for the charts.
func (t *storeTest) chart(rs ...quota.Rollup) {
	t.Helper()
	seq := t.number("SELECT COALESCE(MAX(flush_seq), 0) FROM gateway_epochs") + 1
	t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "charts"}, Seq: seq, Rollups: rs}))
}

// rollup is a row of the account in the hour of at: costs are used, the rest was blocked.
func rollup(account quota.Subject, scope, decision string, at time.Time, requests, cost int64) quota.Rollup {
	class := 2
	if decision != "admitted" && decision != "shadow_denied" {
		class = 4
	}
	return quota.Rollup{
		Hour: at.Truncate(time.Hour).Unix(), Account: account, Scope: scope, Decision: decision, StatusClass: class, Requests: requests, Cost: cost,
	}
}

func testHistory(t *storeTest) {
	noon := t.clock.Now()
	t.chart(
		rollup(alice, "jobs", "admitted", noon, 3, 3), rollup(alice, "jobs", "shadow_denied", noon, 1, 2),
		rollup(alice, "jobs", "quota_exceeded", noon, 4, 0), rollup(alice, "jobs", "rate_limit_exceeded", noon, 5, 0),
		rollup(alice, "jobs", "admitted", noon.Add(-2*time.Hour), 7, 70), rollup(alice, "jobs", "admitted", noon.Add(-13*time.Hour), 1, 1),
		rollup(alice, "api_calls", "admitted", noon, 99, 99), rollup("user:bob", "jobs", "admitted", noon, 50, 50),
	)
	got, err := t.store.UsageHistory(t.Context(), alice, "jobs", store.Range{
		From: noon.Add(-3*time.Hour + time.Minute), To: noon.Add(time.Second), Granularity: store.ByHour,
	})
	want := []store.UsagePoint{
		{At: noon.Add(-3 * time.Hour)}, {At: noon.Add(-2 * time.Hour), Requests: 7, Used: 70}, {At: noon.Add(-time.Hour)},
		{At: noon, Requests: 13, Used: 5, Blocked: 9},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("by the hour: %v\n%s", err, diff)
	}
	today := noon.Truncate(day)
	got, err = t.store.UsageHistory(t.Context(), alice, "jobs", store.Range{From: today.Add(-day), To: noon, Granularity: store.ByDay})
	want = []store.UsagePoint{{At: today.Add(-day), Requests: 1, Used: 1}, {At: today, Requests: 20, Used: 75, Blocked: 9}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("by the day: %v\n%s", err, diff)
	}
	// A range in another zone is the same range.
	zone := time.FixedZone("", 5*3600+1800)
	got, err = t.store.UsageHistory(t.Context(), alice, "jobs", store.Range{From: today.Add(-day).In(zone), To: noon.In(zone), Granularity: store.ByDay})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("in another zone: %v\n%s", err, diff)
	}
	if _, err := t.store.UsageHistory(t.Context(), alice, "renders", store.Range{From: today, To: noon, Granularity: store.ByDay}); !isErr(err, store.ErrUnknownMetric) {
		t.Errorf("a metric that no plan names: %v", err)
	}
}

func testHistoryRanges(t *storeTest) {
	now := t.clock.Now()
	hour := store.Range{From: now.Add(-store.MaxPoints * time.Hour), To: now, Granularity: store.ByHour}
	if got, err := t.store.UsageHistory(t.Context(), alice, "jobs", hour); err != nil || len(got) != store.MaxPoints {
		t.Errorf("the longest range: %d points, %v", len(got), err)
	}
	for name, r := range map[string]store.Range{
		"one point too many":  {From: hour.From, To: now.Add(time.Nanosecond), Granularity: store.ByHour},
		"too many days":       {From: now.Add(-store.MaxPoints * day), To: now, Granularity: store.ByDay},
		"all there is":        {From: time.Unix(0, 0), To: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Granularity: store.ByDay},
		"empty":               {From: now, To: now, Granularity: store.ByHour},
		"backwards":           {From: now, To: now.Add(-day), Granularity: store.ByDay},
		"no time":             {Granularity: store.ByDay},
		"before there was Go": {From: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), To: now, Granularity: store.ByDay},
		"no granularity":      {From: now.Add(-day), To: now},
		"by the minute":       {From: now.Add(-time.Hour), To: now, Granularity: "minute"},
	} {
		if _, err := t.store.UsageHistory(t.Context(), alice, "jobs", r); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testSeries(t *storeTest) {
	noon := t.clock.Now()
	t.chart(
		rollup(alice, "api", "admitted", noon, 3, 3), rollup("org:acme", "api", "admitted", noon, 4, 5),
		rollup("user:bob", "api", "rate_limit_exceeded", noon, 6, 0), rollup("user:bob", "login", "admitted", noon, 100, 0),
	)
	for _, g := range []store.Granularity{store.ByHour, store.ByDay} {
		r := store.Range{From: noon, To: noon.Add(time.Minute), Granularity: g}
		at := noon
		if g == store.ByDay {
			at = noon.Truncate(day)
		}
		for id, want := range map[string]store.UsagePoint{
			"":      {At: at, Requests: 13, Used: 8, Blocked: 6},
			"alice": {At: at, Requests: 3, Used: 3},
			"acme":  {At: at, Requests: 4, Used: 5},
			"%":     {At: at},
		} {
			got, err := t.store.UsageSeries(t.Context(), id, "api", r)
			if diff := cmp.Diff([]store.UsagePoint{want}, got); err != nil || diff != "" {
				t.Errorf("by %s, account %q: %v\n%s", g, id, err, diff)
			}
		}
	}
	if _, err := t.store.UsageSeries(t.Context(), "", "a%", store.Range{From: noon, To: noon.Add(day), Granularity: store.ByDay}); asErr[*store.InvalidError](err) == nil {
		t.Errorf("a pattern for a scope: %v", err)
	}
}

func testTop(t *storeTest) {
	noon := t.clock.Now()
	t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e"}, Seen: []quota.Seen{
		{Account: alice, Email: "alice@example.com", At: noon}, {Account: "org:acme", At: noon},
	}}))
	t.chart(
		rollup(alice, "jobs", "admitted", noon, 1, 10), rollup(alice, "jobs", "quota_exceeded", noon, 2, 0),
		rollup("org:acme", "jobs", "admitted", noon.Add(-time.Hour), 5, 10), rollup("user:bob", "jobs", "admitted", noon, 9, 9),
		rollup("user:carol", "jobs", "quota_exceeded", noon, 50, 0), rollup("user:dan", "jobs", "admitted", noon.Add(-2*day), 99, 99),
		rollup("", "jobs", "admitted", noon, 1000, 1000),
	)
	r := store.Range{From: noon.Truncate(day), To: noon}
	a := store.Ranked{Account: alice, Email: "alice@example.com", Requests: 3, Used: 10, Blocked: 2}
	acme := store.Ranked{Account: "org:acme", Requests: 5, Used: 10}
	bob, carol := store.Ranked{Account: "user:bob", Requests: 9, Used: 9}, store.Ranked{Account: "user:carol", Requests: 50, Blocked: 50}
	for by, want := range map[string][]store.Ranked{
		store.RankUsed:     {acme, a, bob}, // equals by id
		store.RankBlocked:  {carol, a},
		store.RankRequests: {carol, bob, acme, a},
	} {
		got, err := t.store.TopAccounts(t.Context(), "jobs", by, r, 10)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("by %s: %v\n%s", by, err, diff)
		}
	}
	if got, err := t.store.TopAccounts(t.Context(), "jobs", store.RankUsed, r, 1); err != nil || len(got) != 1 || got[0] != acme {
		t.Errorf("the first: %v, %v", got, err)
	}
	for name, err := range map[string]error{
		"scope": second(t.store.TopAccounts(t.Context(), "", store.RankUsed, r, 1)),
		"by":    second(t.store.TopAccounts(t.Context(), "jobs", "cost; DROP TABLE", r, 1)),
		"none":  second(t.store.TopAccounts(t.Context(), "jobs", store.RankUsed, r, 0)),
		"all":   second(t.store.TopAccounts(t.Context(), "jobs", store.RankUsed, r, store.MaxTop+1)),
		"range": second(t.store.TopAccounts(t.Context(), "jobs", store.RankUsed, store.Range{From: noon, To: noon.Add(-day)}, 1)),
	} {
		if asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func testChartRows(t *storeTest) {
	noon := t.clock.Now()
	for i := range int64(3) {
		for _, account := range []quota.Subject{alice, "user:bob", "user:%", "user:a'b"} {
			t.chart(rollup(account, "api", "admitted", noon.Add(time.Duration(i)*time.Hour), i+1, i),
				rollup(account, "jobs", "quota_exceeded", noon.Add(time.Duration(i)*time.Hour), 1, 0))
		}
	}
	all := func(f store.ChartFilter, limit int) (rows []store.ChartRow) {
		t.Helper()
		var after *store.ChartRow
		for {
			got, err := t.store.ChartRows(t.Context(), f, after, limit)
			t.ok(err)
			if len(got) == 0 {
				return rows
			}
			rows = append(rows, got...)
			after = &rows[len(rows)-1]
		}
	}
	r := store.Range{From: noon.Add(-time.Hour), To: noon.Add(day), Granularity: store.ByHour}
	whole := all(store.ChartFilter{Range: r}, 1000)
	if len(whole) != 3*4*2 || whole[0].AccountID != "%" || whole[0].Scope != "api" || !whole[0].Bucket.Equal(noon) {
		t.Errorf("%d rows, the first %+v", len(whole), whole[0])
	}
	for _, limit := range []int{1, 5} {
		if diff := cmp.Diff(whole, all(store.ChartFilter{Range: r}, limit)); diff != "" {
			t.Errorf("%d at a time:\n%s", limit, diff)
		}
	}
	r.Granularity = store.ByDay
	if got := all(store.ChartFilter{Range: r}, 3); len(got) != 4*2 || got[0].Requests != 1+2+3 {
		t.Errorf("by day: %+v", got)
	}
	one := all(store.ChartFilter{Range: r, AccountID: "%", Scope: "jobs"}, 10)
	if len(one) != 1 || one[0].AccountID != "%" || one[0].Requests != 3 || !strings.HasPrefix(one[0].Decision, "quota") {
		t.Errorf("of one account and metric: %+v", one)
	}
}
