package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Grant gives an account a plan by hand.
type Grant struct {
	// Plan is the plan's name.
	Plan string
	// Duration is how long the account has it; 0: without end, for a trial the
	// plan's trial_days.
	Duration time.Duration
	// Trial makes it a trial.
	Trial bool
	// Force changes a subscription that Stripe manages: as long as the grant runs,
	// that one does not give its plan, whatever is read of it.
	Force      bool
	By, Reason string
}

// maxDuration bounds grants: times beyond the year 9999 do not sort as text.
const maxDuration = 100 * 366 * 24 * time.Hour

// Upgrade gives the account the plan at once, in place of the subscription that
// it has. What was used stays used, and billing periods go on from the same
// anchor. Answers: ErrPlanNotFound, ErrPlanInactive, ErrStripeManaged, *InvalidError.
func (s *Companion) Upgrade(ctx context.Context, account quota.Subject, g Grant) (*Subscription, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	if g.Duration < 0 || g.Duration > maxDuration {
		return nil, invalid("duration", "%s is outside 0..%s", g.Duration, maxDuration)
	}
	var sub *Subscription
	err := s.write(ctx, func(q *sqlgen.Queries) (err error) {
		sub, err = s.upgrade(ctx, q, account, g)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("upgrading: %w", err)
	}
	return sub, nil
}

// granting is one change of a subscription, within its transaction.
type granting struct {
	account quota.Subject
	grant   Grant
	now     column.Time
	plan    *sqlgen.SubscriptionPlan
	row     *sqlgen.Subscription // nil: none
	old     standing
}

// upgrade is Upgrade within a transaction: it locks the account, looks at what it
// has, and returns what it has then.
func (s *Companion) upgrade(ctx context.Context, q *sqlgen.Queries, account quota.Subject, g Grant) (*Subscription, error) {
	c := &granting{account: account, grant: g, now: column.At(s.now())}
	if err := s.lockAccount(ctx, q, c); err != nil {
		return nil, err
	}
	catalogue, err := s.loadCatalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	switch c.plan = catalogue.byName(g.Plan); {
	case c.plan == nil:
		return nil, fmt.Errorf("%w: %q", ErrPlanNotFound, g.Plan)
	case !c.plan.IsActive:
		return nil, fmt.Errorf("%w: %q", ErrPlanInactive, g.Plan)
	}
	if err := c.replace(ctx, q); err != nil {
		return nil, err
	}
	st, err := s.accountState(ctx, q, account)
	if err != nil {
		return nil, err
	}
	return st.Subscription, nil
}

// lockAccount makes concurrent changes of the account queue, and reads its
// subscription as the one before left it.
func (s *Companion) lockAccount(ctx context.Context, q *sqlgen.Queries, c *granting) error {
	p := sqlgen.LockAccountParams{ID: c.account.ID(), Kind: c.account.Kind(), FirstSeenAt: c.now}
	if err := q.LockAccount(ctx, p); err != nil {
		return fmt.Errorf("locking account: %w", err)
	}
	row, err := s.currentRow(ctx, q, c.account)
	if err != nil {
		return err
	}
	c.row, c.old = row, judge(row, c.now.Time, s.grace)
	if row != nil && row.Source == sourceStripe && c.old.running && !c.grant.Force {
		return ErrStripeManaged
	}
	return nil
}

// replace ends the current subscription and starts the new one now.
func (c *granting) replace(ctx context.Context, q *sqlgen.Queries) error {
	id, err := newID()
	if err != nil {
		return err
	}
	p := sqlgen.InsertSubscriptionParams{
		ID: id, AccountID: c.account.ID(), PlanID: text(c.plan.ID), Source: "manual", Status: string(quota.StatusActive),
		StartedAt: c.now, GrantedBy: text(c.grant.By), GrantReason: said(c.grant.Reason), GrantedOver: c.overruled(),
	}
	duration := c.grant.Duration
	if c.grant.Trial {
		if duration == 0 {
			duration = time.Duration(c.plan.TrialDays) * 24 * time.Hour
		}
		if duration == 0 {
			return invalid("duration", "plan %s has no trial_days, so a trial needs a duration", c.plan.Name)
		}
		p.Source, p.Status = "trial", string(quota.StatusTrial)
	}
	if duration > 0 {
		p.CurrentPeriodEnd = column.At(c.now.Add(duration))
	}
	if c.grant.Trial {
		p.TrialEnd = p.CurrentPeriodEnd
	}
	if c.row != nil {
		end := sqlgen.ReplaceSubscriptionParams{ID: c.row.ID, Status: string(c.old.status), EndedAt: c.now}
		if c.old.running {
			p.BillingAnchor = column.At(anchor(c.row))
			end.Status = string(quota.StatusCancelled)
		}
		if err := q.ReplaceSubscription(ctx, end); err != nil {
			return fmt.Errorf("ending subscription: %w", err)
		}
	}
	if err := q.InsertSubscription(ctx, p); err != nil {
		return fmt.Errorf("writing subscription: %w", err)
	}
	return nil
}

// overruled is the id of the paid subscription that the grant is forced over, as
// is the grant whose place it takes; null: there is none.
func (c *granting) overruled() (id sql.NullString) {
	switch {
	case c.row == nil:
		return id
	case c.row.Source == sourceStripe && c.grant.Force:
		return text(c.row.ID)
	case c.old.running:
		return c.row.GrantedOver
	}
	return id
}
