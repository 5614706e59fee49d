package store

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Usage implements gate.UsageStore, in one snapshot. A level that was set while
// an epoch in except held usage may be negative here: the caller's own totals of
// those epochs belong on top, and only the sum is the level.
func (s *Store) Usage(ctx context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]int64, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	used := make([]int64, len(keys))
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		for i, k := range keys {
			n, err := usageOf(ctx, q, account.ID(), k, except)
			if err != nil {
				return err
			}
			used[i] = n
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading usage: %w", err)
	}
	return used, nil
}

func usageOf(ctx context.Context, q *sqlgen.Queries, id string, k quota.UsageKey, except []string) (int64, error) {
	period := k.Period.String()
	n, err := q.SumTotals(ctx, sqlgen.SumTotalsParams{AccountID: id, Metric: k.Metric, Period: period, PeriodStart: instant(k.Start)})
	if err != nil {
		return 0, fmt.Errorf("summing usage_totals: %w", err)
	}
	for _, epoch := range except {
		own, err := q.SumEpochTotals(ctx, sqlgen.SumEpochTotalsParams{
			Epoch: epoch, AccountID: id, Metric: k.Metric, Period: period, PeriodStart: instant(k.Start),
		})
		if err != nil {
			return 0, fmt.Errorf("summing usage_totals: %w", err)
		}
		n -= own
	}
	if k.Period == quota.PeriodNone {
		offset, err := q.LevelOffset(ctx, sqlgen.LevelOffsetParams{AccountID: id, Metric: k.Metric})
		if err != nil {
			return 0, fmt.Errorf("summing usage_levels: %w", err)
		}
		n += offset
	}
	return n, nil
}
