package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// addRollups adds the flush's deltas unless it, or a later one, was applied before.
// Its number also tells that all which its process had counted is written.
func (s *Store) addRollups(ctx context.Context, tx sqlgen.DBTX, f *quota.Flush) error {
	if f.Seq == 0 {
		return nil
	}
	n, err := sqlgen.New(tx).AdvanceFlush(ctx, sqlgen.AdvanceFlushParams{Epoch: f.Epoch, FlushSeq: f.Seq})
	if err != nil {
		return fmt.Errorf("numbering flush: %w", err)
	}
	if n == 0 || len(f.Rollups) == 0 {
		return nil
	}
	b := s.batched(tx)
	q := sqlgen.New(b)
	for _, p := range chartRows(f.Rollups, time.Hour) {
		if err := q.AddHourly(ctx, p); err != nil {
			return fmt.Errorf("writing charts: %w", err)
		}
	}
	for _, p := range chartRows(f.Rollups, 24*time.Hour) {
		if err := q.AddDaily(ctx, sqlgen.AddDailyParams(p)); err != nil {
			return fmt.Errorf("writing charts: %w", err)
		}
	}
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("writing charts: %w", err)
	}
	return nil
}

// chartRows are the rows of the rollups in buckets of the given length, sorted by
// key, each key once. Anonymous callers share the empty account.
func chartRows(rollups []quota.Rollup, bucket time.Duration) []sqlgen.AddHourlyParams {
	rows := make([]sqlgen.AddHourlyParams, len(rollups))
	for i := range rollups {
		r := &rollups[i]
		account := ""
		if checkAccount(r.Account) == nil {
			account = r.Account.ID()
		}
		rows[i] = sqlgen.AddHourlyParams{
			Bucket: column.At(time.Unix(r.Hour, 0).UTC().Truncate(bucket)), AccountID: account, Scope: r.Scope, Decision: r.Decision,
			StatusClass: int64(r.StatusClass), Requests: r.Requests, Cost: r.Cost,
		}
	}
	slices.SortFunc(rows, compareChartRows)
	merged := rows[:0]
	for _, row := range rows {
		if last := len(merged) - 1; last >= 0 && compareChartRows(merged[last], row) == 0 {
			merged[last].Requests += row.Requests
			merged[last].Cost += row.Cost
			continue
		}
		merged = append(merged, row)
	}
	return merged
}

func compareChartRows(a, b sqlgen.AddHourlyParams) int {
	return cmp.Or(a.Bucket.Compare(b.Bucket.Time), cmp.Compare(a.AccountID, b.AccountID), cmp.Compare(a.Scope, b.Scope),
		cmp.Compare(a.Decision, b.Decision), cmp.Compare(a.StatusClass, b.StatusClass))
}
