package stripefake_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

const day = 24 * time.Hour

func unix(t time.Time) int64 { return t.Unix() }

func TestRenewalsAreCountedFromTheAnchor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	if s.Status != stripe.SubscriptionStatusActive {
		t.Fatalf("status %s", s.Status)
	}
	ends := []time.Time{
		time.Date(2026, 2, 28, 10, 0, 0, 0, time.UTC), time.Date(2026, 3, 31, 10, 0, 0, 0, time.UTC),
		time.Date(2026, 4, 30, 10, 0, 0, 0, time.UTC), time.Date(2026, 5, 31, 10, 0, 0, 0, time.UTC),
	}
	for n, end := range ends {
		s = w.want(s.ID, stripe.SubscriptionStatusActive)
		if got := s.Items.Data[0].CurrentPeriodEnd; got != unix(end) {
			t.Fatalf("period %d ends %s, want %s", n, time.Unix(got, 0).UTC(), end)
		}
		w.told()
		w.advanceTo(end)
		if got := w.told(); !cmp.Equal(got, []string{"invoice.created", "customer.subscription.updated"}) {
			t.Fatalf("at the period's end: %v", got)
		}
		w.advance(time.Hour)
		want := []string{
			"payment_intent.created", "invoice.finalized", "charge.succeeded", "payment_intent.succeeded", "invoice_payment.paid",
			"invoice.paid", "invoice.payment_succeeded",
		}
		if got := w.told(); !cmp.Equal(got, want) {
			t.Fatalf("an hour later: %v", got)
		}
	}
	var reasons []string
	list := w.client.V1Invoices.List(t.Context(), &stripe.InvoiceListParams{Subscription: &s.ID})
	for i, err := range list.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if i.Status != stripe.InvoiceStatusPaid || i.AmountPaid != 1999 || i.Parent.SubscriptionDetails.Subscription.ID != s.ID {
			t.Errorf("invoice %+v", i)
		}
		reasons = append(reasons, string(i.BillingReason))
	}
	if want := []string{"subscription_cycle", "subscription_cycle", "subscription_cycle", "subscription_cycle", "subscription_create"}; !cmp.Equal(reasons, want) {
		t.Errorf("invoices %v", reasons)
	}
}

func TestTrialIsAnnouncedAndBecomesActive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly", func(p *stripe.SubscriptionCreateParams) { p.TrialPeriodDays = stripe.Int64(14) })
	end := start.Add(14 * day)
	if s.Status != stripe.SubscriptionStatusTrialing || s.TrialEnd != unix(end) || s.Items.Data[0].CurrentPeriodEnd != unix(end) {
		t.Fatalf("%s until %d", s.Status, s.TrialEnd)
	}
	w.told()
	w.advanceTo(end.Add(-3*day - time.Second))
	if got := w.told(); got != nil {
		t.Fatalf("told too early: %v", got)
	}
	w.advance(time.Second)
	if got := w.told(); !cmp.Equal(got, []string{"customer.subscription.trial_will_end"}) {
		t.Fatalf("three days before: %v", got)
	}
	w.advanceTo(end.Add(time.Hour))
	s = w.want(s.ID, stripe.SubscriptionStatusActive)
	if got, want := s.Items.Data[0].CurrentPeriodEnd, unix(time.Date(2026, 3, 14, 10, 0, 0, 0, time.UTC)); got != want {
		t.Errorf("the paid period ends %d, want %d", got, want)
	}
	if i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t); i.AmountPaid != 1999 {
		t.Errorf("paid %d", i.AmountPaid)
	}
}

