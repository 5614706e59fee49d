package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// raiseThresholds notes which accounts have reached which part of a quota. A row
// that is there already was raised before, by this gateway or another. Rows are
// written in key order, like those of usage.
func raiseThresholds(ctx context.Context, q *sqlgen.Queries, ts []quota.Threshold, now column.Time) error {
	for _, t := range slices.SortedFunc(slices.Values(ts), compareThresholds) {
		_, err := q.RaiseThreshold(ctx, sqlgen.RaiseThresholdParams{
			AccountID: t.Account.ID(), Metric: t.Metric, PeriodStart: instant(t.Start),
			Threshold: t.Percent, LimitValue: t.Limit, CreatedAt: now,
		})
		if err != nil {
			return fmt.Errorf("writing quota_notifications: %w", err)
		}
	}
	return nil
}

func compareThresholds(a, b quota.Threshold) int {
	return cmp.Or(cmp.Compare(a.Account.ID(), b.Account.ID()), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.Percent, b.Percent), cmp.Compare(a.Limit, b.Limit))
}
