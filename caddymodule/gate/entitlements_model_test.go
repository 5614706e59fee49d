package gate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// An older version never comes back: a Get that begins after Applied() >= s
// answers with a version that holds the subject's change s, however loads and
// changes interleave.
func TestEntitlementsNeverOlder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		steps := rapid.IntRange(5, 120).Draw(rt, "steps")
		size := rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "size")
		var failed string
		synctest.Test(t, func(t *testing.T) { failed = interleave(t, seed, steps, size) })
		if failed != "" {
			rt.Fatal(failed)
		}
	})
}

func interleave(t *testing.T, seed uint64, steps, size int) (failed string) {
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHarness(t, func(o *Options) { o.CacheSize, o.TTL = size, 20*time.Millisecond })
	var mu sync.Mutex // of random
	delay := func(context.Context, quota.Subject) error {
		mu.Lock()
		d := time.Duration(random.IntN(8)) * time.Millisecond
		mu.Unlock()
		time.Sleep(d)
		return nil
	}
	h.records.onLoad, h.records.onLoaded = delay, delay
	subjects := []quota.Subject{"user:a", "user:b", "org:c"}
	// due is the version that each account must not fall below: what was applied.
	var due sync.Map
	var worst atomic.Pointer[string]
	var wg sync.WaitGroup
	apply := func(changes ...quota.Change) {
		h.rt.Entitlements.apply(changes)
		for _, ch := range changes {
			for _, s := range subjects {
				if ch.Subject == s || ch.Subject.Kind() == "plan" || ch.Subject == quota.AllSubjects {
					old, _ := due.LoadOrStore(s, ch.Seq)
					due.Store(s, max(old.(int64), ch.Seq))
				}
			}
		}
	}
	var pending []quota.Change
	for range steps {
		mu.Lock()
		what, subject := random.IntN(20), subjects[random.IntN(len(subjects))]
		switch what {
		case 0:
			subject = "plan:x"
		case 1:
			subject = "*"
		}
		pause := time.Duration(random.IntN(4)) * time.Millisecond
		mu.Unlock()
		time.Sleep(pause) // without the lock: a bubble's clock waits for mutexes
		switch {
		case what < 6: // a change, announced now or later, in order
			pending = append(pending, quota.Change{Seq: h.records.change(subject, nil), Subject: subject})
			if what%2 == 0 {
				apply(pending...)
			}
		case what < 8: // all at once, perhaps again
			apply(pending...)
		case what == 8:
			h.rt.Entitlements.Drop()
		case what == 9 && len(pending) > 0: // more changes than are remembered
			for i := range len(h.rt.Entitlements.changes.ring) + 10 {
				s := quota.UserSubject(fmt.Sprint("other", i))
				pending = append(pending[:0], quota.Change{Seq: h.records.change(s, nil), Subject: s})
				apply(pending...)
			}
		default:
			least := int64(0)
			if v, ok := due.Load(subject); ok {
				least = v.(int64)
			}
			wg.Go(func() {
				if e := h.get(t, subject); e.Version < least {
					s := fmt.Sprintf("%s has version %d, though %d had been applied", subject, e.Version, least)
					worst.Store(&s)
				}
			})
		}
	}
	wg.Wait()
	if s := worst.Load(); s != nil {
		return *s
	}
	return ""
}
