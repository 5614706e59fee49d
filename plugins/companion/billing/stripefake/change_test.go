package stripefake_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v86"
)

// change is an update to another price.
func (w *world) change(s *stripe.Subscription, key string, with ...func(*stripe.SubscriptionUpdateParams)) (*stripe.Subscription, error) {
	p := &stripe.SubscriptionUpdateParams{
		Items: []*stripe.SubscriptionUpdateItemParams{{ID: &s.Items.Data[0].ID, Price: &w.prices[key].ID}},
	}
	for _, f := range with {
		f(p)
	}
	return w.client.V1Subscriptions.Update(w.Context(), s.ID, p)
}

func prorate(how string) func(*stripe.SubscriptionUpdateParams) {
	return func(p *stripe.SubscriptionUpdateParams) { p.ProrationBehavior = &how }
}

func behave(how string) func(*stripe.SubscriptionUpdateParams) {
	return func(p *stripe.SubscriptionUpdateParams) { p.PaymentBehavior = &how }
}

// Half way through a month of 28 days an upgrade costs half of the difference.
func TestUpgradeIsProrated(t *testing.T) {
	t.Parallel()
	for how, now := range map[string]bool{"always_invoice": true, "create_prorations": false, "none": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.customer("pm_card_visa")
			s := w.subscribe(c.ID, "pro_monthly")
			first := s.LatestInvoice.ID
			w.advance(14 * day)
			preview := must(w.client.V1Invoices.CreatePreview(t.Context(), &stripe.InvoiceCreatePreviewParams{
				Subscription: &s.ID, SubscriptionDetails: &stripe.InvoiceCreatePreviewSubscriptionDetailsParams{
					ProrationBehavior: &how,
					Items: []*stripe.InvoiceCreatePreviewSubscriptionDetailsItemParams{{
						ID: &s.Items.Data[0].ID, Price: &w.prices["enterprise_monthly"].ID,
					}},
				},
			}))(t)
			changed := must(w.change(s, "enterprise_monthly", prorate(how)))(t)
			if got := changed.Items.Data[0]; got.Price.LookupKey != "enterprise_monthly" || got.ID != s.Items.Data[0].ID ||
				got.CurrentPeriodEnd != s.Items.Data[0].CurrentPeriodEnd {
				t.Fatalf("item %+v", got)
			}
			var amounts []int64
			if now {
				i := must(w.client.V1Invoices.Retrieve(t.Context(), changed.LatestInvoice.ID, nil))(t)
				for _, l := range i.Lines.Data {
					amounts = append(amounts, l.Amount)
					if d := l.Parent.SubscriptionItemDetails; !d.Proration || d.SubscriptionItem != s.Items.Data[0].ID {
						t.Errorf("line %+v", l)
					}
				}
				if want := []int64{-1000, 5000}; !cmp.Equal(amounts, want) || i.AmountPaid != 4000 || i.BillingReason != "subscription_update" {
					t.Errorf("lines %v, paid %d, because of %s", amounts, i.AmountPaid, i.BillingReason)
				}
				if preview.AmountDue != 4000 || len(preview.Lines.Data) != 2 {
					t.Errorf("the preview said %d in %d lines", preview.AmountDue, len(preview.Lines.Data))
				}
				return
			}
			if changed.LatestInvoice.ID != first {
				t.Errorf("invoiced at once")
			}
			w.advanceTo(time.Unix(s.Items.Data[0].CurrentPeriodEnd, 0).Add(time.Hour))
			i := must(w.client.V1Invoices.Retrieve(t.Context(), w.subscription(s.ID).LatestInvoice.ID, nil))(t)
			want := int64(9999)
			if how == "create_prorations" {
				want += 4000
			}
			if i.AmountPaid != want || preview.AmountDue != want {
				t.Errorf("the next invoice is of %d, previewed %d, want %d", i.AmountPaid, preview.AmountDue, want)
			}
		})
	}
}

func TestOtherIntervalBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	w.advance(14 * day)
	s = must(w.change(s, "pro_yearly"))(t)
	now := w.fake.Now()
	if got := s.Items.Data[0]; got.CurrentPeriodStart != unix(now) || got.CurrentPeriodEnd != unix(now.AddDate(1, 0, 0)) || s.BillingCycleAnchor != unix(now) {
		t.Errorf("period %d to %d", got.CurrentPeriodStart, got.CurrentPeriodEnd)
	}
	if i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t); i.AmountPaid != 19990-1000 {
		t.Errorf("paid %d", i.AmountPaid)
	}
	// Back to the month at once: more is given back than asked for, which is credit.
	s = must(w.change(s, "pro_monthly"))(t)
	i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t)
	if i.Total != 1999-19990 || i.AmountDue != 0 || i.Status != stripe.InvoiceStatusPaid {
		t.Errorf("total %d, due %d, %s", i.Total, i.AmountDue, i.Status)
	}
	if c := must(w.client.V1Customers.Retrieve(t.Context(), c.ID, nil))(t); c.Balance != 1999-19990 {
		t.Errorf("balance %d", c.Balance)
	}
	w.advance(40 * day)
	if i := must(w.client.V1Invoices.Retrieve(t.Context(), w.subscription(s.ID).LatestInvoice.ID, nil))(t); i.AmountPaid != 0 || i.EndingBalance != 2*1999-19990 {
		t.Errorf("the renewal took %d, balance %d", i.AmountPaid, i.EndingBalance)
	}
}

