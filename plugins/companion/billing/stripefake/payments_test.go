package stripefake_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v86"
)

// chargeOf is the payment of a subscription's latest invoice.
func (w *world) chargeOf(s *stripe.Subscription) *stripe.Charge {
	w.Helper()
	for p, err := range w.client.V1InvoicePayments.List(w.Context(), &stripe.InvoicePaymentListParams{Invoice: &s.LatestInvoice.ID}).All(w.Context()) {
		if err != nil {
			w.Fatal(err)
		}
		i := must(w.client.V1PaymentIntents.Retrieve(w.Context(), p.Payment.PaymentIntent.ID, &stripe.PaymentIntentRetrieveParams{
			Expand: stripe.StringSlice([]string{"latest_charge"}),
		}))(w)
		return i.LatestCharge
	}
	w.Fatal("the invoice has no payment")
	return nil
}

func TestRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.subscribe(w.customer("pm_card_visa").ID, "pro_monthly")
	c := w.chargeOf(s)
	w.told()
	r := must(w.client.V1Refunds.Create(t.Context(), &stripe.RefundCreateParams{Charge: &c.ID, Amount: stripe.Int64(500)}))(t)
	if r.Status != "succeeded" || r.Amount != 500 {
		t.Errorf("refund %+v", r)
	}
	must(w.client.V1Refunds.Create(t.Context(), &stripe.RefundCreateParams{PaymentIntent: &c.PaymentIntent.ID}))(t)
	if got := w.told(); !cmp.Equal(got, []string{"refund.created", "charge.refunded", "refund.created", "charge.refunded"}) {
		t.Errorf("told %v", got)
	}
	c = must(w.client.V1Charges.Retrieve(t.Context(), c.ID, &stripe.ChargeRetrieveParams{Expand: stripe.StringSlice([]string{"refunds"})}))(t)
	if !c.Refunded || c.AmountRefunded != 1999 || len(c.Refunds.Data) != 2 {
		t.Errorf("charge %+v", c)
	}
	_, err := w.client.V1Refunds.Create(t.Context(), &stripe.RefundCreateParams{Charge: &c.ID})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeChargeAlreadyRefunded)
	w.want(s.ID, stripe.SubscriptionStatusActive) // money went back, the subscription goes on
}

func TestDispute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.subscribe(w.customer("pm_card_createDispute").ID, "pro_monthly")
	list := w.client.V1Disputes.List(t.Context(), &stripe.DisputeListParams{Charge: &w.chargeOf(s).ID}).Data()
	if len(list) != 1 || list[0].Status != "needs_response" || list[0].Amount != 1999 {
		t.Fatalf("disputes %+v", list)
	}
	w.told()
	if err := w.fake.CloseDispute(list[0].ID, true); err != nil {
		t.Fatal(err)
	}
	if got := w.told(); !cmp.Equal(got, []string{"charge.dispute.funds_reinstated", "charge.dispute.closed"}) {
		t.Errorf("told %v", got)
	}
	if err := w.fake.CloseDispute(list[0].ID, false); err == nil {
		t.Error("closed twice")
	}
	_, err := w.client.V1Refunds.Create(t.Context(), &stripe.RefundCreateParams{Charge: &list[0].Charge.ID})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "charge_disputed")

	other := w.subscribe(w.customer("pm_card_visa").ID, "pro_monthly")
	id, err := w.fake.OpenDispute(w.chargeOf(other).ID, "product_not_received")
	if err != nil {
		t.Fatal(err)
	}
	if d := must(w.client.V1Disputes.Close(t.Context(), id, nil))(t); d.Status != "lost" {
		t.Errorf("given in: %s", d.Status)
	}
	for _, id := range []string{"ch_x", w.chargeOf(other).ID} {
		if _, err := w.fake.OpenDispute(id, "fraudulent"); err == nil {
			t.Errorf("%s was disputed", id)
		}
	}
}

func TestCardsBehaveAsTheirNumbersSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("")
	attach := func(card string) error {
		_, err := w.client.V1PaymentMethods.Attach(t.Context(), card, &stripe.PaymentMethodAttachParams{Customer: &c.ID})
		return err
	}
	if e := refused(t, attach("pm_card_visa_chargeDeclinedInsufficientFunds"), 402, stripe.ErrorTypeCard, stripe.ErrorCodeCardDeclined); e.DeclineCode != "insufficient_funds" {
		t.Errorf("declined by %s", e.DeclineCode)
	}
	refused(t, attach("pm_card_chargeDeclinedExpiredCard"), 402, stripe.ErrorTypeCard, stripe.ErrorCodeExpiredCard)
	refused(t, attach("pm_none"), 404, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)
	if err := attach("pm_card_chargeCustomerFail"); err != nil {
		t.Error(err)
	}
	made := must(w.client.V1PaymentMethods.Create(t.Context(), &stripe.PaymentMethodCreateParams{
		Type: stripe.String("card"), Card: &stripe.PaymentMethodCreateCardParams{Token: stripe.String("tok_visa")},
	}))(t)
	if made.Card.Last4 != "4242" || made.Customer != nil {
		t.Errorf("made %+v", made)
	}
	if err := attach(made.ID); err != nil {
		t.Error(err)
	}
	if got := len(w.client.V1PaymentMethods.List(t.Context(), &stripe.PaymentMethodListParams{Customer: &c.ID}).Data()); got != 2 {
		t.Errorf("%d payment methods", got)
	}
	must(w.client.V1PaymentMethods.Detach(t.Context(), made.ID, nil))(t)
	_, err := w.client.V1PaymentMethods.Create(t.Context(), &stripe.PaymentMethodCreateParams{
		Type: stripe.String("card"), Card: &stripe.PaymentMethodCreateCardParams{Number: stripe.String("4111111111111111")},
	})
	refused(t, err, 402, stripe.ErrorTypeCard, stripe.ErrorCodeIncorrectNumber)
}

func TestDeletedCustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	if c, err := w.client.V1Customers.Delete(t.Context(), c.ID, nil); err != nil || !c.Deleted {
		t.Errorf("deleted: %v, %v", c, err)
	}
	w.want(s.ID, stripe.SubscriptionStatusCanceled)
	if c := must(w.client.V1Customers.Retrieve(t.Context(), c.ID, nil))(t); !c.Deleted {
		t.Errorf("read again: %+v", c)
	}
	_, err := w.client.V1Customers.Update(t.Context(), c.ID, nil)
	refused(t, err, 404, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)
	if n := w.customers(); n != 0 {
		t.Errorf("%d customers are listed", n)
	}
}

func TestLookupKeysMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := &stripe.PriceCreateParams{
		Currency: stripe.String("usd"), UnitAmount: stripe.Int64(2499), LookupKey: stripe.String("pro_monthly"),
		ProductData: &stripe.PriceCreateProductDataParams{Name: stripe.String("Pro 2")},
		Recurring:   &stripe.PriceCreateRecurringParams{Interval: stripe.String("month")},
	}
	_, err := w.client.V1Prices.Create(t.Context(), p)
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "")
	p.TransferLookupKey = stripe.Bool(true)
	moved := must(w.client.V1Prices.Create(t.Context(), p))(t)
	found := w.client.V1Prices.List(t.Context(), &stripe.PriceListParams{LookupKeys: stripe.StringSlice([]string{"pro_monthly"})}).Data()
	if len(found) != 1 || found[0].ID != moved.ID {
		t.Errorf("found %+v", found)
	}
	if old := must(w.client.V1Prices.Retrieve(t.Context(), w.prices["pro_monthly"].ID, nil))(t); old.LookupKey != "" {
		t.Errorf("the old price has %q", old.LookupKey)
	}
	must(w.client.V1Prices.Update(t.Context(), moved.ID, &stripe.PriceUpdateParams{Active: stripe.Bool(false)}))(t)
	c := w.customer("pm_card_visa")
	_, err = w.client.V1Subscriptions.Create(t.Context(), &stripe.SubscriptionCreateParams{
		Customer: &c.ID, Items: []*stripe.SubscriptionCreateItemParams{{Price: &moved.ID}},
	})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "")
}
