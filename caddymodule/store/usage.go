package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Usage implements gate.UsageStore, in one snapshot. A level that was set while
// an epoch in except held usage may be negative here: the totals of those epochs
// belong on top, and only the sum is the level.
func (s *Store) Usage(ctx context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	var used []quota.Used
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		nothing, err := withoutRows(ctx, q, except)
		if err != nil {
			return err
		}
		used = make([]quota.Used, len(keys))
		for i, k := range keys {
			used[i].Excepted = slices.Clone(nothing)
			if err := addUsage(ctx, q, account, k, except, &used[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading usage: %w", err)
	}
	return used, nil
}

// withoutRows is what there is of each epoch if the counter has no row of it.
func withoutRows(ctx context.Context, q *sqlgen.Queries, epochs []string) ([]quota.Total, error) {
	totals := make([]quota.Total, len(epochs))
	for i, epoch := range epochs {
		compacted, err := first(q.EpochCompacted(ctx, epoch))
		if err != nil {
			return nil, fmt.Errorf("loading gateway_epochs: %w", err)
		}
		if compacted != nil && !compacted.IsZero() {
			totals[i].Spent, totals[i].Refunded = quota.MaxAmount, quota.MaxAmount
		}
	}
	return totals, nil
}

// addUsage adds what there is of one counter.
func addUsage(ctx context.Context, q *sqlgen.Queries, account quota.Subject, k quota.UsageKey, except []string, u *quota.Used) error {
	rows, err := q.CounterTotals(ctx, sqlgen.CounterTotalsParams{
		AccountID: account.ID(), Metric: k.Metric, Period: k.Period.String(), PeriodStart: instant(k.Start),
	})
	if err != nil {
		return fmt.Errorf("loading usage_totals: %w", err)
	}
	for _, r := range rows {
		i := slices.Index(except, r.Epoch)
		if i < 0 {
			u.Amount += r.Spent - r.Refunded
			continue
		}
		t := &u.Excepted[i]
		t.Account, t.Metric, t.Period, t.Start = account, k.Metric, k.Period, k.Start
		t.Spent, t.Refunded = r.Spent, r.Refunded
		if !r.PeriodEnd.IsZero() {
			t.End = r.PeriodEnd.Unix()
		}
	}
	if k.Period != quota.PeriodNone {
		return nil
	}
	offset, err := q.LevelOffset(ctx, sqlgen.LevelOffsetParams{AccountID: account.ID(), Metric: k.Metric}) // of a level that an admin has set
	if err != nil {
		return fmt.Errorf("summing usage_levels: %w", err)
	}
	u.Amount += offset
	return nil
}
