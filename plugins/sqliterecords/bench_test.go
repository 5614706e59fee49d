package sqliterecords

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func benchRecords(b *testing.B) caddymodule.Records {
	b.Helper()
	m := &Module{Path: filepath.Join(b.TempDir(), "quota.db")}
	if err := m.Provision(caddy.Context{}); err != nil {
		b.Fatal(err)
	}
	r, err := m.Open(b.Context(), caddymodule.Env{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

// BenchmarkFlush is a second's flush of 200 busy users: what metering costs the
// process once a second beside its requests.
func BenchmarkFlush(b *testing.B) {
	r := benchRecords(b)
	now := time.Now()
	dayStart, dayEnd := quota.PeriodDay.Span(now, time.Time{})
	monthStart, monthEnd := quota.PeriodMonth.Span(now, time.Time{})
	f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "bench"}}
	for b.Loop() {
		f.Seq++
		f.Rows, f.Rollups = f.Rows[:0], f.Rollups[:0]
		for i := range 200 {
			who := quota.UserSubject(fmt.Sprint("user-", i))
			f.Rows = append(f.Rows,
				quota.Total{Account: who, Metric: "api_calls", Period: quota.PeriodDay, Start: dayStart.Unix(), End: dayEnd.Unix(), Spent: f.Seq},
				quota.Total{Account: who, Metric: "api_calls", Period: quota.PeriodMonth, Start: monthStart.Unix(), End: monthEnd.Unix(), Spent: f.Seq})
			f.Rollups = append(f.Rollups, quota.Rollup{
				Hour: now.Unix(), Account: who, Scope: "api", Decision: "admitted", StatusClass: 2, Requests: 1, Cost: 1,
			})
		}
		if err := r.Flush(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEntitlement is a load that the cache has missed.
func BenchmarkEntitlement(b *testing.B) {
	r := benchRecords(b)
	for b.Loop() {
		if _, err := r.Entitlement(b.Context(), "user:1"); err != nil {
			b.Fatal(err)
		}
	}
}
