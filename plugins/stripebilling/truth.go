package stripebilling

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// Subscriptions implements billing.Truth.
func (c *client) Subscriptions(ctx context.Context, customer string) ([]billing.Subscription, error) {
	p := c.subscriptionList()
	p.Customer = stripe.String(customer)
	var found []*stripe.Subscription
	err := all(ctx, c.api.V1Subscriptions.List(ctx, p), func(s *stripe.Subscription) error {
		found = append(found, s)
		return nil
	})
	if err == nil && len(found) == 0 || errors.Is(err, billing.ErrNotFound) {
		// Nothing of somebody who is not there must not pass for nothing bought: the
		// key may be another account's.
		return nil, c.known(ctx, customer)
	}
	if err != nil {
		return nil, err
	}
	subs := make([]billing.Subscription, len(found))
	for i, s := range found {
		if subs[i], err = c.subscription(ctx, s); err != nil {
			return nil, err
		}
	}
	return subs, nil
}

// known answers nil for a customer that the account has, or has had and deleted:
// with it ended all that it had.
func (c *client) known(ctx context.Context, customer string) error {
	_, err := c.CustomerDeleted(ctx, customer)
	return err
}

// AllSubscriptions implements billing.Truth.
func (c *client) AllSubscriptions(ctx context.Context, each func(billing.Subscription) error) error {
	return all(ctx, c.api.V1Subscriptions.List(ctx, c.subscriptionList()), func(s *stripe.Subscription) error {
		sub, err := c.subscription(ctx, s)
		if err != nil {
			return err
		}
		return each(sub)
	})
}

// read is one subscription.
func (c *client) read(ctx context.Context, id string) (billing.Subscription, error) {
	s, err := c.api.V1Subscriptions.Retrieve(ctx, id, &stripe.SubscriptionRetrieveParams{Expand: []*string{stripe.String("schedule")}})
	if err != nil {
		return billing.Subscription{}, fmt.Errorf("reading the subscription: %w", translate(err))
	}
	return c.subscription(ctx, s)
}

func (c *client) subscriptionList() *stripe.SubscriptionListParams {
	p := &stripe.SubscriptionListParams{Status: stripe.String("all"), Expand: []*string{stripe.String("data.schedule")}}
	p.Limit = stripe.Int64(pageSize)
	return p
}

// subscription is one in the words of billing. Periods are the items' since API
// version basil.
func (c *client) subscription(ctx context.Context, s *stripe.Subscription) (billing.Subscription, error) {
	out := billing.Subscription{
		ID: s.ID, Status: string(s.Status), Livemode: s.Livemode, StartedAt: moment(s.StartDate), Anchor: moment(s.BillingCycleAnchor),
		TrialEnd: moment(s.TrialEnd), CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: moment(s.CancelAt),
		CancelledAt: moment(s.CanceledAt), EndedAt: moment(s.EndedAt), Currency: string(s.Currency),
	}
	if s.Customer != nil {
		out.Customer = s.Customer.ID
	}
	var err error
	if out.Items, err = c.items(ctx, s); err != nil {
		return out, err
	}
	if len(out.Items) == 0 {
		return out, fmt.Errorf("%w: subscription %s has no item", billing.ErrRefused, s.ID)
	}
	out.Item = out.Items[0]
	return out, c.pending(ctx, s.Schedule, &out)
}

