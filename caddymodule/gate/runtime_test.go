package gate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// A request that begins after the gateway shows a change is judged by it, and
// by the usage that the change may have corrected.
func TestWatchAppliesChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(1, 0)
		h.records.change(alice, nil)
		stop := h.start(t)
		defer stop()
		if n := h.rt.Entitlements.Applied(); n != 1 {
			t.Errorf("begins at %d, want 1", n)
		}
		rule := applied(quota.Rule{Name: "make", Spends: spend("jobs", 1)})
		h.request(t, alice)
		_ = h.denied(t, h.caller(t, alice), rule)
		for _, subject := range []quota.Subject{alice, quota.AllSubjects} {
			h.rt.Flush(t.Context())
			h.records.mu.Lock()
			for _, e := range h.records.epochs {
				clear(e.rows) // an admin forgives
			}
			h.records.mu.Unlock()
			h.engine.mu.Lock()
			for _, u := range h.engine.usage {
				u.total.Spent = 0 // as counters are told of it
			}
			h.engine.mu.Unlock()
			v := h.records.change(subject, nil)
			synctest.Wait()
			if n := h.rt.Entitlements.Applied(); n != v {
				t.Errorf("%d applied, want %d", n, v)
			}
			h.request(t, alice)
			_ = h.denied(t, h.caller(t, alice), rule)
		}
		if n := h.rt.Stats.Changes.Load(); n != 2 {
			t.Errorf("%d changes told, want 2", n)
		}
	})
}

// distantEngine is as far away as Redis in another zone, and notes what it forgets.
type distantEngine struct {
	Engine
	mu     sync.Mutex
	forgot []quota.Subject
}

func (e *distantEngine) Forget(ctx context.Context, account quota.Subject) error {
	e.mu.Lock()
	e.forgot = append(e.forgot, account)
	e.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	return e.Engine.Forget(ctx, account)
}

// A suspension is seen within two seconds although it comes as the last of a
// crowd of changes, for each of which the counters have to be told.
func TestWatchAppliesManyChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(o *Options) { o.Engine = &distantEngine{Engine: o.Engine} })
		stop := h.start(t)
		defer stop()
		h.caller(t, alice)
		h.records.mu.Lock() // one transaction, of an import say
		for i := range 499 {
			h.records.seq++
			h.records.changes = append(h.records.changes, quota.Change{Seq: h.records.seq, Subject: quota.UserSubject(fmt.Sprint(i))})
		}
		h.records.mu.Unlock()
		h.records.change(alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
		began := time.Now()
		for h.get(t, alice).Control != quota.ControlSuspended {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a suspension is seen after %s", took)
		}
	})
}

// The counters are told of a subject once, however often it has changed; of none
// where they are told of all, and never of a plan, which has no usage.
func TestApplyForgetsEachSubjectOnce(t *testing.T) {
	t.Parallel()
	changes := func(subjects ...quota.Subject) []quota.Change {
		var cs []quota.Change
		for i, s := range subjects {
			cs = append(cs, quota.Change{Seq: int64(i + 1), Subject: s})
		}
		return cs
	}
	for _, tc := range []struct{ changed, want []quota.Subject }{
		{[]quota.Subject{alice, "plan:pro", alice, "org:a", alice}, []quota.Subject{alice, "org:a"}},
		{[]quota.Subject{alice, quota.AllSubjects, "org:a"}, []quota.Subject{quota.AllSubjects}},
		{[]quota.Subject{"plan:pro"}, nil},
	} {
		var e *distantEngine
		h := newHarness(t, func(o *Options) {
			e = &distantEngine{Engine: o.Engine}
			o.Engine = e
		})
		h.rt.apply(changes(tc.changed...))
		slices.Sort(e.forgot)
		slices.Sort(tc.want)
		if diff := cmp.Diff(tc.want, e.forgot); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.changed, diff)
		}
	}
}

// What changed while the connection was lost is noticed when it is back.
func TestWatchTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		var down atomic.Bool
		down.Store(true)
		h.records.onWatch = func() error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		stop := h.start(t)
		defer stop()
		time.Sleep(time.Second)
		h.caller(t, alice)
		v := h.records.change(alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
		if h.rt.Stats.WatchFailures.Load() < 3 || h.rt.Stats.LastFault() == nil {
			t.Error("the failures are not told")
		}
		down.Store(false)
		time.Sleep(350 * time.Millisecond)
		synctest.Wait()
		if n := h.rt.Entitlements.Applied(); n != v {
			t.Errorf("%d applied, want %d", n, v)
		}
		if e := h.get(t, alice); e.Control != quota.ControlSuspended {
			t.Error("a suspended user goes on")
		}
	})
}

// Records that hang do not keep a gateway from starting.
func TestStartWithRecordsThatHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		records := newFakeRecords()
		h := newHarness(t, func(o *Options) { o.Bus = hangingBus{records} })
		began := time.Now()
		stop := h.start(t)
		if took := time.Since(began); took != loadTimeout {
			t.Errorf("took %s", took)
		}
		stop()
	})
}

func TestNewTellsOfScopesWithoutLimits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var warned []quota.Warning
	g := New(Config{Runtime: h.rt, Warn: func(w quota.Warning) { warned = append(warned, w) }})
	if g.Runtime() != h.rt || !h.rt.Stats.LastFlush().IsZero() {
		t.Error("a new gate has not its runtime, or a flush behind it")
	}
	c := Caller{Identity: Identity{Principal: anonymous, IP: "ip:unknown"}}
	began := time.Now()
	ticket, err := g.Admit(t.Context(), c, []quota.Applied{applied(quota.Rule{Name: "r", Limits: []quota.ScopeLimit{{Scope: "odd"}}})}, Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if ticket.Began().Before(began) || ticket.caller.PlanName() != "anonymous" {
		t.Errorf("began %s on plan %s", ticket.Began(), ticket.caller.PlanName())
	}
	ticket.Settle(t.Context(), ok200)
	if len(warned) != 1 || warned[0].Scope != "odd" || h.rt.Stats.UnlimitedScopes.Load() != 1 {
		t.Errorf("warned of %v", warned)
	}
}

// Usage that the counters cannot forget, or the records not keep up, is told.
func TestFaultsOfUpkeepAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(o *Options) { o.Usage = failingUpkeep{o.Usage} })
		h.rt.engine = forgetful{h.engine}
		stop := h.start(t)
		defer stop()
		h.records.change(alice, nil)
		synctest.Wait()
		if f := h.rt.Stats.LastFault(); f == nil || f.Part != "counters" || h.rt.Stats.CounterFailures.Load() != 1 {
			t.Errorf("got %+v", f)
		}
		if h.rt.Entitlements.Applied() != 1 {
			t.Error("the change is not applied to the cache")
		}
		time.Sleep(maintainEvery * time.Second)
		synctest.Wait()
		if f := h.rt.Stats.LastFault(); f.Part != "records" || h.rt.Stats.FlushFailures.Load() != 0 {
			t.Errorf("got %+v", f)
		}
	})
}

type failingUpkeep struct{ UsageStore }

func (failingUpkeep) Maintain(context.Context) error { return errDown }

type forgetful struct{ Engine }

func (forgetful) Forget(context.Context, quota.Subject) error { return errDown }
