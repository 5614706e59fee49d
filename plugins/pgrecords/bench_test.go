package pgrecords

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// BenchmarkFlush is a second's flush of 5,000 busy users, with what the charts
// take: it has to be done well within the three seconds after which a gateway
// without a heartbeat counts as dead.
func BenchmarkFlush(b *testing.B) {
	m := &Module{DSN: gatetest.Postgres(b).Database(b), Connections: 4}
	if err := m.Provision(caddy.Context{}); err != nil {
		b.Fatal(err)
	}
	db := m.connect()
	defer db.Close() // the database goes with its server
	if err := store.Migrate(b.Context(), db, store.Postgres, "up", io.Discard); err != nil {
		b.Fatal(err)
	}
	s := store.New(db, store.Options{Engine: store.Postgres})
	now := time.Now()
	dayStart, dayEnd := quota.PeriodDay.Span(now, time.Time{})
	monthStart, monthEnd := quota.PeriodMonth.Span(now, time.Time{})
	f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "bench"}}
	for b.Loop() {
		f.Seq++
		f.Rows, f.Rollups = f.Rows[:0], f.Rollups[:0]
		for i := range 5000 {
			who := quota.UserSubject(fmt.Sprint("user-", i))
			f.Rows = append(f.Rows,
				quota.Total{Account: who, Metric: "api_calls", Period: quota.PeriodDay, Start: dayStart.Unix(), End: dayEnd.Unix(), Spent: f.Seq},
				quota.Total{Account: who, Metric: "api_calls", Period: quota.PeriodMonth, Start: monthStart.Unix(), End: monthEnd.Unix(), Spent: f.Seq})
			f.Rollups = append(f.Rollups, quota.Rollup{
				Hour: now.Unix(), Account: who, Scope: "api", Decision: "admitted", StatusClass: 2, Requests: 1, Cost: 1,
			})
		}
		if err := s.Flush(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}