// items are the subscription's, also those beyond the few that come with it.
func (c *client) items(ctx context.Context, s *stripe.Subscription) ([]billing.Item, error) {
	if s.Items == nil {
		return nil, nil
	}
	var items []billing.Item
	add := func(i *stripe.SubscriptionItem) error {
		if i.Price == nil {
			return fmt.Errorf("%w: item %s has no price", billing.ErrRefused, i.ID)
		}
		item := billing.Item{
			ItemID: i.ID, PriceID: i.Price.ID, LookupKey: i.Price.LookupKey, Quantity: i.Quantity,
			PeriodStart: moment(i.CurrentPeriodStart), PeriodEnd: moment(i.CurrentPeriodEnd),
		}
		if i.Price.Recurring != nil {
			item.Interval = string(i.Price.Recurring.Interval)
		}
		items = append(items, item)
		return nil
	}
	if s.Items.HasMore {
		p := &stripe.SubscriptionItemListParams{Subscription: stripe.String(s.ID)}
		p.Limit = stripe.Int64(pageSize)
		return items, all(ctx, c.api.V1SubscriptionItems.List(ctx, p), add)
	}
	for _, i := range s.Items.Data {
		if err := add(i); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// pending reads the change that a schedule holds: what its phase after the present
// one has, and the price of it that the subscription has not.
func (c *client) pending(ctx context.Context, sc *stripe.SubscriptionSchedule, out *billing.Subscription) error {
	if sc == nil {
		return nil
	}
	out.Schedule = sc.ID
	for _, phase := range sc.Phases {
		if moment(phase.StartDate).Before(out.PeriodEnd) {
			continue
		}
		for _, i := range phase.Items {
			if i.Price != nil {
				out.PendingItems = append(out.PendingItems, billing.Item{PriceID: i.Price.ID, Quantity: i.Quantity})
			}
		}
		i := slices.IndexFunc(out.PendingItems, func(i billing.Item) bool {
			return !slices.ContainsFunc(out.Items, func(x billing.Item) bool { return x.PriceID == i.PriceID })
		})
		if i < 0 {
			return nil // of the same prices, in other quantities
		}
		out.PendingPriceID, out.PendingAt = out.PendingItems[i].PriceID, moment(phase.StartDate)
		// A price within a phase is an id: its lookup key is too deep to be expanded.
		found, err := c.api.V1Prices.Retrieve(ctx, out.PendingPriceID, nil)
		switch err = translate(err); {
		case errors.Is(err, billing.ErrNotFound):
			return nil // its id may yet be known
		case err != nil:
			return fmt.Errorf("reading the price that is pending: %w", err)
		}
		out.PendingLookupKey = found.LookupKey
		return nil
	}
	return nil
}

// Invoices implements billing.Truth.
func (c *client) Invoices(ctx context.Context, customer string) ([]billing.Invoice, error) {
	p := &stripe.InvoiceListParams{Customer: stripe.String(customer)}
	p.Limit = stripe.Int64(pageSize)
	var invoices []billing.Invoice
	err := all(ctx, c.api.V1Invoices.List(ctx, p), func(in *stripe.Invoice) error {
		if in.Status != stripe.InvoiceStatusDraft {
			invoices = append(invoices, invoiceOf(in))
		}
		return nil
	})
	if errors.Is(err, billing.ErrNotFound) {
		return nil, c.known(ctx, customer)
	}
	return invoices, err
}

func invoiceOf(in *stripe.Invoice) billing.Invoice {
	out := billing.Invoice{
		ID: in.ID, Number: in.Number, Status: string(in.Status), Currency: string(in.Currency),
		AmountDue: in.AmountDue, AmountPaid: in.AmountPaid, AmountRemaining: in.AmountRemaining, Attempts: in.AttemptCount,
		PeriodStart: moment(in.PeriodStart), PeriodEnd: moment(in.PeriodEnd), CreatedAt: moment(in.Created),
		HostedURL: in.HostedInvoiceURL, PDFURL: in.InvoicePDF,
	}
	if in.Customer != nil {
		out.Customer = in.Customer.ID
	}
	if t := in.StatusTransitions; t != nil {
		out.FinalizedAt, out.PaidAt = moment(t.FinalizedAt), moment(t.PaidAt)
	}
	if p := in.Parent; p != nil && p.SubscriptionDetails != nil && p.SubscriptionDetails.Subscription != nil {
		out.Subscription = p.SubscriptionDetails.Subscription.ID
	}
	return out
}
