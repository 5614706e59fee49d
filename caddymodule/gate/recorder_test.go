package gate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

func (h *harness) request(t testing.TB, s quota.Subject) {
	t.Helper()
	h.admit(t, h.caller(t, s), applied(quota.Rule{Name: "make", Spends: spend("jobs", 1)})).Settle(t.Context(), ok200)
}

func (h *harness) current() string {
	h.engine.mu.Lock()
	defer h.engine.mu.Unlock()
	return h.engine.epoch
}

// expect compares what the records say of alice with what she has sent.
func (h *harness) expect(t *testing.T, requests int64) {
	t.Helper()
	if n := h.records.used(alice, "jobs", quota.PeriodMonth); n != requests {
		t.Errorf("%d jobs are recorded, want %d", n, requests)
	}
	if n, cost := h.records.requests(alice, OutcomeAdmitted); n != requests || cost != requests {
		t.Errorf("%d requests that cost %d are charted, want %d", n, cost, requests)
	}
}

// However a flush fails, the next one neither loses nor doubles.
func TestFlushIsExact(t *testing.T) {
	t.Parallel()
	fail := func(context.Context, quota.Flush) error { return errDown }
	hang := func(ctx context.Context, _ quota.Flush) error { <-ctx.Done(); return ctx.Err() }
	for name, tt := range map[string]struct {
		before, after func(context.Context, quota.Flush) error
		reap          bool // the epoch is closed before the records are back
	}{
		"error before":            {before: fail},
		"error after":             {after: fail},
		"timeout before":          {before: hang},
		"timeout after":           {after: hang},
		"closed":                  {reap: true},
		"error before, closed":    {before: fail, reap: true},
		"error after, closed":     {after: fail, reap: true},
		"timeout, applied, close": {after: hang, reap: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.records.plan = limited(100, 0)
				h.request(t, alice)
				h.rt.Flush(t.Context())
				h.expect(t, 1)
				h.request(t, alice)
				h.records.onFlush, h.records.onFlushed = tt.before, tt.after
				epoch := h.current()
				h.rt.Flush(t.Context())
				failed := tt.before != nil || tt.after != nil
				if n := h.rt.Stats.FlushFailures.Load(); (n == 1) != failed {
					t.Errorf("%d failures told", n)
				}
				h.request(t, alice) // meanwhile
				if tt.reap {
					h.records.reap(epoch)
				}
				h.records.onFlush, h.records.onFlushed = nil, nil
				time.Sleep(time.Second)
				h.rt.Flush(t.Context())
				h.expect(t, 3)
				if h.rt.Stats.LastFlush() != time.Now() || (h.current() != epoch) != tt.reap {
					t.Errorf("last flush %s, epoch %s", h.rt.Stats.LastFlush(), h.current())
				}
				h.request(t, alice)
				h.rt.Flush(t.Context())
				h.expect(t, 4)
			})
		})
	}
}

// An ended epoch that was closed moves into the current one; one that cannot be
// written does not keep the current one from its heartbeat.
func TestFlushOfEndedEpochs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(100, 0)
	h.request(t, alice)
	h.rt.Flush(t.Context())
	first := h.current()
	h.request(t, alice)
	h.engine.rotate()
	h.request(t, alice)
	h.records.reap(first)
	h.rt.Flush(t.Context())
	h.expect(t, 3)

	second := h.current()
	h.request(t, alice)
	h.engine.rotate()
	h.request(t, alice)
	h.records.onFlush = func(_ context.Context, f quota.Flush) error {
		if f.Epoch == second {
			return errDown
		}
		return nil
	}
	h.rt.Flush(t.Context())
	if h.records.epochs[h.current()] == nil || h.rt.Stats.FlushFailures.Load() != 1 {
		t.Error("the current epoch has no heartbeat")
	}
	h.records.onFlush = nil
	h.rt.Flush(t.Context())
	h.expect(t, 5)
}

// Records that close whatever is begun are a fault, not a loop.
func TestFlushWithRecordsThatCloseAll(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.request(t, alice)
	h.records.onFlush = func(_ context.Context, f quota.Flush) error {
		return &quota.EpochClosedError{Epoch: f.Epoch}
	}
	h.rt.Flush(t.Context())
	if n := h.rt.Stats.FlushFailures.Load(); n != 1 {
		t.Errorf("%d failures told", n)
	}
	h.records.onFlush = nil
	h.rt.Flush(t.Context())
	h.expect(t, 1)
}

