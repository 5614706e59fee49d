package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Subscription is an account's current subscription, judged at the moment it was
// read: Status is not always the stored word.
type Subscription struct {
	ID      string
	Account quota.Subject
	// PlanID and Plan (its name) are the subscription's own plan, also when it no
	// longer gives it; empty where its price maps to no plan.
	PlanID, Plan string
	Source       string // "stripe", "manual" or "trial"
	Status       quota.Status
	StripeStatus string // Stripe's own word
	// Running: the account has this plan, rather than the default one.
	Running  bool
	Quantity int64

	StartedAt          time.Time
	ExpiresAt          time.Time // when it ends, or ended, by itself; zero: never
	CurrentPeriodStart time.Time
	CurrentPeriodEnd   time.Time
	CancelAtPeriodEnd  bool
	CancelledAt        time.Time
	TrialEnd           time.Time
	GraceUntil         time.Time // of a past-due one

	// PendingPlan (a name) takes effect at PendingAt.
	PendingPlan string
	PendingAt   time.Time

	StripeSubscriptionID string
	GrantedBy, Reason    string
	CreatedAt, UpdatedAt time.Time
}

// AccountState is what an account has, from one snapshot.
type AccountState struct {
	// Subscription is nil for an account that never had one.
	Subscription *Subscription
	// Plan is the plan in effect.
	Plan *Plan
	// Entitlement is the plan with the account's overrides.
	Entitlement *quota.Entitlement
}

// AccountState is the account's subscription, its plan in effect and what both
// entitle to.
func (s *Companion) AccountState(ctx context.Context, account quota.Subject) (*AccountState, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	var st *AccountState
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		st, err = s.accountState(ctx, q, account)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading account: %w", err)
	}
	return st, nil
}

func (s *Companion) accountState(ctx context.Context, q *sqlgen.Queries, account quota.Subject) (*AccountState, error) {
	v, err := s.view(ctx, q, account, s.now())
	if err != nil {
		return nil, err
	}
	prices, err := loadPrices(ctx, q)
	if err != nil {
		return nil, err
	}
	plan, err := v.catalogue.full(v.planRow, prices)
	if err != nil {
		return nil, err
	}
	return &AccountState{Subscription: v.subscription(account), Plan: plan, Entitlement: v.entitlement}, nil
}

// CurrentSubscription is the account's current subscription, nil if it never had one.
func (s *Companion) CurrentSubscription(ctx context.Context, account quota.Subject) (*Subscription, error) {
	st, err := s.AccountState(ctx, account)
	if err != nil {
		return nil, err
	}
	return st.Subscription, nil
}

// Plan is the account's plan in effect.
func (s *Companion) Plan(ctx context.Context, account quota.Subject) (*Plan, error) {
	st, err := s.AccountState(ctx, account)
	if err != nil {
		return nil, err
	}
	return st.Plan, nil
}

// HasFeature reports whether the account's plan has the feature switched on.
func (s *Companion) HasFeature(ctx context.Context, account quota.Subject, feature string) (bool, error) {
	e, err := s.Entitlement(ctx, account)
	if err != nil {
		return false, err
	}
	return e.HasFeature(feature), nil
}

// Multiplier is the rate limit multiplier of the account's plan, in hundredths.
func (s *Companion) Multiplier(ctx context.Context, account quota.Subject) (int64, error) {
	e, err := s.Entitlement(ctx, account)
	if err != nil {
		return 0, err
	}
	return e.Plan.MultiplierPct, nil
}

// subscription is the view's row in the words of the API; nil without one.
func (v *view) subscription(account quota.Subject) *Subscription {
	r, st := v.row, v.standing
	if r == nil {
		return nil
	}
	sub := &Subscription{
		ID: r.ID, Account: account, PlanID: r.PlanID.String, Plan: v.planName(r.PlanID.String), Source: r.Source,
		Status: st.status, StripeStatus: r.StripeStatus.String, Running: st.running, Quantity: r.Quantity,
		StartedAt: r.StartedAt.Time, ExpiresAt: st.expires, CurrentPeriodStart: r.CurrentPeriodStart.Time,
		CurrentPeriodEnd: r.CurrentPeriodEnd.Time, CancelAtPeriodEnd: r.CancelAtPeriodEnd, CancelledAt: r.CancelledAt.Time,
		TrialEnd: r.TrialEnd.Time, GraceUntil: st.graceUntil, StripeSubscriptionID: r.StripeSubscriptionID.String,
		GrantedBy: r.GrantedBy.String, Reason: r.GrantReason.String, CreatedAt: r.CreatedAt.Time, UpdatedAt: r.UpdatedAt.Time,
	}
	switch {
	case st.pendingDue:
		sub.PlanID, sub.Plan = r.PendingPlanID.String, v.planName(r.PendingPlanID.String)
		sub.CurrentPeriodStart, sub.CurrentPeriodEnd = r.PendingEffectiveAt.Time, r.PendingPeriodEnd.Time
	case r.PendingPlanID.Valid:
		sub.PendingPlan, sub.PendingAt = v.planName(r.PendingPlanID.String), r.PendingEffectiveAt.Time
	}
	return sub
}

func (v *view) planName(id string) string {
	if row := v.catalogue.byID(id); row != nil {
		return row.Name
	}
	return ""
}

// Grace is how long a past-due subscription keeps its plan.
func (s *Companion) Grace() time.Duration { return s.grace }
