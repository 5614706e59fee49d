package gate

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// backlog is a ledger with many totals to write.
type backlog struct{ rows []quota.Total }

func (b *backlog) Totals() []quota.EpochTotals {
	return []quota.EpochTotals{{Epoch: "e1", Rows: b.rows}}
}

func (b *backlog) Flushed(t quota.EpochTotals) { b.rows = b.rows[len(t.Rows):] }

func (b *backlog) Rebase(string, []quota.Total) {}

func newBacklog(n int) *backlog {
	b := &backlog{}
	for i := range n {
		b.rows = append(b.rows, quota.Total{Account: quota.UserSubject(fmt.Sprint(i)), Metric: "jobs", Period: quota.PeriodMonth, Spent: 1})
	}
	return b
}

// A backlog is written in parts, each a heartbeat. While there is progress the
// records may take longer than flushTimeout for all of it.
func TestFlushWorksOffABacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records, ledger := newFakeRecords(), newBacklog(2*totalsBatch+1)
		var sizes []int
		records.onFlush = func(_ context.Context, f quota.Flush) error {
			sizes = append(sizes, len(f.Rows))
			time.Sleep(flushTimeout - time.Second)
			return nil
		}
		stats := &Stats{observe: func(string, time.Duration) {}}
		r := newRecorder(ledger, records, time.Second, stats, zap.NewNop())
		r.flush(t.Context(), true)
		if len(ledger.rows) != 0 || stats.FlushFailures.Load() != 0 || fmt.Sprint(sizes) != fmt.Sprint([]int{totalsBatch, totalsBatch, 1}) {
			t.Errorf("%d rows left, %d failures, flushes of %v", len(ledger.rows), stats.FlushFailures.Load(), sizes)
		}
	})
}

// Records that hang fail the flush after flushTimeout; what they have taken
// before is not written again.
func TestFlushKeepsItsPartsWhenRecordsHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records, ledger := newFakeRecords(), newBacklog(3*totalsBatch)
		flushes := 0
		records.onFlush = func(ctx context.Context, _ quota.Flush) error {
			if flushes++; flushes == 2 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		stats := &Stats{observe: func(string, time.Duration) {}}
		r := newRecorder(ledger, records, time.Second, stats, zap.NewNop())
		began := time.Now()
		r.flush(t.Context(), true)
		if took := time.Since(began); took != flushTimeout || len(ledger.rows) != 2*totalsBatch || stats.FlushFailures.Load() != 1 {
			t.Errorf("after %s: %d rows left, %d failures", took, len(ledger.rows), stats.FlushFailures.Load())
		}
		r.flush(t.Context(), true)
		if len(ledger.rows) != 0 || flushes != 4 || len(records.epochs["e1"].rows) != 3*totalsBatch {
			t.Errorf("%d rows left after %d flushes, %d in the records", len(ledger.rows), flushes, len(records.epochs["e1"].rows))
		}
	})
}