func TestTrialWithoutPaymentMethod(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]stripe.SubscriptionStatus{
		"cancel": stripe.SubscriptionStatusCanceled, "pause": stripe.SubscriptionStatusPaused, "create_invoice": stripe.SubscriptionStatusPastDue,
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.customer("")
			s := w.subscribe(c.ID, "pro_monthly", func(p *stripe.SubscriptionCreateParams) {
				p.TrialPeriodDays = stripe.Int64(2)
				p.TrialSettings = &stripe.SubscriptionCreateTrialSettingsParams{
					EndBehavior: &stripe.SubscriptionCreateTrialSettingsEndBehaviorParams{MissingPaymentMethod: &setting},
				}
			})
			w.advance(2*day + time.Hour)
			w.want(s.ID, want)
			if setting != "pause" {
				return
			}
			w.giveCard(c.ID, "pm_card_visa")
			must(w.client.V1Subscriptions.Resume(t.Context(), s.ID, nil))(t)
			w.want(s.ID, stripe.SubscriptionStatusActive)
		})
	}
}

func TestFailedRenewalIsRetriedAndGivenUp(t *testing.T) {
	t.Parallel()
	for after, want := range map[string]stripe.SubscriptionStatus{
		"": stripe.SubscriptionStatusCanceled, "unpaid": stripe.SubscriptionStatusUnpaid, "past_due": stripe.SubscriptionStatusPastDue,
	} {
		t.Run("then "+after, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *stripefake.Options) { o.AfterRetries = after })
			c := w.customer("pm_card_visa")
			s := w.subscribe(c.ID, "pro_monthly")
			if err := w.fake.FailPayments(c.ID, "insufficient_funds"); err != nil {
				t.Fatal(err)
			}
			end := time.Unix(s.Items.Data[0].CurrentPeriodEnd, 0)
			w.advanceTo(end.Add(59 * time.Minute))
			w.want(s.ID, stripe.SubscriptionStatusActive)
			w.told()
			w.advance(time.Minute)
			w.want(s.ID, stripe.SubscriptionStatusPastDue)
			want1 := []string{
				"payment_intent.created", "invoice.finalized", "charge.failed", "payment_intent.payment_failed", "invoice.payment_failed",
				"customer.subscription.updated",
			}
			if got := w.told(); !cmp.Equal(got, want1) {
				t.Fatalf("first failure: %v", got)
			}
			for n, wait := range []time.Duration{3 * day, 5 * day, 7 * day} {
				w.want(s.ID, stripe.SubscriptionStatusPastDue)
				i := must(w.client.V1Invoices.Retrieve(t.Context(), w.subscription(s.ID).LatestInvoice.ID, nil))(t)
				if i.AttemptCount != int64(n+1) || i.NextPaymentAttempt != unix(w.fake.Now().Add(wait)) {
					t.Fatalf("attempt %d, next %d", i.AttemptCount, i.NextPaymentAttempt)
				}
				w.advance(wait)
			}
			s = w.want(s.ID, want)
			if after == "" && s.CancellationDetails.Reason != "payment_failed" {
				t.Errorf("cancelled because of %s", s.CancellationDetails.Reason)
			}
		})
	}
}

