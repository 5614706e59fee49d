package gate

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const bob = quota.Subject("user:bob")

// failingUsage are records that cannot tell what some accounts have used.
type failingUsage struct {
	UsageStore
	all atomic.Bool
	of  quota.Subject
}

func (f *failingUsage) Usage(ctx context.Context, s quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error) {
	if f.all.Load() || s == f.of {
		return nil, errDown
	}
	return f.UsageStore.Usage(ctx, s, keys, except)
}

// owing is a gate whose accounts have a level of 30 each that the counters do not know.
func owing(t *testing.T) (*harness, *failingUsage) {
	f := &failingUsage{}
	h := newHarness(t, func(o *Options) {
		f.UsageStore = o.Usage
		o.Usage = f
	})
	h.records.plan = limited(10, 100)
	h.records.levels["storage"] = 30
	return h, f
}

func (h *harness) frees(t *testing.T, s quota.Subject, n int64) {
	t.Helper()
	ticket := h.admit(t, h.caller(t, s), applied(quota.Rule{Name: "remove", Frees: spend("storage", n)}))
	ticket.Settle(t.Context(), Result{Status: 204, Fate: Answered})
}

// What is freed while the records cannot tell the level is freed when they can, once.
func TestFreeWaitsForTheRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, f := owing(t)
		stop := h.start(t)
		f.all.Store(true)
		h.frees(t, alice, 10)
		h.frees(t, alice, 5)
		time.Sleep(time.Minute)
		if n := h.used(t, "storage", quota.PeriodNone); n != 0 {
			t.Errorf("%d are counted while nobody knows the level", n)
		}
		f.all.Store(false)
		time.Sleep(10 * time.Second)
		if n := h.used(t, "storage", quota.PeriodNone); n != -15 {
			t.Errorf("the level moves by %d, want -15", n)
		}
		stop()
		if n := h.rt.Stats.RefundFailures.Load(); n != 0 {
			t.Errorf("%d refunds failed", n)
		}
	})
}

// An account that cannot be loaded keeps no other from being given what it is owed.
func TestOwedOfManyAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, f := owing(t)
		stop := h.start(t)
		f.of = bob
		f.all.Store(true)
		h.frees(t, bob, 1)
		h.frees(t, bob, 1)
		h.frees(t, alice, 10)
		f.all.Store(false)
		time.Sleep(10 * time.Second)
		if n := h.used(t, "storage", quota.PeriodNone); n != -10 {
			t.Errorf("the level moves by %d, want -10", n)
		}
		stop()
		if n := h.rt.Stats.RefundFailures.Load(); n != 2 {
			t.Errorf("%d refunds are told to be lost, want those of the other account: 2", n)
		}
	})
}

// What stopping can still give back is given back.
func TestOwedAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, f := owing(t)
		stop := h.start(t)
		f.all.Store(true)
		h.frees(t, alice, 10)
		f.all.Store(false)
		stop()
		if n := h.used(t, "storage", quota.PeriodNone); n != -10 || h.rt.Stats.RefundFailures.Load() != 0 {
			t.Errorf("the level moves by %d, want -10; %d refunds failed", n, h.rt.Stats.RefundFailures.Load())
		}
	})
}

// debtor leaves refunds to the gate.
type debtor struct {
	*fakeEngine
	owed [][]quota.Receipt
}

func (d *debtor) Owed() [][]quota.Receipt {
	owed := d.owed
	d.owed = nil
	return owed
}

// What the counters cannot complete without the records is the gate's.
func TestOwedByCounters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d *debtor
		h := newHarness(t, func(o *Options) {
			key := quota.Key{Digest: alice.Digest(), Name: "storage", Space: quota.SpaceUsage, Period: quota.PeriodNone}
			free := []quota.Receipt{{Key: key, Account: alice, Amount: 20, Free: true}}
			d = &debtor{fakeEngine: o.Engine.(*fakeEngine), owed: [][]quota.Receipt{slices.Clone(free), free}}
			o.Engine = d
		})
		h.records.levels["storage"] = 30
		defer h.start(t)()
		time.Sleep(10 * time.Second)
		if n := h.used(t, "storage", quota.PeriodNone); n != -30 {
			t.Errorf("the level moves by %d, want -30: no more than is there", n)
		}
	})
}

// probed are counters that may be out of reach.
type probed struct {
	*fakeEngine
	away atomic.Bool
}

func (p *probed) Probe(context.Context) error {
	if p.away.Load() {
		return &CounterError{Kind: FaultUnreachable, NotRun: true, Err: errDown}
	}
	return nil
}

// What was charged once by the shared counters is given back when they can be told:
// else a repetition would be free, and done. What no Once charged need not wait.
func TestOnceIsGivenBackWhereItIsKnown(t *testing.T) {
	t.Parallel()
	for _, outage := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := &probed{fakeEngine: newFakeEngine()}
			p.fail = func(string) error { return p.Probe(t.Context()) }
			h := newHarness(t, func(o *Options) { o.Engine = p })
			h.records.plan = limited(10, 100)
			stop := h.start(t)
			recorded := func(when, metric string, period quota.Period, want int64) {
				t.Helper()
				time.Sleep(5 * time.Second)
				if n := h.records.used(alice, metric, period); n != want {
					t.Errorf("outage %v: %s, %d %s are recorded, want %d", outage, when, n, metric, want)
				}
			}
			job := applied(quota.Rule{Name: "job", Idempotent: true, Spends: spend("jobs", 1), RefundUnless: []int{2}})
			job.Once = quota.UserSubject("key").Digest()
			upload := applied(quota.Rule{Name: "upload", Spends: spend("storage", 1), RefundUnless: []int{2}})
			first := h.admit(t, h.caller(t, alice), job, upload)
			p.away.Store(outage)
			first.Settle(t.Context(), Result{Status: 500, Fate: Answered})
			recorded("before it is over", "storage", quota.PeriodNone, 0)
			p.away.Store(false)
			recorded("when it is over", "jobs", quota.PeriodMonth, 0)
			h.admit(t, h.caller(t, alice), job).Settle(t.Context(), ok200)
			recorded("repeated", "jobs", quota.PeriodMonth, 1)
			stop()
			if n := h.rt.Stats.RefundFailures.Load(); n != 0 {
				t.Errorf("%d refunds failed", n)
			}
		})
	}
}
