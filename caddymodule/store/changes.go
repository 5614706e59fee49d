package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// changesBatch bounds what is delivered at once.
const changesBatch = 500

// Latest is the number of the newest change, 0 before the first.
func (s *Store) Latest(ctx context.Context) (int64, error) {
	var seq int64
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		seq, err = q.LatestChange(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading the newest change: %w", err)
	}
	return seq, nil
}

// Changes are the changes numbered above after, in order, at most a batch: call
// again with the last number while there are any. Where some may be missing,
// because they were pruned or the database was replaced by an older one, it is
// one change of AllSubjects with the newest number.
func (s *Store) Changes(ctx context.Context, after int64) ([]quota.Change, error) {
	var changes []quota.Change
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		oldest, err := q.OldestChange(ctx)
		if err != nil {
			return err
		}
		latest, err := q.LatestChange(ctx)
		if err != nil {
			return err
		}
		if latest < after || oldest > after+1 {
			changes = []quota.Change{{Seq: latest, Subject: quota.AllSubjects}}
			return nil
		}
		rows, err := q.ChangesAfter(ctx, sqlgen.ChangesAfterParams{Seq: after, Limit: changesBatch})
		if err != nil {
			return err
		}
		for _, r := range rows {
			changes = append(changes, quota.Change{Seq: r.Seq, Subject: quota.Subject(r.Subject)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading changes after %d: %w", after, err)
	}
	return changes, nil
}

// lookTimeout bounds one look at the changes: a server that hangs is a fault. What
// the receiver does with them is not in it.
const lookTimeout = 5 * time.Second

// aliveEvery is how often Poll says that the connection lives.
const aliveEvery = time.Second

// Poll is the loop of gate.Bus.Watch for a guest that can ask cheaply whether
// anything was written: every interval it calls moved, and where that says yes it
// delivers the changes above after. What look holds has it deliver them at once.
// It ends with nil when ctx does, else with the first fault. moved must say yes
// the first time.
func (s *Store) Poll(ctx context.Context, after int64, every time.Duration, look <-chan struct{},
	moved func(context.Context) (bool, error), deliver func([]quota.Change)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var alive time.Time
	for asked := false; ; {
		yes, err := moved(ctx)
		if err == nil && (yes || asked) {
			after, err = s.deliver(ctx, after, deliver)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watching changes: %w", err)
		}
		if now := time.Now(); now.Sub(alive) >= aliveEvery {
			alive = now
			deliver(nil)
		}
		asked = false
		select {
		case <-ctx.Done():
			return nil
		case <-look:
			asked = true
		case <-ticker.C:
		}
	}
}

// Follow is the loop of gate.Bus.Watch for a guest that is told of changes: it
// delivers those above after, calls wait with the number of the newest, and
// begins again when that returns, told or not. It ends with nil when ctx does,
// else with the first fault.
func (s *Store) Follow(ctx context.Context, after int64, wait func(ctx context.Context, after int64), deliver func([]quota.Change)) error {
	for {
		newest, err := s.deliver(ctx, after, deliver)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watching changes: %w", err)
		case newest == after:
			deliver(nil)
		}
		after = newest
		if wait(ctx, after); ctx.Err() != nil {
			return nil
		}
	}
}

// deliver hands over everything above after and returns the newest number.
func (s *Store) deliver(ctx context.Context, after int64, deliver func([]quota.Change)) (int64, error) {
	for {
		asking, cancel := context.WithTimeout(ctx, lookTimeout)
		changes, err := s.Changes(asking, after)
		cancel()
		if err != nil || len(changes) == 0 {
			return after, err
		}
		deliver(changes)
		after = changes[len(changes)-1].Seq
	}
}
