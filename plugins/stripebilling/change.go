package stripebilling

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// PreviewPlan implements billing.Changes.
func (c *client) PreviewPlan(ctx context.Context, ch billing.PlanChange) (billing.Preview, error) {
	sub := &ch.Subscription
	if ch.AtPeriodEnd {
		return billing.Preview{EffectiveAt: sub.PeriodEnd}, nil
	}
	price, err := c.priceID(ctx, ch.Price)
	if err != nil {
		return billing.Preview{}, err
	}
	item := &stripe.InvoiceCreatePreviewSubscriptionDetailsItemParams{
		ID: stripe.String(sub.Item), Price: stripe.String(price), Quantity: stripe.Int64(quantity(ch)),
	}
	in, err := c.api.V1Invoices.CreatePreview(ctx, &stripe.InvoiceCreatePreviewParams{
		Customer: stripe.String(sub.Customer), Subscription: stripe.String(sub.ID),
		SubscriptionDetails: &stripe.InvoiceCreatePreviewSubscriptionDetailsParams{
			Items:             []*stripe.InvoiceCreatePreviewSubscriptionDetailsItemParams{item},
			ProrationBehavior: stripe.String("always_invoice"),
		},
	})
	if err != nil {
		return billing.Preview{}, fmt.Errorf("previewing a change of plan: %w", translate(err))
	}
	out := billing.Preview{AmountDue: in.AmountDue, Currency: string(in.Currency), EffectiveAt: time.Time{}}
	if in.Lines == nil {
		return out, nil
	}
	for _, l := range in.Lines.Data {
		line := billing.PreviewLine{Description: l.Description, Amount: l.Amount}
		if p := l.Parent; p != nil {
			line.Proration = p.SubscriptionItemDetails != nil && p.SubscriptionItemDetails.Proration ||
				p.InvoiceItemDetails != nil && p.InvoiceItemDetails.Proration
		}
		out.Lines = append(out.Lines, line)
	}
	return out, nil
}

// ChangePlan implements billing.Changes.
func (c *client) ChangePlan(ctx context.Context, ch billing.PlanChange) error {
	price, err := c.priceID(ctx, ch.Price)
	if err != nil {
		return err
	}
	if ch.AtPeriodEnd {
		return c.schedulePrice(ctx, ch, price)
	}
	if err := c.release(ctx, &ch.Subscription); err != nil {
		return err
	}
	p := &stripe.SubscriptionUpdateParams{
		Items: []*stripe.SubscriptionUpdateItemParams{{
			ID: stripe.String(ch.Subscription.Item), Price: stripe.String(price), Quantity: stripe.Int64(quantity(ch)),
		}},
		// The difference is paid at once, or nothing changes.
		ProrationBehavior: stripe.String("always_invoice"), PaymentBehavior: stripe.String("error_if_incomplete"),
	}
	key(&p.Params, ch.Key)
	if _, err := c.api.V1Subscriptions.Update(ctx, ch.Subscription.ID, p); err != nil {
		return fmt.Errorf("changing the plan: %w", translate(err))
	}
	if ch.Subscription.CancelAtPeriodEnd || !ch.Subscription.CancelAt.IsZero() {
		return c.keepGoing(ctx, ch.Subscription.ID)
	}
	return nil
}

// schedulePrice has the price change when the period ends. What is paid for stays
// until then, with its own price, so that no proration arises.
func (c *client) schedulePrice(ctx context.Context, ch billing.PlanChange, price string) error {
	sub := &ch.Subscription
	if sub.CancelAtPeriodEnd || !sub.CancelAt.IsZero() {
		if err := c.keepGoing(ctx, sub.ID); err != nil { // a schedule takes no cancellation with it
			return err
		}
	}
	schedule := sub.Schedule
	if schedule == "" {
		p := &stripe.SubscriptionScheduleCreateParams{FromSubscription: stripe.String(sub.ID)}
		key(&p.Params, ch.Key)
		created, err := c.api.V1SubscriptionSchedules.Create(ctx, p)
		if err != nil {
			return fmt.Errorf("scheduling a change of plan: %w", translate(err))
		}
		schedule = created.ID
	}
	phase := func(price string, quantity int64) *stripe.SubscriptionScheduleUpdatePhaseParams {
		return &stripe.SubscriptionScheduleUpdatePhaseParams{
			ProrationBehavior: stripe.String("none"),
			Items: []*stripe.SubscriptionScheduleUpdatePhaseItemParams{{
				Price: stripe.String(price), Quantity: stripe.Int64(quantity),
			}},
		}
	}
	now, next := phase(sub.PriceID, max(sub.Quantity, 1)), phase(price, quantity(ch))
	now.StartDate, now.EndDate = stripe.Int64(sub.PeriodStart.Unix()), stripe.Int64(sub.PeriodEnd.Unix())
	if sub.Status == string(stripe.SubscriptionStatusTrialing) {
		now.TrialEnd = stripe.Int64(sub.TrialEnd.Unix())
	}
	next.StartDate = stripe.Int64(sub.PeriodEnd.Unix())
	_, err := c.api.V1SubscriptionSchedules.Update(ctx, schedule, &stripe.SubscriptionScheduleUpdateParams{
		EndBehavior: stripe.String("release"), ProrationBehavior: stripe.String("none"),
		Phases: []*stripe.SubscriptionScheduleUpdatePhaseParams{now, next},
	})
	if err != nil {
		return fmt.Errorf("scheduling a change of plan: %w", translate(err))
	}
	return nil
}

// End implements billing.Changes.
func (c *client) End(ctx context.Context, e billing.Ending) error {
	sub := &e.Subscription
	if e.When == billing.AtOnce {
		p := &stripe.SubscriptionCancelParams{}
		key(&p.Params, e.Key)
		if _, err := c.api.V1Subscriptions.Cancel(ctx, sub.ID, p); err != nil {
			return fmt.Errorf("cancelling: %w", translate(err))
		}
		return nil
	}
	if err := c.release(ctx, sub); err != nil { // a schedule would refuse both
		return err
	}
	if e.When == billing.Never {
		if !sub.CancelAtPeriodEnd && sub.CancelAt.IsZero() {
			return nil
		}
		return c.keepGoing(ctx, sub.ID)
	}
	p := &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: stripe.Bool(true)}
	key(&p.Params, e.Key)
	if _, err := c.api.V1Subscriptions.Update(ctx, sub.ID, p); err != nil {
		return fmt.Errorf("cancelling at the period's end: %w", translate(err))
	}
	return nil
}

// keepGoing takes a cancellation back.
func (c *client) keepGoing(ctx context.Context, id string) error {
	p := &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: stripe.Bool(false)}
	if _, err := c.api.V1Subscriptions.Update(ctx, id, p); err != nil {
		return fmt.Errorf("taking a cancellation back: %w", translate(err))
	}
	return nil
}

// release drops the change that a schedule holds; the subscription stays.
func (c *client) release(ctx context.Context, sub *billing.Subscription) error {
	if sub.Schedule == "" {
		return nil
	}
	if _, err := c.api.V1SubscriptionSchedules.Release(ctx, sub.Schedule, nil); err != nil {
		return fmt.Errorf("dropping a change that was pending: %w", translate(err))
	}
	return nil
}

// quantity is how many are bought after the change.
func quantity(ch billing.PlanChange) int64 {
	if ch.Quantity > 0 {
		return ch.Quantity
	}
	return max(ch.Subscription.Quantity, 1)
}

// Interface guard.
var _ billing.Provider = (*client)(nil)
