package stripefake_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

func (w *world) session(with ...func(*stripe.CheckoutSessionCreateParams)) *stripe.CheckoutSession {
	w.Helper()
	p := &stripe.CheckoutSessionCreateParams{
		Mode: stripe.String("subscription"), SuccessURL: stripe.String("https://app.example/done?id={CHECKOUT_SESSION_ID}"),
		CancelURL: stripe.String("https://app.example/pricing"), ClientReferenceID: stripe.String("user:1"),
		LineItems:        []*stripe.CheckoutSessionCreateLineItemParams{{Price: &w.prices["pro_monthly"].ID, Quantity: stripe.Int64(1)}},
		SubscriptionData: &stripe.CheckoutSessionCreateSubscriptionDataParams{Metadata: map[string]string{"account": "user:1"}},
		Metadata:         map[string]string{"account": "user:1"},
	}
	for _, f := range with {
		f(p)
	}
	return must(w.client.V1CheckoutSessions.Create(w.Context(), p))(w)
}

func TestCheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripefake.Options) { o.BaseURL = "http://pay.example" })
	c := w.customer("")
	s := w.session(func(p *stripe.CheckoutSessionCreateParams) { p.Customer = &c.ID })
	if s.Status != "open" || s.URL != "http://pay.example/pay/"+s.ID || s.ExpiresAt != unix(start.Add(day)) || s.AmountTotal != 1999 {
		t.Fatalf("session %+v", s)
	}
	w.told()
	var refused *stripefake.Declined
	if _, err := w.fake.Pay(s.ID, "4000000000009995"); !errors.As(err, &refused) || refused.DeclineCode != "insufficient_funds" {
		t.Fatalf("declined: %v", err)
	}
	if got := w.told(); !cmp.Equal(got, []string{"charge.failed", "payment_intent.payment_failed"}) {
		t.Errorf("declined: %v", got)
	}
	for _, number := range []string{"4111111111111111", ""} {
		if _, err := w.fake.Pay(s.ID, number); !errors.As(err, &refused) {
			t.Errorf("card %q: %v", number, err)
		}
	}
	next, err := w.fake.Pay(s.ID, "4242 4242 4242 4242")
	if err != nil || next != "https://app.example/done?id="+s.ID {
		t.Fatalf("paid: %q, %v", next, err)
	}
	types := w.told()
	if types[0] != "payment_method.attached" || types[1] != "customer.subscription.created" || types[len(types)-1] != "checkout.session.completed" {
		t.Errorf("told %v", types)
	}
	s = must(w.client.V1CheckoutSessions.Retrieve(t.Context(), s.ID, &stripe.CheckoutSessionRetrieveParams{
		Expand: stripe.StringSlice([]string{"subscription.latest_invoice.payments", "line_items", "customer"}),
	}))(t)
	if s.Status != "complete" || s.PaymentStatus != "paid" || s.URL != "" || s.Subscription.Status != stripe.SubscriptionStatusActive ||
		s.Subscription.Metadata["account"] != "user:1" || s.LineItems.Data[0].Price.LookupKey != "pro_monthly" || s.Customer.Email != "a@example.com" {
		t.Errorf("completed %+v", s)
	}
	if p := s.Subscription.LatestInvoice.Payments.Data[0].Payment.PaymentIntent; p == nil || p.ID == "" {
		t.Error("the invoice has no payment")
	}
	if _, err := w.fake.Pay(s.ID, "pm_card_visa"); err == nil || errors.As(err, &refused) {
		t.Errorf("paid twice: %v", err)
	}
	if _, err := w.fake.Pay("cs_test_x", "pm_card_visa"); err == nil {
		t.Error("paid what is not there")
	}
}

