package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

func (h *harness) get(t testing.TB, s quota.Subject) *quota.Entitlement {
	t.Helper()
	p, _ := h.principals.LoadOrStore(s, &quota.Principal{Subject: s})
	return h.rt.Entitlements.Of(t.Context(), p.(*quota.Principal))
}

func TestEntitlementsKeepForTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		step := func(wait time.Duration, loads int) {
			t.Helper()
			time.Sleep(wait)
			if e := h.get(t, alice); e.Account != alice || e.AccountDigest != alice.Digest() {
				t.Errorf("got %+v", e)
			}
			if n := h.records.loadsOf(alice); n != loads {
				t.Errorf("%d loads, want %d", n, loads)
			}
		}
		step(0, 1)
		step(0, 1)
		step(time.Minute-1, 1)
		step(1, 2)
		if hits, misses := h.rt.Stats.CacheHits.Load(), h.rt.Stats.CacheMisses.Load(); hits != 2 || misses != 2 {
			t.Errorf("%d hits, %d misses, want 2 and 2", hits, misses)
		}
		h.rt.Entitlements.Configure(time.Second, 0, 10)
		step(time.Second, 3)
	})
}

func TestEntitlementsEndByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.change(alice, func(e *quota.Entitlement) { e.ValidUntil = time.Now().Add(10 * time.Second) })
		h.get(t, alice)
		time.Sleep(10*time.Second - 1)
		h.get(t, alice)
		if n := h.records.loadsOf(alice); n != 1 {
			t.Fatalf("%d loads before the end, want 1", n)
		}
		time.Sleep(time.Nanosecond)
		h.get(t, alice)
		if n := h.records.loadsOf(alice); n != 2 {
			t.Fatalf("%d loads at the end, want 2", n)
		}
	})
}

func TestEntitlementsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(o *Options) { o.CacheSize = 50 })
		for i := range 1000 {
			h.get(t, quota.UserSubject(fmt.Sprint(i)))
		}
		synctest.Wait()
		if n := h.rt.Entitlements.Len(); n > 50 || n == 0 {
			t.Errorf("%d are cached, want at most 50", n)
		}
	})
}

func TestEntitlementsLoadOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		release := make(chan struct{})
		h.records.onLoad = func(ctx context.Context, _ quota.Subject) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// The first to ask leaves: the others must not notice.
		ctx, leave := context.WithCancel(t.Context())
		var left *quota.Entitlement
		var wg sync.WaitGroup
		wg.Go(func() { left = h.rt.Entitlements.Get(ctx, alice, "") })
		synctest.Wait()
		var good atomic.Int64
		for range 100 {
			wg.Go(func() {
				if h.get(t, alice).Version != fallbackVersion {
					good.Add(1)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		wg.Wait()
		if left.Version != fallbackVersion {
			t.Error("who left was given what nobody had loaded yet")
		}
		if n := h.records.loadsOf(alice); n != 1 || good.Load() != 100 {
			t.Errorf("%d loads, %d of 100 served; want 1 load and all", n, good.Load())
		}
	})
}

func TestEntitlementsWhileRecordsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		var down atomic.Bool
		h.records.onLoad = func(context.Context, quota.Subject) error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		h.records.change(alice, nil)
		h.get(t, alice)
		down.Store(true)
		is := func(wait time.Duration, version int64) {
			t.Helper()
			time.Sleep(wait)
			if e := h.get(t, alice); e.Version != version {
				t.Errorf("version %d, want %d", e.Version, version)
			}
		}
		is(time.Minute, 1)
		loads := h.records.loadsOf(alice)
		is(failureDelay-1, 1)
		if n := h.records.loadsOf(alice); n != loads {
			t.Errorf("%d loads within the delay after a failure", n-loads)
		}
		is(1, 1)
		if n := h.records.loadsOf(alice); n != loads+1 {
			t.Errorf("%d loads after the delay, want 1", n-loads)
		}
		is(10*time.Minute-failureDelay-1, 1)
		is(1, fallbackVersion)
		if h.rt.Stats.LastFault() == nil || h.rt.Stats.LoadFailures.Load() == 0 || h.rt.Stats.Fallbacks.Load() != 1 {
			t.Error("the failure is not told")
		}
		down.Store(false)
		is(failureDelay, 1)
	})
}

// One account's broken row must not push others to the default plan.
func TestEntitlementsFailByAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const broken = quota.Subject("user:broken")
	h.records.onLoad = func(_ context.Context, s quota.Subject) error {
		if s == broken {
			return errors.New("a row that cannot be enforced")
		}
		return nil
	}
	for i := range 20 {
		if e := h.get(t, broken); e.Version != fallbackVersion {
			t.Fatalf("got %+v", e)
		}
		if e := h.get(t, quota.UserSubject(fmt.Sprint(i))); e.Version == fallbackVersion {
			t.Fatal("another account has the fallback")
		}
	}
	if n := h.records.loadsOf(broken); n > 3 {
		t.Errorf("%d loads of a row that cannot be read", n)
	}
}

func TestEntitlementsOfBrokenLoaders(t *testing.T) {
	t.Parallel()
	for name, loader := range map[string]Loader{
		"nothing": loaderFunc(func(context.Context, quota.Subject) (*quota.Entitlement, error) { return nil, nil }),
		"panic": loaderFunc(func(context.Context, quota.Subject) (*quota.Entitlement, error) {
			panic("a bug in the loader")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, func(o *Options) { o.Loader = loader })
			if e := h.get(t, alice); e.Version != fallbackVersion || h.rt.Stats.LoadFailures.Load() != 1 {
				t.Errorf("got %+v", e)
			}
		})
	}
}

