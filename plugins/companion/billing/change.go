package billing

import (
	"context"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// paid is the account's subscription that goes on, as the provider has it: the
// one that gives the plan, else any. It is read first, so that nobody acts on
// what has changed meanwhile.
func (d *desk) paid(ctx context.Context, st *store.Companion, account quota.Subject) (*Subscription, error) {
	customer, err := d.customerOf(ctx, st, account)
	if err != nil {
		return nil, err
	}
	subs, err := d.syncNow(ctx, customer, "change")
	if err != nil {
		return nil, err
	}
	current, err := st.CurrentSubscription(ctx, account)
	if err != nil {
		return nil, err
	}
	found := goesOn(subs)
	if found == nil {
		return nil, errNothingPaid
	}
	for i := range subs {
		if current != nil && subs[i].ID == current.StripeSubscriptionID && store.GoesOn(subs[i].Status) {
			return &subs[i], nil
		}
	}
	return found, nil
}

// planChange says what a change would be: at once if more is bought, at the
// period's end if less.
func (d *desk) planChange(ctx context.Context, st *store.Companion, account quota.Subject, o order) (*PlanChange, error) {
	sub, err := d.paid(ctx, st, account)
	if err != nil {
		return nil, err
	}
	planOf, err := st.PlanOfPrice(ctx, d.plansByPrice())
	if err != nil {
		return nil, err
	}
	now := planOf(sub.PriceID, sub.LookupKey)
	if o.interval == "" {
		o.interval = "month"
		if sub.Interval == "year" {
			o.interval = "year"
		}
	}
	of, err := d.offer(ctx, st, o)
	if err != nil {
		return nil, err
	}
	ch := &PlanChange{Subscription: *sub, Price: of.price, Quantity: o.quantity}
	if !of.perSeat {
		ch.Quantity = 1 // the seats of the plan before are not paid for as so many plans
	}
	switch {
	case of.plan.Name != now.Name:
		ch.AtPeriodEnd = of.plan.Tier < now.Tier
	case o.interval != sub.Interval:
		ch.AtPeriodEnd = o.interval == "month"
	case o.quantity == 0 || o.quantity == sub.Quantity:
		return nil, errSamePlan // what is pending is taken back by resume
	default:
		ch.AtPeriodEnd = o.quantity < sub.Quantity
	}
	return ch, nil
}

// preview says what a change would cost, and from when it would hold.
func (d *desk) preview(ctx context.Context, st *store.Companion, account quota.Subject, o order) (Preview, error) {
	ch, err := d.planChange(ctx, st, account, o)
	if err != nil {
		return Preview{}, err
	}
	p, err := d.provider.PreviewPlan(ctx, *ch)
	if err == nil && p.EffectiveAt.IsZero() {
		p.EffectiveAt = d.now().UTC().Truncate(time.Second)
	}
	return p, err
}

// changeTimeout bounds a change, whether or not its client waits for it.
const changeTimeout = 2 * time.Minute

// toTheEnd is for what takes several requests to the provider: a client that
// leaves must not have half of it done.
func toTheEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
}

// change carries a change of plan out, and reads what came of it.
func (d *desk) change(ctx context.Context, st *store.Companion, account quota.Subject, o order) error {
	ctx, cancel := toTheEnd(ctx)
	defer cancel()
	ch, err := d.planChange(ctx, st, account, o)
	if err != nil {
		return err
	}
	if err := d.provider.ChangePlan(ctx, *ch); err != nil {
		return err
	}
	d.readBack(ctx, ch.Subscription.Customer, "change")
	return nil
}

// readBack reads what came of what the provider has just done. That was done, and
// perhaps paid for, also if it cannot be read now: the worker, or the provider's own
// word, then has it known a little later.
func (d *desk) readBack(ctx context.Context, customer, reason string) {
	if _, err := d.syncNow(ctx, customer, reason); err != nil {
		d.log.Warn("what the payment provider has done could not be read yet", zap.String("customer", customer), zap.Error(err))
	}
}

// end cancels or resumes, and reads what came of it.
func (d *desk) end(ctx context.Context, st *store.Companion, account quota.Subject, when When) error {
	ctx, cancel := toTheEnd(ctx)
	defer cancel()
	sub, err := d.paid(ctx, st, account)
	if err != nil {
		return err
	}
	if err := d.provider.End(ctx, Ending{Subscription: *sub, When: when}); err != nil {
		return err
	}
	d.readBack(ctx, sub.Customer, "cancel or resume")
	return nil
}
