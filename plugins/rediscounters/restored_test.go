package rediscounters

import (
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

const restartLimit = 10 * time.Second

// restored is two engines over one Redis that can be put back to what it saved.
type restored struct {
	*testing.T
	server *gatetest.RedisServer
	a, b   *Engine
	l      *ledger
	charge quota.Charge // of a limit of 10
}

func restorable(t *testing.T) *restored {
	t.Helper()
	s := gatetest.Redis(t)
	o := options(t, s.URL())
	c := usageCharge("user:1", "jobs", quota.PeriodMonth)
	c.Limit = quota.Limit{Max: 10}
	return &restored{T: t, server: s, a: again(t, o), b: again(t, o), l: newLedger(), charge: c}
}

// take charges a, n times.
func (r *restored) take(n int) {
	r.Helper()
	for range n {
		if d := reserveWarm(r, r.a, r.l, r.charge); !d.Admitted() {
			r.Fatalf("denied: %+v", d)
		}
	}
	r.l.flush(r.a)
}

// end ends the epoch of a, as a process that stops in order: it is copied.
func (r *restored) end() (epoch string) {
	r.Helper()
	epoch = r.a.current.Load().id
	r.a.Rebase(epoch, nil)
	r.l.flush(r.a)
	rows, err := r.b.EpochTotals(r.Context(), epoch)
	if err != nil {
		r.Fatal(err)
	}
	r.l.apply(epoch, rows)
	return epoch
}

func (r *restored) drop(epoch string) {
	r.Helper()
	if err := r.b.DropEpoch(r.Context(), epoch); err != nil {
		r.Fatal(err)
	}
}

func (r *restored) save() { r.Helper(); r.server.Do(r.T, "SAVE") }

// restore restarts Redis with what it saved, and forgets what was used, as is
// done after an outage.
func (r *restored) restore() {
	r.Helper()
	r.server.Kill(r.T)
	r.server.Start(r.T)
	for _, e := range []*Engine{r.a, r.b} {
		gatetest.Await(r.T, restartLimit, func() error { return e.Forget(r.Context(), quota.AllSubjects) })
	}
}

// wantLeft: b admits n more, and then a none.
func (r *restored) wantLeft(n int) {
	r.Helper()
	left := 0
	for ; left <= int(r.charge.Limit.Max); left++ {
		if d := reserveWarm(r, r.b, r.l, r.charge); !d.Admitted() {
			break
		}
	}
	if left != n {
		r.Errorf("%d more are admitted, want %d", left, n)
	}
	if d := reserveWarm(r, r.a, r.l, r.charge); d.Admitted() || d.Outcomes[0].Used != r.charge.Limit.Max {
		r.Errorf("then, at the other: %+v", d)
	}
}

// TestOlderDataOfALivingEpoch: what the records have of an epoch counts, if Redis
// comes back with less of it; and once, when its process charges again.
func TestOlderDataOfALivingEpoch(t *testing.T) {
	t.Parallel()
	r := restorable(t)
	r.take(1)
	r.save()
	r.take(8)
	r.restore()
	r.wantLeft(1)
}

// TestOlderDataOfADroppedEpoch: an epoch that Redis had forgotten is there again.
func TestOlderDataOfADroppedEpoch(t *testing.T) {
	t.Parallel()
	r := restorable(t)
	r.take(1)
	r.save()
	r.take(8)
	r.drop(r.end())
	r.restore()
	r.wantLeft(1)
}

// TestOlderDataOfACompactedEpoch: what the records have folded into another epoch
// is not counted once more from Redis.
func TestOlderDataOfACompactedEpoch(t *testing.T) {
	t.Parallel()
	r := restorable(t)
	r.take(5)
	epoch := r.end()
	r.save()
	r.drop(epoch)
	r.restore()
	r.l.compact(epoch)
	r.wantLeft(5)
}

// TestChargedAfterTheDrop: a process that was paused for so long that its epoch was
// dropped charges it where it has no token yet, before its flush tells it. A day
// later the records have compacted it, and it counts once.
func TestChargedAfterTheDrop(t *testing.T) {
	t.Parallel()
	r := restorable(t)
	other := usageCharge("user:other", "jobs", quota.PeriodMonth)
	if bucketOf(other.Key.Digest) == bucketOf(r.charge.Key.Digest) {
		t.Fatal("the same bucket")
	}
	reserveWarm(t, r.a, r.l, other)
	epoch := r.a.current.Load().id
	r.l.flush(r.a)
	r.drop(epoch)
	r.take(5)
	if id := r.a.current.Load().id; id != epoch {
		t.Fatal("it has noticed")
	}
	r.a.Rebase(epoch, nil) // its flush is refused
	r.l.flush(r.a)         // and its last one taken
	r.l.compact(epoch)
	if err := r.b.Forget(t.Context(), r.charge.Account); err != nil {
		t.Fatal(err)
	}
	r.wantLeft(5)
}
