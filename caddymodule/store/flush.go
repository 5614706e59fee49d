package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// compactedEpoch holds the totals of epochs that were closed long ago.
const compactedEpoch = "compacted"

// adjustedEpoch holds what admins add to usage and take from it. It is no
// process's: nobody flushes to it, and it is never closed or compacted.
const adjustedEpoch = "adjusted"

// Flush implements gate.UsageStore. Applying the same flush twice counts once:
// totals are absolute and only rise, rollups are applied by their number. Rows
// are written in key order, so that concurrent flushes wait for each other
// rather than deadlock.
func (s *Store) Flush(ctx context.Context, f quota.Flush) error {
	if err := checkFlush(&f); err != nil {
		return fmt.Errorf("flushing usage: %w", err)
	}
	rows := slices.SortedFunc(slices.Values(f.Rows), compareTotals)
	err := s.writeTx(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		n, err := q.BeatEpoch(ctx, sqlgen.BeatEpochParams{Epoch: f.Epoch, StartedAt: now, Process: text(f.Process), Kept: f.Kept})
		if err != nil {
			return fmt.Errorf("opening epoch: %w", err)
		}
		if n == 0 {
			if err := late(ctx, q, &f); err != nil {
				return err
			}
		}
		if err := putTotals(ctx, s.batched(tx), f.Epoch, rows); err != nil {
			return fmt.Errorf("writing usage_totals: %w", err)
		}
		if err := s.addRollups(ctx, tx, &f); err != nil {
			return err
		}
		if err := putCallers(ctx, s.batched(tx), &f, now); err != nil {
			return fmt.Errorf("writing accounts: %w", err)
		}
		if err := s.raiseThresholds(ctx, tx, f.Thresholds, now); err != nil {
			return err
		}
		if f.Final {
			if _, err := q.CloseEpoch(ctx, sqlgen.CloseEpochParams{Epoch: f.Epoch, ClosedAt: now}); err != nil {
				return fmt.Errorf("closing epoch: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("flushing usage: %w", err)
	}
	return nil
}

// late lets the last totals of a kept epoch into it although it is closed: the
// process that was thought dead and the reaper write the same absolute totals.
func late(ctx context.Context, q *sqlgen.Queries, f *quota.Flush) error {
	if f.Kept && f.Final {
		compacted, err := first(q.EpochCompacted(ctx, f.Epoch))
		if err != nil {
			return fmt.Errorf("loading gateway_epochs: %w", err)
		}
		if compacted != nil && compacted.IsZero() {
			return nil
		}
	}
	return closedEpoch(ctx, q, f.Epoch)
}

// closedEpoch is the error for a flush to a closed epoch, with the number of the
// last flush that it took: the process may not know that this one succeeded.
func closedEpoch(ctx context.Context, q *sqlgen.Queries, epoch string) error {
	seq, err := first(q.EpochFlushSeq(ctx, epoch))
	if err != nil {
		return fmt.Errorf("loading gateway_epochs: %w", err)
	}
	closed := &quota.EpochClosedError{Epoch: epoch}
	if seq != nil {
		closed.FlushSeq = *seq
	}
	return closed
}

func checkFlush(f *quota.Flush) error {
	if f.Epoch == "" || f.Epoch == compactedEpoch || f.Epoch == adjustedEpoch || len(f.Epoch) > maxID {
		return invalid("epoch", "%q names no process's epoch", f.Epoch)
	}
	for i := range f.Rows {
		t := &f.Rows[i]
		if err := checkAccount(t.Account); err != nil {
			return err
		}
		if !quota.ValidName(t.Metric) {
			return invalid("metric", "%q is not a name", t.Metric)
		}
		if t.Period > quota.PeriodNone {
			return invalid("period", "%s", t.Period)
		}
		if t.Spent < 0 || t.Refunded < 0 {
			return invalid("spent, refunded", "%d, %d of %s: negative", t.Spent, t.Refunded, t.Metric)
		}
	}
	for i := range f.Seen {
		if err := checkAccount(f.Seen[i].Account); err != nil {
			return err
		}
	}
	return nil
}

func putTotals(ctx context.Context, b *batch, epoch string, rows []quota.Total) error {
	q := sqlgen.New(b)
	for i := range rows {
		t := &rows[i]
		if i > 0 && compareTotals(rows[i-1], *t) == 0 { // a user and an organization of one id
			if err := b.send(ctx); err != nil {
				return err
			}
		}
		p := sqlgen.PutTotalParams{
			Epoch: epoch, AccountID: t.Account.ID(), Metric: t.Metric, Period: t.Period.String(),
			PeriodStart: instant(t.Start), Spent: t.Spent, Refunded: t.Refunded,
		}
		if t.Period != quota.PeriodNone {
			p.PeriodEnd = instant(t.End)
		}
		if err := q.PutTotal(ctx, p); err != nil {
			return err
		}
	}
	return b.send(ctx)
}

// putCallers notes who was seen. Organizations that were charged are noted too:
// the rows of usage say only an id.
func putCallers(ctx context.Context, b *batch, f *quota.Flush, now column.Time) error {
	q := sqlgen.New(b)
	callers := callersOf(f)
	for i, c := range callers {
		id, kind := c.Account.ID(), c.Account.Kind()
		if i > 0 && callers[i-1].Account.ID() == id { // a user and an organization of one id
			if err := b.send(ctx); err != nil {
				return err
			}
		}
		var err error
		if c.At.IsZero() {
			err = q.KnowAccount(ctx, sqlgen.KnowAccountParams{ID: id, Kind: kind, FirstSeenAt: now})
		} else {
			err = q.SeeAccount(ctx, sqlgen.SeeAccountParams{
				ID: id, Kind: kind, Email: sql.NullString{String: c.Email, Valid: c.Email != ""}, FirstSeenAt: column.At(c.At),
			})
		}
		if err != nil {
			return err
		}
	}
	return b.send(ctx)
}

// callersOf are the accounts to note, each once, sorted by id; without an
// instant where one was only charged.
func callersOf(f *quota.Flush) []quota.Seen {
	seen := map[quota.Subject]quota.Seen{}
	for _, t := range f.Rows {
		if t.Account.Kind() == kindOrg {
			seen[t.Account] = quota.Seen{Account: t.Account}
		}
	}
	for _, c := range f.Seen {
		last := seen[c.Account]
		if c.Email == "" {
			c.Email = last.Email
		}
		if c.At.Before(last.At) {
			c.At = last.At
		}
		seen[c.Account] = c
	}
	return slices.SortedFunc(maps.Values(seen), func(a, b quota.Seen) int {
		return cmp.Or(cmp.Compare(a.Account.ID(), b.Account.ID()), cmp.Compare(a.Account, b.Account))
	})
}

func compareTotals(a, b quota.Total) int {
	return cmp.Or(cmp.Compare(a.Account.ID(), b.Account.ID()), cmp.Compare(a.Metric, b.Metric),
		cmp.Compare(a.Period, b.Period), cmp.Compare(a.Start, b.Start))
}

func instant(unix int64) column.Time { return column.At(time.Unix(unix, 0)) }