type loaderFunc func(context.Context, quota.Subject) (*quota.Entitlement, error)

func (f loaderFunc) Entitlement(ctx context.Context, s quota.Subject) (*quota.Entitlement, error) {
	return f(ctx, s)
}

// A load that takes long is not waited for where only time is up, but it is
// where a change was announced.
func TestEntitlementsPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		v := h.records.change(alice, nil)
		h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: alice}})
		h.get(t, alice)
		var slow atomic.Int64
		h.records.onLoad = func(ctx context.Context, _ quota.Subject) error {
			select {
			case <-time.After(time.Duration(slow.Load())):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		get := func(want int64, took time.Duration) {
			t.Helper()
			began := time.Now()
			if e := h.get(t, alice); e.Version != want || time.Since(began) != took {
				t.Errorf("version %d after %s, want %d after %s", e.Version, time.Since(began), want, took)
			}
		}
		slow.Store(int64(time.Second))
		h.records.change("user:other", nil)
		time.Sleep(time.Minute)
		get(1, staleWait) // 1 is still true of her
		time.Sleep(time.Second)
		get(2, 0)

		v = h.records.change(alice, nil)
		h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: alice}})
		get(3, time.Second)

		// The records hang: one waits, the others do not.
		slow.Store(int64(time.Hour))
		h.rt.Entitlements.Drop()
		get(3, loadTimeout)
		time.Sleep(failureDelay)
		get(3, 0)
		began := time.Now()
		if e := h.get(t, "user:unknown"); e.Version != fallbackVersion || time.Since(began) != staleWait {
			t.Errorf("an unknown caller waited %s", time.Since(began))
		}

		// They are back: the first request after the announcement waits again.
		time.Sleep(loadTimeout)
		slow.Store(int64(time.Second))
		v = h.records.change(alice, nil)
		h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: alice}})
		get(4, time.Second)
	})
}

// A request that joined a load which began before a change loads again, and one
// that began before it does not wait for that.
func TestEntitlementsLoadRacingAChange(t *testing.T) {
	t.Parallel()
	for _, subject := range []quota.Subject{alice, "plan:free", quota.AllSubjects} {
		t.Run(string(subject), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.records.onLoaded = func(context.Context, quota.Subject) error {
					time.Sleep(50 * time.Millisecond) // the answer is on its way
					return nil
				}
				h.records.change("user:other", nil)
				var before, after *quota.Entitlement
				var wg sync.WaitGroup
				wg.Go(func() { before = h.get(t, alice) })
				time.Sleep(10 * time.Millisecond)
				v := h.records.change(subject, nil)
				h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: subject}})
				wg.Go(func() { after = h.get(t, alice) })
				wg.Wait()
				if before.Version != 1 || after.Version != 2 {
					t.Errorf("versions %d and %d, want 1 and 2", before.Version, after.Version)
				}
				if e := h.get(t, alice); e.Version != 2 || h.records.loadsOf(alice) != 2 {
					t.Errorf("version %d after %d loads", e.Version, h.records.loadsOf(alice))
				}
			})
		})
	}
}

// Whoever asks is answered, however fast its row changes.
func TestEntitlementsDoNotStarve(t *testing.T) {
	t.Parallel()
	for _, subject := range []quota.Subject{alice, "plan:free", quota.AllSubjects} {
		t.Run(string(subject), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				h.records.onLoaded = func(context.Context, quota.Subject) error {
					time.Sleep(10 * time.Millisecond)
					return nil
				}
				storm, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					for storm.Err() == nil {
						v := h.records.change(subject, nil)
						h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: subject}})
						time.Sleep(time.Millisecond)
					}
				})
				for range 50 {
					time.Sleep(3 * time.Millisecond)
					began, applied := time.Now(), h.rt.Entitlements.Applied()
					if e := h.get(t, alice); e.Version < applied || time.Since(began) > 25*time.Millisecond {
						t.Errorf("version %d of %d after %s", e.Version, applied, time.Since(began))
					}
				}
				stop()
				wg.Wait()
			})
		})
	}
}

// A change that is delivered again does not load again.
func TestEntitlementsIgnoreDuplicates(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	v := h.records.change(alice, nil)
	for range 3 {
		h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: alice}})
		h.get(t, alice)
	}
	if n := h.records.loadsOf(alice); n != 1 {
		t.Errorf("%d loads, want 1", n)
	}
}

// Records that were replaced by older ones number their changes anew.
func TestEntitlementsOfReplacedRecords(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.seq = 100
	h.rt.Entitlements.apply([]quota.Change{{Seq: 99, Subject: "plan:free"}, {Seq: 100, Subject: alice}})
	if e := h.get(t, alice); e.Version != 100 {
		t.Fatalf("version %d", e.Version)
	}
	h.records.seq = 3
	h.rt.Entitlements.apply([]quota.Change{{Seq: 3, Subject: quota.AllSubjects}})
	if h.rt.Entitlements.Applied() != 3 {
		t.Errorf("applied %d, want 3", h.rt.Entitlements.Applied())
	}
	h.get(t, alice)
	if e := h.get(t, alice); e.Version != 3 || h.records.loadsOf(alice) != 2 {
		t.Errorf("version %d after %d loads, want 3 after 2", e.Version, h.records.loadsOf(alice))
	}
	v := h.records.change(alice, nil)
	h.rt.Entitlements.apply([]quota.Change{{Seq: v, Subject: alice}})
	if e := h.get(t, alice); e.Version != 4 {
		t.Errorf("version %d, want 4", e.Version)
	}
}
