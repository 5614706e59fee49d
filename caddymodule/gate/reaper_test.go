package gate

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// What a killed gateway had counted and not flushed is in the records within five
// seconds of its death being certain, and the counters forget its epoch.
func TestReaperCopiesTheDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, limited(100, 0))
		defer f.stop()
		dying := f.nodes[0]
		for range 7 {
			dying.try(t, alice, work(100, time.Hour))
		}
		dying.kill()
		if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 0 {
			t.Fatalf("%d jobs were flushed", n)
		}
		time.Sleep(8 * time.Second)
		if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 7 {
			t.Errorf("%d jobs are recorded, want 7", n)
		}
		s := f.nodes[1].rt.Stats
		if s.EpochsReaped.Load() != 1 || s.EpochsCopied.Load() != 1 {
			t.Errorf("reaped %d, copied %d", s.EpochsReaped.Load(), s.EpochsCopied.Load())
		}
		time.Sleep(dropAfter + 2*time.Second)
		f.shared.mu.Lock()
		defer f.shared.mu.Unlock()
		if n := len(f.shared.epochs); n != 0 {
			t.Errorf("%d epochs are left in the counters", n)
		}
	})
}

// Counters that come back with older data hold an epoch again that was dropped: it
// is copied and dropped anew, or only dropped once the records have compacted it, and
// what was used is loaded anew.
func TestReaperFindsADroppedEpoch(t *testing.T) {
	t.Parallel()
	for name, compacted := range map[string]bool{"whole": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 2, limited(10, 0))
				defer f.stop()
				dying, other := f.nodes[0], f.nodes[1]
				for range 5 {
					dying.try(t, alice, work(100, time.Hour))
				}
				time.Sleep(2 * time.Second)
				restore := f.shared.save()
				for range 4 {
					dying.try(t, alice, work(100, time.Hour))
				}
				epoch := dying.epoch()
				dying.kill()
				time.Sleep(dropAfter + 10*time.Second)
				f.records.mu.Lock()
				e := f.records.epochs[epoch]
				if !e.dropped {
					t.Fatal("it was not dropped")
				}
				e.compacted = compacted
				f.records.mu.Unlock()
				restore()
				time.Sleep(2 * listEvery * reapEvery)
				f.shared.mu.Lock()
				if f.shared.epochs[epoch] != nil {
					t.Error("the counters hold it still")
				}
				f.shared.mu.Unlock()
				if code := other.try(t, alice, work(100, time.Hour)); code != "" {
					t.Errorf("the tenth: %q", code)
				}
				if code := other.try(t, alice, work(100, time.Hour)); code != quota.CodeQuotaExceeded {
					t.Errorf("the eleventh: %q", code)
				}
			})
		})
	}
}

// A reaper may die between any two steps: the next one goes on, and nothing is
// lost or counted twice.
func TestReaperDiesAtEachStep(t *testing.T) {
	t.Parallel()
	steps := []string{"close", "copy", "copied", "drop", "dropped", "mark", "marked"}
	for at := range steps {
		t.Run(steps[at], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3, limited(100, 0))
				for _, m := range f.nodes {
					m.try(t, alice, work(100, time.Hour))
				}
				f.nodes[0].kill()
				// Beside those that live there is one whose calls fail from a step on; its
				// rounds come a little before theirs, so that it is the first at each step.
				time.Sleep(900 * time.Millisecond)
				dying := newReaper(f.nodes[1].rt, f.nodes[1].node)
				dying.usage, dying.records = dyingStore{f.records, steps[at]}, dyingStore{f.records, steps[at]}
				dying.keeper = dyingKeeper{f.nodes[1].node, steps[at]}
				died := false
				for range 80 {
					died = dying.round(t.Context()) != nil || died
					time.Sleep(time.Second)
				}
				if !died {
					t.Error("it did not die")
				}
				f.stop()
				if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 3 {
					t.Errorf("%d jobs are recorded, want 3", n)
				}
			})
		})
	}
}

// dyingStore fails at a step, before it is done or after.
type dyingStore struct {
	*sharedRecords
	at string
}

func (d dyingStore) Reap(ctx context.Context, copies bool) (int, []quota.ClosedEpoch, error) {
	closed, kept, err := d.sharedRecords.Reap(ctx, copies)
	if d.at == "close" {
		return 0, nil, errDown
	}
	return closed, kept, err
}

func (d dyingStore) Flush(ctx context.Context, f quota.Flush) error {
	if d.at == "copy" {
		return errDown
	}
	err := d.sharedRecords.Flush(ctx, f)
	if d.at == "copied" {
		return errDown
	}
	return err
}

func (d dyingStore) Dropped(ctx context.Context, epoch string) error {
	if d.at == "mark" {
		return errDown
	}
	err := d.sharedRecords.Dropped(ctx, epoch)
	if d.at == "marked" {
		return errDown
	}
	return err
}

type dyingKeeper struct {
	*fakeNode
	at string
}

func (d dyingKeeper) DropEpoch(ctx context.Context, epoch string) error {
	if d.at == "drop" {
		return errDown
	}
	err := d.fakeNode.DropEpoch(ctx, epoch)
	if d.at == "dropped" {
		return errDown
	}
	return err
}

func (m *member) epoch() string {
	m.node.mu.Lock()
	defer m.node.mu.Unlock()
	return m.node.epoch
}

// A process that was only paused finds its epoch closed and begins another. What
// it and the reaper write of the closed one is the same, whoever comes first.
func TestPausedProcess(t *testing.T) {
	t.Parallel()
	for first := range 3 {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 2, limited(100, 0))
				paused, other := f.nodes[0], newReaper(f.nodes[1].rt, f.nodes[1].node)
				paused.try(t, alice, work(100, time.Hour))
				time.Sleep(2 * time.Second)
				epoch := paused.epoch()
				paused.try(t, alice, work(100, time.Hour))
				f.records.reap(epoch)
				reap := func() {
					if err := other.round(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if first == 0 {
					reap()
				}
				paused.try(t, alice, work(100, time.Hour))
				if first == 1 {
					reap()
				}
				paused.rt.Flush(t.Context())
				paused.try(t, alice, work(100, time.Hour))
				if first == 2 {
					reap()
				}
				time.Sleep(dropAfter + 5*time.Second)
				reap()
				if len(other.copied) != 0 {
					t.Errorf("%d epochs that somebody else has dropped are remembered", len(other.copied))
				}
				f.stop()
				if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 4 {
					t.Errorf("%d jobs are recorded, want 4", n)
				}
				if paused.epoch() == epoch {
					t.Error("it goes on in a closed epoch")
				}
			})
		})
	}
}