func TestFailedRenewalRecovers(t *testing.T) {
	t.Parallel()
	for name, recover := range map[string]func(*world, string, string){
		"by the next attempt": func(w *world, _, _ string) { w.advance(3 * day) },
		"by the customer": func(w *world, _, invoice string) {
			must(w.client.V1Invoices.Pay(w.Context(), invoice, nil))(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.customer("pm_card_visa")
			s := w.subscribe(c.ID, "pro_monthly")
			if err := w.fake.FailPayments(c.ID, "generic_decline"); err != nil {
				t.Fatal(err)
			}
			w.advanceTo(time.Unix(s.Items.Data[0].CurrentPeriodEnd, 0).Add(time.Hour))
			s = w.want(s.ID, stripe.SubscriptionStatusPastDue)
			_, err := w.client.V1Invoices.Pay(t.Context(), s.LatestInvoice.ID, nil)
			if e := refused(t, err, 402, stripe.ErrorTypeCard, "card_declined"); e.DeclineCode != "generic_decline" || e.ChargeID == "" {
				t.Errorf("declined by %q, charge %q", e.DeclineCode, e.ChargeID)
			}
			if err := w.fake.FailPayments(c.ID, ""); err != nil {
				t.Fatal(err)
			}
			recover(w, c.ID, s.LatestInvoice.ID)
			w.advance(5 * day)
			w.want(s.ID, stripe.SubscriptionStatusActive)
		})
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	set := func(on bool) *stripe.Subscription {
		return must(w.client.V1Subscriptions.Update(t.Context(), s.ID, &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: &on}))(t)
	}
	end := s.Items.Data[0].CurrentPeriodEnd
	if s = set(true); !s.CancelAtPeriodEnd || s.CancelAt != end || s.CanceledAt == 0 || s.Status != stripe.SubscriptionStatusActive {
		t.Fatalf("set to end: %+v", s)
	}
	if s = set(false); s.CancelAtPeriodEnd || s.CancelAt != 0 || s.CanceledAt != 0 {
		t.Fatalf("taken back: %+v", s)
	}
	set(true)
	w.told()
	w.advanceTo(time.Unix(end, 0).Add(-time.Second))
	w.want(s.ID, stripe.SubscriptionStatusActive)
	w.advance(time.Second)
	if s = w.want(s.ID, stripe.SubscriptionStatusCanceled); s.EndedAt != end {
		t.Errorf("ended %d, want %d", s.EndedAt, end)
	}
	if got := w.told(); !cmp.Equal(got, []string{"customer.subscription.deleted"}) {
		t.Errorf("told %v", got)
	}
	_, err := w.client.V1Subscriptions.Update(t.Context(), s.ID, &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: stripe.Bool(true)})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "invalid_canceled_subscription_fields")
	_, err = w.client.V1Subscriptions.Cancel(t.Context(), s.ID, nil)
	refused(t, err, 404, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)

	second := w.subscribe(c.ID, "pro_monthly")
	if second, err = w.client.V1Subscriptions.Cancel(t.Context(), second.ID, nil); err != nil || second.Status != stripe.SubscriptionStatusCanceled {
		t.Errorf("cancelled now: %v, %v", second, err)
	}
	open := w.client.V1Subscriptions.List(t.Context(), &stripe.SubscriptionListParams{Customer: &c.ID})
	all := w.client.V1Subscriptions.List(t.Context(), &stripe.SubscriptionListParams{Customer: &c.ID, Status: stripe.String("all")})
	if len(open.Data()) != 0 || len(all.Data()) != 2 {
		t.Errorf("listed %d and %d", len(open.Data()), len(all.Data()))
	}
}

func TestIncompleteExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_chargeCustomerFail")
	s := w.subscribe(c.ID, "pro_monthly")
	if s.Status != stripe.SubscriptionStatusIncomplete {
		t.Fatalf("status %s", s.Status)
	}
	w.advance(23*time.Hour - time.Second)
	w.want(s.ID, stripe.SubscriptionStatusIncomplete)
	w.advance(time.Second)
	s = w.want(s.ID, stripe.SubscriptionStatusIncompleteExpired)
	if i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t); i.Status != stripe.InvoiceStatusVoid {
		t.Errorf("invoice is %s", i.Status)
	}
	_, err := w.client.V1Subscriptions.Create(t.Context(), &stripe.SubscriptionCreateParams{
		Customer: &c.ID, PaymentBehavior: stripe.String("error_if_incomplete"),
		Items: []*stripe.SubscriptionCreateItemParams{{Price: &w.prices["pro_monthly"].ID}},
	})
	refused(t, err, 402, stripe.ErrorTypeCard, "card_declined")
	_, err = w.client.V1Subscriptions.Create(t.Context(), &stripe.SubscriptionCreateParams{
		Customer: &w.customer("").ID, Items: []*stripe.SubscriptionCreateItemParams{{Price: &w.prices["pro_monthly"].ID}},
	})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)
}