func TestCheckoutOfATrial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.session(func(p *stripe.CheckoutSessionCreateParams) {
		p.CustomerEmail = stripe.String("b@example.com")
		p.SubscriptionData.TrialPeriodDays = stripe.Int64(14)
	})
	if s.AmountTotal != 0 {
		t.Errorf("due now: %d", s.AmountTotal)
	}
	if _, err := w.fake.Pay(s.ID, ""); err == nil {
		t.Error("no card was asked for")
	}
	if _, err := w.fake.Pay(s.ID, "4000000000000002"); err == nil {
		t.Error("a card that is refused at once was taken")
	}
	if _, err := w.fake.Pay(s.ID, "4000000000000341"); err != nil {
		t.Fatal(err)
	}
	s = must(w.client.V1CheckoutSessions.Retrieve(t.Context(), s.ID, nil))(t)
	if s.PaymentStatus != "no_payment_required" || s.CustomerDetails.Email != "b@example.com" {
		t.Errorf("completed %+v", s)
	}
	w.want(s.Subscription.ID, stripe.SubscriptionStatusTrialing)
	w.advance(14*day + time.Hour)
	w.want(s.Subscription.ID, stripe.SubscriptionStatusPastDue)

	free := w.session(func(p *stripe.CheckoutSessionCreateParams) {
		p.SubscriptionData.TrialPeriodDays = stripe.Int64(14)
		p.PaymentMethodCollection = stripe.String("if_required")
	})
	if _, err := w.fake.Pay(free.ID, ""); err != nil {
		t.Errorf("a trial that asks for no card: %v", err)
	}
}

func TestCheckoutExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.session(func(p *stripe.CheckoutSessionCreateParams) {
		p.ExpiresAt = stripe.Int64(unix(start.Add(30 * time.Minute)))
	})
	second := w.session()
	w.told()
	w.advance(30 * time.Minute)
	if got := w.told(); !cmp.Equal(got, []string{"checkout.session.expired"}) {
		t.Errorf("told %v", got)
	}
	if s := must(w.client.V1CheckoutSessions.Retrieve(t.Context(), first.ID, nil))(t); s.Status != "expired" || s.URL != "" {
		t.Errorf("first %+v", s)
	}
	if _, err := w.fake.Pay(first.ID, "pm_card_visa"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("paid after its time: %v", err)
	}
	if s := must(w.client.V1CheckoutSessions.Expire(t.Context(), second.ID, nil))(t); s.Status != "expired" {
		t.Errorf("second %+v", s)
	}
	_, err := w.client.V1CheckoutSessions.Expire(t.Context(), second.ID, nil)
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "")
	_, err = w.client.V1CheckoutSessions.Create(t.Context(), &stripe.CheckoutSessionCreateParams{
		Mode: stripe.String("subscription"), SuccessURL: stripe.String("x"), ExpiresAt: stripe.Int64(unix(start.Add(48 * time.Hour))),
		LineItems: []*stripe.CheckoutSessionCreateLineItemParams{{Price: &w.prices["pro_monthly"].ID}},
	})
	if e := refused(t, err, 400, stripe.ErrorTypeInvalidRequest, ""); e.Param != "expires_at" {
		t.Errorf("parameter %q", e.Param)
	}
}

func TestPortalSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *stripefake.Options) { o.BaseURL = "/fake" })
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	p := must(w.client.V1BillingPortalSessions.Create(t.Context(), &stripe.BillingPortalSessionCreateParams{
		Customer: &c.ID, ReturnURL: stripe.String("https://app.example/account"),
		FlowData: &stripe.BillingPortalSessionCreateFlowDataParams{
			Type:               stripe.String("subscription_cancel"),
			SubscriptionCancel: &stripe.BillingPortalSessionCreateFlowDataSubscriptionCancelParams{Subscription: &s.ID},
		},
	}))(t)
	if !strings.HasPrefix(p.URL, "/fake/portal/") || p.Flow.SubscriptionCancel.Subscription != s.ID {
		t.Errorf("portal %+v", p)
	}
	_, err := w.client.V1BillingPortalSessions.Create(t.Context(), &stripe.BillingPortalSessionCreateParams{Customer: stripe.String("cus_x")})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)
}