func TestFlushTellsCallers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	get := func(s quota.Subject, email string) {
		h.rt.Entitlements.Drop()
		h.rt.Entitlements.Get(t.Context(), s, email)
	}
	get("user:a", "")
	get("user:a", "a@example.com")
	get("user:a", "")
	get("user:b", "")
	h.rt.Flush(t.Context())
	get("user:b", "b@example.com")
	h.rt.Flush(t.Context())
	if h.records.seen["user:a"] != "a@example.com" || h.records.seen["user:b"] != "b@example.com" || len(h.records.seen) != 2 {
		t.Errorf("got %v", h.records.seen)
	}
}

// While the records are down charts are bounded, and afterwards they come in
// batches that can be written in time.
func TestFlushBoundsCharts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	largest := 0
	h.records.onFlush = func(_ context.Context, f quota.Flush) error {
		largest = max(largest, len(f.Rollups), len(f.Seen))
		return nil
	}
	const extra = 1000
	for i := range maxRollups + extra {
		account := quota.UserSubject(fmt.Sprint(i))
		h.rt.recorder.count(quota.Digest{byte(i)}, rollupKind{account: account, scope: "s", decision: OutcomeAdmitted}, 1)
		h.rt.recorder.seen(account, "")
	}
	h.rt.Flush(t.Context())
	if n := h.rt.Stats.RollupsDropped.Load(); n != extra {
		t.Errorf("%d dropped, want %d", n, extra)
	}
	if len(h.records.rollups) != maxRollups || len(h.records.seen) != maxSeen || largest != chartBatch {
		t.Errorf("%d rollups, %d callers, at most %d at once", len(h.records.rollups), len(h.records.seen), largest)
	}
}

func TestRecorderRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(100, 0)
		stop := h.start(t)
		h.request(t, alice)
		time.Sleep(time.Second)
		synctest.Wait()
		h.expect(t, 1)
		time.Sleep(9 * time.Second)
		synctest.Wait()
		h.records.mu.Lock()
		flushes, maintained := h.records.flushes, h.records.maintain
		h.records.mu.Unlock()
		if flushes != 10 || maintained != 2 {
			t.Errorf("%d flushes, maintained %d times, in 10 s", flushes, maintained)
		}
		h.request(t, alice)
		stop()
		h.expect(t, 2)
	})
}

// Records that answer again are flushed to at once, and while they do not there is
// one attempt in a second, and no upkeep.
func TestRecorderGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(100, 0)
		var down atomic.Bool
		down.Store(true)
		h.records.onWatch = func() error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		h.records.onFlush = func(context.Context, quota.Flush) error { return h.records.onWatch() }
		stop := h.start(t)
		defer stop()
		h.request(t, alice)
		time.Sleep(10*time.Second + 100*time.Millisecond)
		if n, m := h.rt.Stats.FlushFailures.Load(), h.records.maintain; n != 10 || m != 0 {
			t.Errorf("%d flushes failed, maintained %d times, in 10 s", n, m)
		}
		down.Store(false)
		time.Sleep(350 * time.Millisecond)
		synctest.Wait()
		h.expect(t, 1)
		h.records.mu.Lock()
		defer h.records.mu.Unlock()
		if h.records.flushes != 1 {
			t.Errorf("%d flushes since they answer", h.records.flushes)
		}
	})
}

// Stop waits for a flush that has begun, and writes what has come since; an
// epoch that was closed at the last moment loses nothing.
func TestStopFlushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(100, 0)
		var slow atomic.Bool
		slow.Store(true)
		h.records.onFlush = func(ctx context.Context, _ quota.Flush) error {
			if !slow.CompareAndSwap(true, false) {
				return nil
			}
			select {
			case <-time.After(2 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		stop := h.start(t)
		h.request(t, alice)
		time.Sleep(1500 * time.Millisecond)
		h.request(t, alice)
		epoch := h.current()
		var wg sync.WaitGroup
		wg.Go(stop)
		time.Sleep(1501 * time.Millisecond) // the flush has ended, the last one too
		wg.Wait()
		h.expect(t, 2)
		h.request(t, alice)
		h.records.reap(epoch)
		h.rt.Stop(t.Context())
		h.expect(t, 3)
		if n := h.rt.Stats.FlushFailures.Load(); n != 0 {
			t.Errorf("%d flushes failed", n)
		}
	})
}

func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.request(t, alice)
	h.rt.Stop(t.Context())
	if len(h.records.epochs) != 1 {
		t.Error("nothing was flushed")
	}
}
