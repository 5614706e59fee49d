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

// thresholdReached is the payload of the event quota.threshold_reached.
type thresholdReached struct {
	Metric      string     `json:"metric"`
	Threshold   int64      `json:"threshold_percent"`
	Limit       int64      `json:"limit"`
	Used        int64      `json:"used"` // when it was noticed
	PeriodStart *time.Time `json:"period_start"`
}

// raiseThresholds notes which accounts have reached which part of a quota, and
// tells of each once. A row that is there already was raised before, by this
// gateway or another. Rows are written in key order, like those of usage.
func (s *Store) raiseThresholds(ctx context.Context, tx sqlgen.DBTX, ts []quota.Threshold, now column.Time) error {
	sorted := slices.SortedFunc(slices.Values(ts), compareThresholds)
	raised := map[sqlgen.RaiseThresholdRow]bool{}
	for rest := sorted; len(rest) > 0; {
		n := batchRows
		for n > len(rest) {
			n /= 2
		}
		var args []any
		for _, t := range rest[:n] {
			row := rowOf(&t)
			args = append(args, row.AccountID, row.Metric, row.PeriodStart, row.Threshold, row.LimitValue, now)
		}
		rows, err := sqlgen.New(together{tx, args}).RaiseThreshold(ctx, sqlgen.RaiseThresholdParams{})
		if err != nil {
			return fmt.Errorf("writing quota_notifications: %w", err)
		}
		for _, row := range rows {
			row.PeriodStart = instant(row.PeriodStart.Unix())
			raised[row] = true
		}
		rest = rest[n:]
	}
	var events []OutboxEvent
	for _, t := range sorted {
		if row := rowOf(&t); raised[row] {
			delete(raised, row) // a user and an organization of one id
			events = append(events, eventOf(&t))
		}
	}
	b := s.batched(tx)
	if err := s.putOutbox(ctx, sqlgen.New(b), events); err != nil {
		return err
	}
	if err := b.send(ctx); err != nil {
		return fmt.Errorf("writing the events of thresholds: %w", err)
	}
	return nil
}

func rowOf(t *quota.Threshold) sqlgen.RaiseThresholdRow {
	return sqlgen.RaiseThresholdRow{
		AccountID: t.Account.ID(), Metric: t.Metric, PeriodStart: instant(t.Start), Threshold: t.Percent, LimitValue: t.Limit,
	}
}

func eventOf(t *quota.Threshold) OutboxEvent {
	payload := thresholdReached{Metric: t.Metric, Threshold: t.Percent, Limit: t.Limit, Used: t.Used}
	if t.Start != 0 { // a level has no period
		start := time.Unix(t.Start, 0).UTC()
		payload.PeriodStart = &start
	}
	return OutboxEvent{Type: "quota.threshold_reached", Account: t.Account.ID(), Payload: payload}
}

func compareThresholds(a, b quota.Threshold) int {
	return cmp.Or(cmp.Compare(a.Account.ID(), b.Account.ID()), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.Percent, b.Percent), cmp.Compare(a.Limit, b.Limit))
}
