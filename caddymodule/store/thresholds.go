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
func (s *Store) raiseThresholds(ctx context.Context, q *sqlgen.Queries, ts []quota.Threshold, now column.Time) error {
	var events []OutboxEvent
	for _, t := range slices.SortedFunc(slices.Values(ts), compareThresholds) {
		n, err := q.RaiseThreshold(ctx, sqlgen.RaiseThresholdParams{
			AccountID: t.Account.ID(), Metric: t.Metric, PeriodStart: instant(t.Start),
			Threshold: t.Percent, LimitValue: t.Limit, CreatedAt: now,
		})
		if err != nil {
			return fmt.Errorf("writing quota_notifications: %w", err)
		}
		if n > 0 {
			events = append(events, eventOf(&t))
		}
	}
	return s.putOutbox(ctx, q, events)
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
