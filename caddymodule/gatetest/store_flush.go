package gatetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// manyAccounts is no multiple of a power of two: a flush of as many rows takes
// statements of different lengths.
const manyAccounts = 333

// testManyRows flushes as a gateway of many users does, with rows that fall on
// one key: a user and an organization of one id, hours of one day, callers
// without an account.
func testManyRows(t *storeTest) {
	now := t.clock.Now()
	day := time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC).Unix()
	f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e1"}, Seq: 1}
	for i := range manyAccounts {
		who := quota.UserSubject(fmt.Sprintf("many-%03d", i))
		f.Rows = append(f.Rows, total(who, "jobs", quota.PeriodMonth, now, int64(i)+1, 1))
		f.Seen = append(f.Seen, quota.Seen{Account: who, Email: fmt.Sprintf("%d@example.com", i), At: now})
		for hour := range int64(2) {
			f.Rollups = append(f.Rollups, quota.Rollup{
				Hour: day + hour*3600, Account: who, Scope: "jobs", Decision: "admitted", StatusClass: 2, Requests: 1, Cost: int64(i),
			})
		}
		anonymous := quota.Subject(fmt.Sprintf("ip:10.0.%d.0/24", i))
		f.Rollups = append(f.Rollups, quota.Rollup{Hour: day, Account: anonymous, Scope: "jobs", Decision: "admitted", StatusClass: 2, Requests: 1})
	}
	f.Rows = append(f.Rows, total("user:both", "jobs", quota.PeriodMonth, now, 5, 1), total("org:both", "jobs", quota.PeriodMonth, now, 3, 2))
	f.Seen = append(f.Seen, quota.Seen{Account: "user:both", At: now}, quota.Seen{Account: "org:both", At: now})
	t.ok(t.store.Flush(t.Context(), f))
	t.ok(t.store.Flush(t.Context(), f)) // its answer was lost: sent again

	const sum = manyAccounts * (manyAccounts - 1) / 2
	for query, want := range map[string]int64{
		"SELECT COUNT(*) FROM usage_totals":                                                  manyAccounts + 1,
		"SELECT SUM(spent - refunded) FROM usage_totals WHERE account_id <> 'both'":          sum,
		"SELECT 10 * spent + refunded FROM usage_totals WHERE account_id = 'both'":           52,
		"SELECT COUNT(*) FROM usage_hourly":                                                  2*manyAccounts + 1,
		"SELECT SUM(cost) FROM usage_hourly":                                                 2 * sum,
		"SELECT COUNT(*) FROM usage_daily":                                                   manyAccounts + 1,
		"SELECT SUM(cost) FROM usage_daily":                                                  2 * sum,
		"SELECT requests FROM usage_daily WHERE account_id = ''":                             manyAccounts,
		"SELECT SUM(requests) FROM usage_daily WHERE account_id = 'many-007'":                2,
		"SELECT COUNT(*) FROM accounts":                                                      manyAccounts + 1,
		"SELECT COUNT(*) FROM accounts WHERE id = 'many-012' AND email = '12@example.com'":   1,
		"SELECT spent FROM usage_totals WHERE account_id = 'many-332' AND period = 'month'":  manyAccounts,
		"SELECT COUNT(*) FROM usage_totals WHERE period_end IS NULL OR epoch <> 'e1'":        0,
		"SELECT COUNT(*) FROM usage_hourly WHERE account_id = 'many-100' AND cost = 100":     2,
		"SELECT COUNT(*) FROM usage_daily WHERE account_id LIKE 'many-%' AND requests <> 2":  0,
		"SELECT COUNT(*) FROM usage_hourly WHERE account_id LIKE 'many-%' AND requests <> 1": 0,
	} {
		if n := t.number(query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
}

// BenchFlush is a second's flush of so many busy users, with what the charts take
// of it. It has to be done well within the seconds after which a gateway without a
// heartbeat counts as dead.
func BenchFlush(b *testing.B, users int, flush func(context.Context, quota.Flush) error) {
	b.Helper()
	now := time.Now()
	f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "bench"}}
	for b.Loop() {
		f.Seq++
		f.Rows, f.Rollups = f.Rows[:0], f.Rollups[:0]
		for i := range users {
			who := quota.UserSubject(fmt.Sprint("user-", i))
			f.Rows = append(f.Rows, total(who, "api_calls", quota.PeriodDay, now, f.Seq, 0), total(who, "api_calls", quota.PeriodMonth, now, f.Seq, 0))
			f.Rollups = append(f.Rollups, quota.Rollup{
				Hour: now.Unix(), Account: who, Scope: "api", Decision: "admitted", StatusClass: 2, Requests: 1, Cost: 1,
			})
		}
		if err := flush(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}
