package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// How long epochs live without a sign, and after they were closed.
const (
	// DeadAfter is how long an epoch may be silent, on the records' clock.
	DeadAfter = 3 * time.Second
	// CompactAfter is how long a closed epoch keeps rows of its own: a process
	// that was only paused can learn from them what of its totals is counted.
	CompactAfter = 24 * time.Hour
	// reaperLease ends before the epoch of a dead holder does, so that another
	// process closes it in time.
	reaperLease = 2 * time.Second
	// keepChanges is how long changes stay: longer than any gateway is cut off
	// without starting afresh.
	keepChanges = 48 * time.Hour
	// compactBatch bounds one run of Compact, reapBatch what Reap names: more than
	// die while those that were copied wait to be dropped, also in a crash loop.
	compactBatch = 1000
	reapBatch    = 1000
)

// The leases of the background jobs.
const (
	leaseReaper  = "reaper"
	leaseCopier  = "copier"
	leaseCompact = "compaction"
)

// EpochTotals implements gate.UsageStore. It answers a *quota.EpochCompactedError
// for an epoch that was compacted; an unknown epoch has no rows.
func (s *Store) EpochTotals(ctx context.Context, epoch string) ([]quota.Total, error) {
	var totals []quota.Total
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		compacted, err := first(q.EpochCompacted(ctx, epoch))
		if err != nil {
			return err
		}
		if compacted != nil && !compacted.IsZero() {
			return &quota.EpochCompactedError{Epoch: epoch}
		}
		rows, err := q.EpochTotals(ctx, epoch)
		if err != nil {
			return err
		}
		for _, r := range rows {
			t := quota.Total{
				Account: subjectOf(r.Kind.String, r.AccountID), Metric: r.Metric,
				Start: r.PeriodStart.Unix(), Spent: r.Spent, Refunded: r.Refunded,
			}
			if !r.PeriodEnd.IsZero() {
				t.End = r.PeriodEnd.Unix()
			}
			if t.Period, err = quota.ParsePeriod(r.Period); err != nil {
				return &RowError{"usage_totals", epoch, "period", err}
			}
			totals = append(totals, t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading totals of epoch %s: %w", epoch, err)
	}
	return totals, nil
}

// Reap closes the epochs of processes that have not flushed for DeadAfter, and
// says how many. For a caller that copies totals from counters it names the kept
// epochs that are closed and not Dropped yet, the longest closed first. Of several
// callers with different holders one does it, and one that copies.
func (s *Store) Reap(ctx context.Context, holder string, copies bool) (closed int, kept []quota.ClosedEpoch, err error) {
	err = s.writeTx(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries) error {
		closed, kept = 0, nil
		name := leaseReaper
		if copies {
			name = leaseCopier
		}
		now, held, err := s.lease(ctx, q, name, holder, reaperLease)
		if err != nil || !held {
			return err
		}
		if closed, err = s.closeDead(ctx, tx, now); err != nil || !copies {
			return err
		}
		rows, err := q.KeptEpochs(ctx, reapBatch)
		if err != nil {
			return err
		}
		for _, r := range rows {
			kept = append(kept, quota.ClosedEpoch{Epoch: r.Epoch, For: now.Sub(r.ClosedAt.Time)})
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("closing dead epochs: %w", err)
	}
	return closed, kept, nil
}

// closeDead closes the epochs that have been silent for too long. One whose process
// is in the middle of a flush, or was frozen there, keeps nobody from the others.
func (s *Store) closeDead(ctx context.Context, tx sqlgen.DBTX, now column.Time) (closed int, err error) {
	dead, err := sqlgen.New(s.engine.claiming(tx)).DeadEpochs(ctx, column.At(now.Add(-DeadAfter)))
	if err != nil {
		return 0, err
	}
	q := sqlgen.New(tx)
	for _, epoch := range dead {
		if _, err := q.CloseEpoch(ctx, sqlgen.CloseEpochParams{Epoch: epoch, ClosedAt: now}); err != nil {
			return 0, err
		}
	}
	return len(dead), nil
}

// Dropped notes that the counters have forgotten a closed epoch: all that they
// held of it was flushed before. Only then may it be compacted.
func (s *Store) Dropped(ctx context.Context, epoch string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		_, err = q.DropEpoch(ctx, sqlgen.DropEpochParams{Epoch: epoch, DroppedAt: now})
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that epoch %s is dropped: %w", epoch, err)
	}
	return nil
}

// Found notes that the counters hold a closed epoch: Reap names it, also if it
// was Dropped before, and again says whether it was. It answers a
// *quota.EpochCompactedError if all that they can hold of it is counted.
func (s *Store) Found(ctx context.Context, epoch string) (again bool, err error) {
	err = s.write(ctx, func(q *sqlgen.Queries) error {
		n, err := q.UndropEpoch(ctx, epoch)
		if again = n > 0; err != nil || again {
			return err
		}
		compacted, err := first(q.EpochCompacted(ctx, epoch))
		if err == nil && compacted != nil && !compacted.IsZero() {
			return &quota.EpochCompactedError{Epoch: epoch}
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("noting that counters hold epoch %s: %w", epoch, err)
	}
	return again, nil
}

// Gateways is how many processes that judge requests have flushed within DeadAfter.
func (s *Store) Gateways(ctx context.Context) (int, error) {
	var n int64
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		n, err = q.LivingProcesses(ctx, column.At(now.Add(-DeadAfter)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counting gateways: %w", err)
	}
	return int(n), nil
}

// Compact folds the totals of epochs that were closed for CompactAfter into one
// epoch, each in a transaction of its own, and says how many it folded. Sums stay as they are.
func (s *Store) Compact(ctx context.Context, holder string) (int, error) {
	var epochs []string
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		epochs = nil
		now, held, err := s.lease(ctx, q, leaseCompact, holder, time.Minute)
		if err != nil || !held {
			return err
		}
		epochs, err = q.CompactableEpochs(ctx, sqlgen.CompactableEpochsParams{
			ClosedAt: column.At(now.Add(-CompactAfter)), Limit: compactBatch,
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("looking for closed epochs: %w", err)
	}
	for i, epoch := range epochs {
		if err := s.compact(ctx, epoch); err != nil {
			return i, fmt.Errorf("compacting epoch %s: %w", epoch, err)
		}
	}
	return len(epochs), nil
}

// compact claims the epoch first, so that it is folded once whoever else tries.
func (s *Store) compact(ctx context.Context, epoch string) error {
	return s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		n, err := q.ClaimEpoch(ctx, sqlgen.ClaimEpochParams{Epoch: epoch, CompactedAt: now})
		if err != nil || n == 0 {
			return err
		}
		if err := q.FoldEpoch(ctx, epoch); err != nil {
			return err
		}
		return q.DeleteEpochTotals(ctx, epoch)
	})
}

// lease takes or renews a lease within the caller's transaction.
func (s *Store) lease(ctx context.Context, q *sqlgen.Queries, name, holder string, ttl time.Duration) (column.Time, bool, error) {
	now, err := s.clock(ctx, q)
	if err != nil {
		return now, false, err
	}
	n, err := q.TakeLease(ctx, sqlgen.TakeLeaseParams{
		Name: name, Holder: holder, ExpiresAt: now, ExpiresAt_2: column.At(now.Add(ttl)),
	})
	if err != nil {
		return now, false, fmt.Errorf("taking lease %s: %w", name, err)
	}
	return now, n > 0, nil
}

// Prune deletes changes that no gateway can still be waiting for.
func (s *Store) Prune(ctx context.Context) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		latest, err := q.LatestChange(ctx)
		if err != nil {
			return err
		}
		_, err = q.PruneChanges(ctx, sqlgen.PruneChangesParams{CreatedAt: column.At(now.Add(-keepChanges)), Seq: latest})
		return err
	})
	if err != nil {
		return fmt.Errorf("pruning changes: %w", err)
	}
	return nil
}

// Maintain is one round of upkeep: old epochs are compacted, old changes pruned.
// It is called every few seconds; holder names the caller to the lease under which
// of several callers one does the work.
func (s *Store) Maintain(ctx context.Context, holder string) error {
	_, compacted := s.Compact(ctx, holder)
	return errors.Join(compacted, s.Prune(ctx))
}
