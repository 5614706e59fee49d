package store

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// EndGraces tells of each subscription whose grace has ended since this was called
// before, with the same name of a mark: gateways go by the time, and nothing else
// says that the default plan holds now. The first call tells of none. One process
// calls it at a time.
func (s *Companion) EndGraces(ctx context.Context, mark string) ([]BillingChange, error) {
	var result *SyncResult
	err := s.audited(ctx, Actor{Type: ActorSystem}, func(q *sqlgen.Queries, a *auditor) error {
		result = &SyncResult{}
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		last, err := first(q.GetBillingMark(ctx, mark))
		if err != nil {
			return fmt.Errorf("loading billing_marks: %w", err)
		}
		if last != nil {
			b := &billing{q: q, s: s, now: now, result: result, audit: a}
			if err := b.endGraces(ctx, last.At); err != nil {
				return err
			}
		}
		return q.PutBillingMark(ctx, sqlgen.PutBillingMarkParams{Name: mark, At: now, Details: "{}"})
	})
	if err != nil {
		return nil, fmt.Errorf("telling whose grace has ended: %w", err)
	}
	return result.Changes, nil
}

func (b *billing) endGraces(ctx context.Context, since column.Time) (err error) {
	rows, err := b.q.GracesEnded(ctx, sqlgen.GracesEndedParams{
		PastDueSince: column.At(since.Add(-b.s.grace)), PastDueSince_2: column.At(b.now.Add(-b.s.grace)),
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	if b.plans, err = b.s.loadCatalogue(ctx, b.q); err != nil {
		return err
	}
	for i := range rows {
		r := &rows[i]
		b.account = subjectOf(r.Kind, r.AccountID)
		c := BillingChange{
			Kind: SubscriptionGraceEnded, Subscription: r.ID, StripeID: r.StripeSubscriptionID.String, From: b.planName(r.PlanID),
			Status: quota.StatusPastDue, At: b.now.Time,
		}
		if b.plans.defaultRow != nil {
			c.To = b.plans.defaultRow.Name
		}
		b.keep(c, c.Status)
	}
	return nil
}
