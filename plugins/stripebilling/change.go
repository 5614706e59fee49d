package stripebilling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// PreviewPlan implements billing.Changes.
func (c *client) PreviewPlan(ctx context.Context, ch billing.PlanChange) (billing.Preview, error) {
	sub := &ch.Subscription
	if ch.AtPeriodEnd {
		return billing.Preview{EffectiveAt: sub.PeriodEnd, Currency: sub.Currency}, nil
	}
	price, err := c.priceID(ctx, ch.Price)
	if err != nil {
		return billing.Preview{}, err
	}
	item := &stripe.InvoiceCreatePreviewSubscriptionDetailsItemParams{
		ID: stripe.String(sub.ItemID), Price: stripe.String(price), Quantity: stripe.Int64(quantity(ch)),
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
	out := billing.Preview{AmountDue: in.AmountDue, Currency: string(in.Currency)}
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
		return c.scheduleItems(ctx, &ch.Subscription, changed(ch, price), ch.Key)
	}
	sub := &ch.Subscription
	if err := c.release(ctx, sub); err != nil {
		return err
	}
	p := &stripe.SubscriptionUpdateParams{
		Items: []*stripe.SubscriptionUpdateItemParams{{
			ID: stripe.String(sub.ItemID), Price: stripe.String(price), Quantity: stripe.Int64(quantity(ch)),
		}},
		// The difference is paid at once, or nothing changes.
		ProrationBehavior: stripe.String("always_invoice"), PaymentBehavior: stripe.String("error_if_incomplete"),
	}
	if ends(sub) {
		p.CancelAtPeriodEnd = stripe.Bool(false) // who buys more goes on
	}
	key(&p.Params, ch.Key)
	if _, err := c.api.V1Subscriptions.Update(ctx, sub.ID, p); err != nil {
		return c.settle(ctx, sub, fmt.Errorf("changing the plan: %w", translate(err)), func(now *billing.Subscription) bool {
			return slices.ContainsFunc(now.Items, func(i billing.Item) bool {
				return i.ItemID == sub.ItemID && i.PriceID == price && i.Quantity == quantity(ch)
			})
		})
	}
	return nil
}

// settle says what came of a request that has failed. Its answer may be all that
// was lost, so the subscription is read again: what was done, and may have been
// paid, stays. Else the change waits again that was released for it. Where nothing
// can be read, nothing is put back over what may have been bought.
func (c *client) settle(ctx context.Context, was *billing.Subscription, err error, done func(now *billing.Subscription) bool) error {
	now, failed := c.read(ctx, was.ID)
	switch {
	case failed != nil:
		return errors.Join(err, failed)
	case done(&now):
		return nil
	case len(was.PendingItems) == 0:
		return err
	}
	return errors.Join(err, c.scheduleItems(ctx, &now, was.PendingItems, ""))
}

// scheduleItems has the subscription's items change when the period ends.
func (c *client) scheduleItems(ctx context.Context, sub *billing.Subscription, next []billing.Item, k string) error {
	if !ends(sub) {
		return c.putSchedule(ctx, sub, next, k)
	}
	if err := c.keepGoing(ctx, sub.ID); err != nil { // a schedule takes no cancellation with it
		return err
	}
	if err := c.putSchedule(ctx, sub, next, k); err != nil {
		// Nobody is to go on paying because a smaller plan could not be had.
		return errors.Join(err, c.endLater(ctx, sub, ""))
	}
	return nil
}

// putSchedule writes the phases: what is paid for stays until the period's end,
// with its own price, so that no proration arises.
func (c *client) putSchedule(ctx context.Context, sub *billing.Subscription, items []billing.Item, k string) error {
	schedule := sub.Schedule
	if schedule == "" {
		p := &stripe.SubscriptionScheduleCreateParams{FromSubscription: stripe.String(sub.ID)}
		key(&p.Params, k)
		created, err := c.api.V1SubscriptionSchedules.Create(ctx, p)
		if err != nil {
			return fmt.Errorf("scheduling a change of plan: %w", translate(err))
		}
		schedule = created.ID
	}
	now, next := phaseOf(sub.Items), phaseOf(items)
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

// phaseOf is a time in which the subscription has the items.
func phaseOf(items []billing.Item) *stripe.SubscriptionScheduleUpdatePhaseParams {
	p := &stripe.SubscriptionScheduleUpdatePhaseParams{ProrationBehavior: stripe.String("none")}
	for _, i := range items {
		p.Items = append(p.Items, &stripe.SubscriptionScheduleUpdatePhaseItemParams{
			Price: stripe.String(i.PriceID), Quantity: stripe.Int64(max(i.Quantity, 1)),
		})
	}
	return p
}

// changed are the subscription's items with its plan at that price, and whatever
// else it has.
func changed(ch billing.PlanChange, price string) []billing.Item {
	items := slices.Clone(ch.Subscription.Items)
	for k := range items {
		if items[k].ItemID == ch.Subscription.ItemID {
			items[k].PriceID, items[k].Quantity = price, quantity(ch)
		}
	}
	return items
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
		if !ends(sub) {
			return nil
		}
		return c.keepGoing(ctx, sub.ID)
	}
	later := *sub
	later.CancelAt = time.Time{}
	if err := c.endLater(ctx, &later, e.Key); err != nil {
		return c.settle(ctx, sub, err, ends)
	}
	return nil
}

// ends reports whether a cancellation is pending.
func ends(sub *billing.Subscription) bool { return sub.CancelAtPeriodEnd || !sub.CancelAt.IsZero() }

// endLater cancels at the moment that the subscription names, else when its period ends.
func (c *client) endLater(ctx context.Context, sub *billing.Subscription, k string) error {
	p := &stripe.SubscriptionUpdateParams{}
	if sub.CancelAt.IsZero() || sub.CancelAtPeriodEnd {
		p.CancelAtPeriodEnd = stripe.Bool(true)
	} else {
		p.CancelAt = stripe.Int64(sub.CancelAt.Unix())
	}
	key(&p.Params, k)
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
