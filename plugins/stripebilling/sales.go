package stripebilling

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// metadataAccount names our account in Stripe's dashboard. It is written and
// never read: nothing is granted for it.
const metadataAccount = "quotagate_account"

// CreateCustomer implements billing.Customers.
func (c *client) CreateCustomer(ctx context.Context, n billing.NewCustomer) (string, error) {
	p := &stripe.CustomerCreateParams{Metadata: map[string]string{metadataAccount: n.Account}}
	if n.Email != "" {
		p.Email = stripe.String(n.Email)
	}
	key(&p.Params, n.Key)
	customer, err := c.api.V1Customers.Create(ctx, p)
	if err != nil {
		return "", fmt.Errorf("creating a customer: %w", translate(err))
	}
	return customer.ID, nil
}

// CustomerDeleted implements billing.Customers.
func (c *client) CustomerDeleted(ctx context.Context, customer string) (bool, error) {
	found, err := c.api.V1Customers.Retrieve(ctx, customer, nil)
	if err != nil {
		return false, fmt.Errorf("looking for the customer: %w", translate(err))
	}
	return found.Deleted, nil
}

// CreateCheckout implements billing.Sales.
func (c *client) CreateCheckout(ctx context.Context, n billing.NewCheckout) (billing.Checkout, error) {
	price, err := c.priceID(ctx, n.Price)
	if err != nil {
		return billing.Checkout{}, err
	}
	metadata := map[string]string{metadataAccount: n.Account}
	data := &stripe.CheckoutSessionCreateSubscriptionDataParams{Metadata: metadata}
	if n.TrialDays > 0 {
		data.TrialPeriodDays = stripe.Int64(n.TrialDays)
	}
	p := &stripe.CheckoutSessionCreateParams{
		Mode: stripe.String("subscription"), Customer: stripe.String(n.Customer), ClientReferenceID: stripe.String(n.Account),
		LineItems:  []*stripe.CheckoutSessionCreateLineItemParams{{Price: stripe.String(price), Quantity: stripe.Int64(n.Quantity)}},
		SuccessURL: stripe.String(n.SuccessURL), CancelURL: stripe.String(n.CancelURL),
		Metadata: metadata, SubscriptionData: data,
	}
	key(&p.Params, n.Key)
	s, err := c.api.V1CheckoutSessions.Create(ctx, p)
	if err != nil {
		return billing.Checkout{}, fmt.Errorf("creating a checkout session: %w", translate(err))
	}
	return billing.Checkout{ID: s.ID, URL: s.URL, ExpiresAt: moment(s.ExpiresAt)}, nil
}

// CloseCheckout implements billing.Sales.
func (c *client) CloseCheckout(ctx context.Context, id string) error {
	if _, err := c.api.V1CheckoutSessions.Expire(ctx, id, nil); err != nil {
		return fmt.Errorf("expiring a checkout session: %w", translate(err))
	}
	return nil
}

// CreatePortal implements billing.Sales.
func (c *client) CreatePortal(ctx context.Context, customer, returnURL string) (string, error) {
	p := &stripe.BillingPortalSessionCreateParams{Customer: stripe.String(customer)}
	if returnURL != "" {
		p.ReturnURL = stripe.String(returnURL)
	}
	s, err := c.api.V1BillingPortalSessions.Create(ctx, p)
	if err != nil {
		return "", fmt.Errorf("creating a portal session: %w", translate(err))
	}
	return s.URL, nil
}

// priceID finds the price that sells now.
func (c *client) priceID(ctx context.Context, ref billing.Price) (string, error) {
	if ref.ID != "" {
		return ref.ID, nil
	}
	p := &stripe.PriceListParams{Active: stripe.Bool(true), LookupKeys: []*string{stripe.String(ref.LookupKey)}}
	p.Limit = stripe.Int64(1)
	for price, err := range c.api.V1Prices.List(ctx, p).All(ctx) {
		if err != nil {
			return "", fmt.Errorf("looking for the price %s: %w", ref.LookupKey, translate(err))
		}
		return price.ID, nil
	}
	return "", fmt.Errorf("%w: no active price has the lookup key %q", billing.ErrNotFound, ref.LookupKey)
}