func TestDeclinedUpgrade(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (*world, *stripe.Customer, *stripe.Subscription) {
		w := newWorld(t)
		c := w.customer("pm_card_visa")
		s := w.subscribe(c.ID, "pro_monthly")
		w.advance(14 * day)
		if err := w.fake.FailPayments(c.ID, "insufficient_funds"); err != nil {
			t.Fatal(err)
		}
		return w, c, s
	}
	t.Run("is an error", func(t *testing.T) {
		t.Parallel()
		w, _, s := prepare(t)
		_, err := w.change(s, "enterprise_monthly", prorate("always_invoice"), behave("error_if_incomplete"))
		refused(t, err, 402, stripe.ErrorTypeCard, stripe.ErrorCodeCardDeclined)
		if now := w.want(s.ID, stripe.SubscriptionStatusActive); now.Items.Data[0].Price.LookupKey != "pro_monthly" || now.LatestInvoice.ID != s.LatestInvoice.ID {
			t.Errorf("it changed: %+v", now)
		}
	})
	t.Run("leaves it past due", func(t *testing.T) {
		t.Parallel()
		w, _, s := prepare(t)
		must(w.change(s, "enterprise_monthly", prorate("always_invoice")))(t)
		if now := w.want(s.ID, stripe.SubscriptionStatusPastDue); now.Items.Data[0].Price.LookupKey != "enterprise_monthly" {
			t.Errorf("price %s", now.Items.Data[0].Price.LookupKey)
		}
	})
	t.Run("waits", func(t *testing.T) {
		t.Parallel()
		w, c, s := prepare(t)
		s = must(w.change(s, "enterprise_monthly", prorate("always_invoice"), behave("pending_if_incomplete")))(t)
		if s.Status != stripe.SubscriptionStatusActive || s.Items.Data[0].Price.LookupKey != "pro_monthly" || s.PendingUpdate == nil {
			t.Fatalf("waiting: %+v", s)
		}
		if err := w.fake.FailPayments(c.ID, ""); err != nil {
			t.Fatal(err)
		}
		must(w.client.V1Invoices.Pay(t.Context(), s.LatestInvoice.ID, nil))(t)
		if s = w.want(s.ID, stripe.SubscriptionStatusActive); s.Items.Data[0].Price.LookupKey != "enterprise_monthly" || s.PendingUpdate != nil {
			t.Errorf("paid: %+v", s)
		}
	})
	t.Run("waits in vain", func(t *testing.T) {
		t.Parallel()
		w, _, s := prepare(t)
		s = must(w.change(s, "enterprise_monthly", prorate("always_invoice"), behave("pending_if_incomplete")))(t)
		w.advance(23 * time.Hour)
		if s = w.want(s.ID, stripe.SubscriptionStatusActive); s.PendingUpdate != nil || s.Items.Data[0].Price.LookupKey != "pro_monthly" {
			t.Errorf("given up: %+v", s)
		}
		if i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t); i.Status != stripe.InvoiceStatusVoid {
			t.Errorf("invoice is %s", i.Status)
		}
	})
}

// A downgrade at the period's end is a schedule of two phases.
func TestScheduledDowngrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "enterprise_monthly")
	schedule := func() *stripe.SubscriptionSchedule {
		r := must(w.client.V1SubscriptionSchedules.Create(t.Context(), &stripe.SubscriptionScheduleCreateParams{FromSubscription: &s.ID}))(t)
		now := r.Phases[0]
		return must(w.client.V1SubscriptionSchedules.Update(t.Context(), r.ID, &stripe.SubscriptionScheduleUpdateParams{
			EndBehavior: stripe.String("release"), ProrationBehavior: stripe.String("none"),
			Phases: []*stripe.SubscriptionScheduleUpdatePhaseParams{
				{
					StartDate: &now.StartDate, EndDate: &now.EndDate,
					Items: []*stripe.SubscriptionScheduleUpdatePhaseItemParams{{Price: &now.Items[0].Price.ID, Quantity: stripe.Int64(1)}},
				},
				{
					Items: []*stripe.SubscriptionScheduleUpdatePhaseItemParams{{Price: &w.prices["pro_monthly"].ID, Quantity: stripe.Int64(1)}},
				},
			},
		}))(t)
	}
	r := schedule()
	if s = w.subscription(s.ID); s.Schedule == nil || s.Schedule.ID != r.ID {
		t.Fatalf("schedule %+v", s.Schedule)
	}
	_, err := w.client.V1Subscriptions.Update(t.Context(), s.ID, &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: stripe.Bool(true)})
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, "")
	must(w.client.V1SubscriptionSchedules.Release(t.Context(), r.ID, nil))(t)
	if s = w.subscription(s.ID); s.Schedule != nil {
		t.Fatal("released, and still attached")
	}
	r = schedule()
	end := time.Unix(s.Items.Data[0].CurrentPeriodEnd, 0)
	w.advanceTo(end.Add(-time.Second))
	if key := w.subscription(s.ID).Items.Data[0].Price.LookupKey; key != "enterprise_monthly" {
		t.Errorf("before the end: %s", key)
	}
	w.advanceTo(end.Add(time.Hour))
	s = w.want(s.ID, stripe.SubscriptionStatusActive)
	if key := s.Items.Data[0].Price.LookupKey; key != "pro_monthly" {
		t.Errorf("after the end: %s", key)
	}
	if i := must(w.client.V1Invoices.Retrieve(t.Context(), s.LatestInvoice.ID, nil))(t); i.AmountPaid != 1999 || len(i.Lines.Data) != 1 {
		t.Errorf("paid %d in %d lines", i.AmountPaid, len(i.Lines.Data))
	}
	w.advanceTo(end.AddDate(0, 1, 3))
	if s = w.want(s.ID, stripe.SubscriptionStatusActive); s.Schedule != nil {
		t.Error("the schedule is over, and still attached")
	}
	if r = must(w.client.V1SubscriptionSchedules.Retrieve(t.Context(), r.ID, nil))(t); r.Status != "released" {
		t.Errorf("schedule is %s", r.Status)
	}
}
