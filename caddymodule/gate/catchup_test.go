package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// askedBus looks for changes only when it is asked to.
type askedBus struct{ *fakeRecords }

func (b askedBus) Watch(ctx context.Context, after int64, look <-chan struct{}, deliver func([]quota.Change)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look:
		}
		b.mu.Lock()
		changes := b.changes[after:]
		after = b.seq
		b.mu.Unlock()
		deliver(changes)
	}
}

// Whoever has caught up is judged by what was changed before, however many do so.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(o *Options) { o.Bus = askedBus{o.Bus.(*fakeRecords)} })
		stop := h.start(t)
		defer stop()
		for range 20 {
			go func() {
				v := h.records.change(alice, nil)
				h.rt.CatchUp(t.Context())
				if n := h.rt.Entitlements.Applied(); n < v {
					t.Errorf("%d applied, want %d", n, v)
				}
			}()
		}
		synctest.Wait()
		began := time.Now()
		h.rt.CatchUp(t.Context()) // with nothing
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}

// deafBus watches and is told of nothing.
type deafBus struct{ *fakeRecords }

func (deafBus) Watch(ctx context.Context, _ int64, _ <-chan struct{}, _ func([]quota.Change)) error {
	<-ctx.Done()
	return nil
}

func TestCatchUpIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(o *Options) { o.Bus = deafBus{o.Bus.(*fakeRecords)} })
		stop := h.start(t)
		defer stop()
		h.records.change(alice, nil)
		began := time.Now()
		h.rt.CatchUp(t.Context())
		if took := time.Since(began); took != loadTimeout {
			t.Errorf("took %s", took)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		h.rt.CatchUp(gone)
		if took := time.Since(began); took != loadTimeout {
			t.Errorf("a client that has left is waited for: %s", took-loadTimeout)
		}
	})
}

// While nobody tells of changes nobody waits for them, and what is cached is loaded anew.
func TestCatchUpWhileNothingIsWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.onWatch = func() error { return errDown }
		stop := h.start(t)
		defer stop()
		h.caller(t, alice)
		h.records.change(alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
		began := time.Now()
		h.rt.CatchUp(t.Context())
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		if e := h.get(t, alice); e.Control != quota.ControlSuspended {
			t.Error("a suspended user goes on")
		}
	})
}
