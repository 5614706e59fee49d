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

// hangingBus is a bus whose connection answers nothing.
type hangingBus struct{ Bus }

func (hangingBus) Latest(ctx context.Context) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestStreamsEndWithTheRightToThem(t *testing.T) {
	t.Parallel()
	revoked := func(e *quota.Entitlement) { e.TokensValidAfter = time.Now() }
	for name, tt := range map[string]struct {
		subject  quota.Subject // of the change
		write    func(*quota.Entitlement)
		announce bool
		within   time.Duration
		want     bool
	}{
		"suspended":              {alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended }, true, 0, true},
		"deleted":                {alice, func(e *quota.Entitlement) { e.Control = quota.ControlDeleted }, true, 0, true},
		"revoked":                {alice, revoked, true, 0, true},
		"its session":            {alice, func(e *quota.Entitlement) { e.RevokedSessions = map[string]struct{}{"s": {}} }, true, 0, true},
		"another session":        {alice, func(e *quota.Entitlement) { e.RevokedSessions = map[string]struct{}{"x": {}} }, true, sweepEvery, false},
		"another plan":           {alice, func(e *quota.Entitlement) { e.Plan = limited(0, 0) }, true, sweepEvery, false},
		"somebody else":          {"user:bob", revoked, true, sweepEvery, false},
		"revoked, not announced": {alice, revoked, false, time.Second + sweepEvery, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, func(o *Options) { o.TTL = time.Second })
				stop := h.start(t)
				defer stop()
				var closed atomic.Int64
				h.caller(t, alice)
				st := h.rt.Streams.Add(&quota.Principal{Subject: alice, Session: "s", IssuedAt: time.Now()}, func() { closed.Add(1) })
				other := h.rt.Streams.Add(&quota.Principal{Subject: "user:carol"}, func() { t.Error("another's stream was closed") })
				synctest.Wait()
				if tt.announce {
					h.records.change(tt.subject, tt.write)
				} else {
					h.records.mu.Lock()
					e := h.records.row(tt.subject)
					tt.write(&e)
					h.records.rows[tt.subject] = e
					h.records.mu.Unlock()
				}
				time.Sleep(tt.within)
				synctest.Wait()
				if (closed.Load() == 1) != tt.want || h.rt.Stats.StreamsClosed.Load() != closed.Load() {
					t.Errorf("closed %d times", closed.Load())
				}
				st.Done()
				other.Done()
				if n := h.rt.Streams.Len(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A stream whose closing takes long keeps neither others from being closed nor
// anybody from opening one; only its own Done waits.
func TestStreamsCloseSideBySide(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	stop := h.start(t)
	closing, release := make(chan struct{}), make(chan struct{})
	var ended [3]atomic.Bool
	var slow [len(ended)]*Stream
	for i := range slow {
		slow[i] = h.rt.Streams.Add(&quota.Principal{Subject: alice}, func() {
			closing <- struct{}{}
			<-release
			ended[i].Store(true)
		})
	}
	h.records.change(alice, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
	for range slow {
		<-closing // all of them, though none has ended
	}
	h.rt.Streams.Add(&quota.Principal{Subject: "user:bob"}, func() {}).Done()
	var wg sync.WaitGroup
	for i, st := range slow {
		wg.Go(func() {
			if st.Done(); !ended[i].Load() {
				t.Error("Done has returned while the stream was being closed")
			}
		})
	}
	close(release)
	wg.Wait()
	stop()
}

// Close is never called after Done has returned, and once at most.
func TestStreamsDoneRacesWithClose(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	stop := h.start(t)
	var wg sync.WaitGroup
	for i := range 8 {
		subject := quota.UserSubject(fmt.Sprint(i))
		wg.Go(func() {
			for range 200 {
				var done, closed atomic.Bool
				st := h.rt.Streams.Add(&quota.Principal{Subject: subject}, func() {
					if done.Load() || closed.Swap(true) {
						t.Error("closed after Done, or twice")
					}
				})
				h.records.change(subject, func(e *quota.Entitlement) { e.Control = quota.ControlSuspended })
				st.Done()
				done.Store(true)
			}
		})
	}
	wg.Wait()
	stop()
	if n := h.rt.Streams.Len(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}
