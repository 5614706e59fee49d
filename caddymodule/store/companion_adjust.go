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

// ErrLevel says that the metric is a level, which is set and not adjusted (422).
var ErrLevel = errors.New("metric is a level")

// Adjustment adds to what an account has used, or takes from it.
type Adjustment struct {
	Metric string
	// Delta is -quota.MaxAmount..quota.MaxAmount and not 0; below 0: given back.
	Delta int64
	// Period limits it to one of the periods in which the metric is counted
	// (quota.Period's word); empty: all of them.
	Period string
	Reason string
}

// Adjusted is what an adjustment has done in one period.
type Adjusted struct {
	Period        quota.Period
	Start, End    time.Time
	Before, After int64
}

// AdjustUsage adjusts the account's usage in the periods that contain now,
// exactly: usage stays the sum of usage_totals. Where less was used in a period than
// is given back, nothing is left there; but of the period that the quota is for, or
// that was asked for, no more can be given back than was used (*InvalidError), as
// the records know it: they lag behind the gateways by up to one flush. Answers also
// ErrUnknownMetric, ErrLevel.
func (s *Companion) AdjustUsage(ctx context.Context, by Actor, account quota.Subject, a Adjustment) ([]Adjusted, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	if a.Delta == 0 || a.Delta > quota.MaxAmount || a.Delta < -quota.MaxAmount {
		return nil, invalid("delta", "want a whole number other than 0, from -2^53 to 2^53")
	}
	var done []Adjusted
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		now := s.now()
		p := sqlgen.LockAccountParams{ID: account.ID(), Kind: account.Kind(), FirstSeenAt: column.At(now)}
		if err := q.LockAccount(ctx, p); err != nil {
			return fmt.Errorf("locking account: %w", err)
		}
		v, err := s.view(ctx, q, account, now)
		if err != nil {
			return err
		}
		if done, err = v.adjust(ctx, q, a); err != nil {
			return err
		}
		e := AuditEvent{
			Action: "usage.adjusted", ResourceType: "account", ResourceID: account.ID(), Account: account.ID(), Reason: a.Reason,
			Changes: map[string]AuditChange{}, Metadata: map[string]any{"metric": a.Metric, "delta": a.Delta},
		}
		for _, d := range done {
			e.Changes[a.Metric+"/"+d.Period.String()] = AuditChange{From: d.Before, To: d.After}
		}
		log.add(e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("adjusting usage: %w", err)
	}
	return done, nil
}

func (v *view) adjust(ctx context.Context, q *sqlgen.Queries, a Adjustment) ([]Adjusted, error) {
	if !v.knows(a.Metric) {
		return nil, fmt.Errorf("%w: %q", ErrUnknownMetric, a.Metric)
	}
	if v.isLevel(a.Metric) {
		return nil, fmt.Errorf("%w: %q", ErrLevel, a.Metric)
	}
	decisive := quota.PeriodMonth // of what no plan limits
	if limit, ok := v.entitlement.Quota(a.Metric); ok {
		decisive = limit.Period
	}
	if a.Period != "" {
		var err error
		if decisive, err = quota.ParsePeriod(a.Period); err != nil {
			return nil, &InvalidError{Field: "period", Err: err}
		}
	}
	var done []Adjusted
	for _, c := range quota.UsageCharges(v.entitlement, v.now) {
		if c.Key.Name != a.Metric || c.Key.Period == quota.PeriodNone || a.Period != "" && c.Key.Period != decisive {
			continue
		}
		d, err := v.adjustPeriod(ctx, q, &c, a.Delta, c.Key.Period == decisive)
		if err != nil {
			return nil, err
		}
		done = append(done, d)
	}
	if len(done) == 0 {
		return nil, invalid("period", "%s is not counted by %s", a.Metric, decisive)
	}
	return done, nil
}

func (v *view) adjustPeriod(ctx context.Context, q *sqlgen.Queries, c *quota.Charge, delta int64, decisive bool) (Adjusted, error) {
	d := Adjusted{Period: c.Key.Period, Start: time.Unix(c.Key.Start, 0).UTC(), End: time.Unix(c.End, 0).UTC()}
	id, key := v.entitlement.Account.ID(), quota.UsageKey{Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start}
	var err error
	if d.Before, err = usageOf(ctx, q, v.entitlement.Account, key); err != nil {
		return d, err
	}
	d.After = d.Before + delta
	switch {
	case d.After > quota.MaxAmount:
		return d, invalid("delta", "makes more than 2^53 of the %s", d.Period)
	case d.After < 0 && decisive:
		return d, invalid("delta", "only %d were used in the %s that began at %s", max(0, d.Before), d.Period, d.Start.Format(time.RFC3339))
	}
	if d.After = max(0, d.After); d.After == d.Before {
		return d, nil
	}
	p := sqlgen.AddAdjustmentParams{
		AccountID: id, Metric: key.Metric, Period: key.Period.String(), PeriodStart: instant(c.Key.Start), PeriodEnd: instant(c.End),
	}
	if d.After >= d.Before {
		p.Spent = d.After - d.Before
	} else {
		p.Refunded = d.Before - d.After
	}
	if err := q.AddAdjustment(ctx, p); err != nil {
		return d, fmt.Errorf("writing usage_totals: %w", err)
	}
	return d, nil
}
