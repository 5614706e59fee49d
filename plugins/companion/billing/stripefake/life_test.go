package stripefake_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
	"pgregory.net/rapid"
)

// books are everything that can be listed.
func (w *world) books() map[string]any {
	w.Helper()
	all := map[string]any{}
	for _, path := range []string{
		"/v1/customers", "/v1/subscriptions?status=all", "/v1/invoices", "/v1/charges", "/v1/payment_intents", "/v1/subscription_schedules",
		"/v1/refunds", "/v1/disputes", "/v1/events", "/v1/checkout/sessions",
	} {
		res, err := http.DefaultClient.Do(w.get(path))
		if err != nil {
			w.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			w.Fatalf("%s: %d %v", path, res.StatusCode, err)
		}
		var list any
		if err := json.Unmarshal(body, &list); err != nil {
			w.Fatal(err)
		}
		all[path] = list
	}
	return all
}

// Any life is well formed in each of its events, its money adds up, and it is
// the same after a restart.
func TestAnyLife(t *testing.T) {
	t.Parallel()
	var lives atomic.Int32
	rapid.Check(t, func(r *rapid.T) {
		file := ""
		if rapid.IntRange(0, 9).Draw(r, "kept") == 0 { // it takes its time
			file = filepath.Join(t.TempDir(), fmt.Sprint(lives.Add(1)))
		}
		persisted := func(o *stripefake.Options) { o.File = file }
		w := newWorld(t, persisted)
		c := w.customer("pm_card_visa")
		l := &life{world: w, customer: c.ID}
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			l.step(r)
			w.told()
			l.check(r)
		}
		if file == "" {
			return
		}
		if d := cmp.Diff(w.books(), newWorld(t, persisted).books()); d != "" {
			r.Fatalf("after a restart:\n%s", d)
		}
	})
}

type life struct {
	*world
	customer string
}

func (l *life) subscriptions() []*stripe.Subscription {
	return l.client.V1Subscriptions.List(l.Context(), &stripe.SubscriptionListParams{Customer: &l.customer}).Data()
}

// step does one thing. That it is refused is no failure: the state may not allow it.
func (l *life) step(r *rapid.T) {
	var s *stripe.Subscription
	if all := l.subscriptions(); len(all) > 0 {
		s = all[rapid.IntRange(0, len(all)-1).Draw(r, "subscription")]
	}
	key := rapid.SampledFrom([]string{"pro_monthly", "pro_yearly", "enterprise_monthly"}).Draw(r, "price")
	ctx := l.Context()
	switch act := rapid.SampledFrom([]string{"buy", "clock", "clock", "clock", "fail", "heal", "change", "end", "resume", "cancel", "pay", "refund"}).Draw(r, "act"); {
	case act == "buy":
		session := l.session(func(p *stripe.CheckoutSessionCreateParams) {
			p.Customer, p.LineItems[0].Price = &l.customer, &l.prices[key].ID
			if days := rapid.Int64Range(0, 20).Draw(r, "trial"); days > 0 {
				p.SubscriptionData.TrialPeriodDays = &days
			}
		})
		_, _ = l.fake.Pay(session.ID, rapid.SampledFrom([]string{"pm_card_visa", "pm_card_chargeCustomerFail"}).Draw(r, "card"))
	case act == "clock":
		l.advance(time.Duration(rapid.Int64Range(1, 45*86400).Draw(r, "seconds")) * time.Second)
	case act == "fail":
		_ = l.fake.FailPayments(l.customer, "insufficient_funds")
	case act == "heal":
		_ = l.fake.FailPayments(l.customer, "")
	case s == nil:
	case act == "change":
		how := rapid.SampledFrom([]string{"always_invoice", "create_prorations", "none"}).Draw(r, "proration")
		pay := rapid.SampledFrom([]string{"allow_incomplete", "error_if_incomplete", "pending_if_incomplete"}).Draw(r, "behavior")
		_, _ = l.change(s, key, prorate(how), behave(pay))
	case act == "end" || act == "resume":
		on := act == "end"
		_, _ = l.client.V1Subscriptions.Update(ctx, s.ID, &stripe.SubscriptionUpdateParams{CancelAtPeriodEnd: &on})
	case act == "cancel":
		_, _ = l.client.V1Subscriptions.Cancel(ctx, s.ID, &stripe.SubscriptionCancelParams{Prorate: stripe.Bool(true), InvoiceNow: stripe.Bool(true)})
	case act == "pay":
		_, _ = l.client.V1Invoices.Pay(ctx, s.LatestInvoice.ID, nil)
	case act == "refund":
		for _, charge := range l.client.V1Charges.List(ctx, &stripe.ChargeListParams{Customer: &l.customer}).Data() {
			_, _ = l.client.V1Refunds.Create(ctx, &stripe.RefundCreateParams{Charge: &charge.ID})
		}
	}
}

// check is what always holds.
func (l *life) check(r *rapid.T) {
	now := l.fake.Now().Unix()
	for s, err := range l.client.V1Subscriptions.List(l.Context(), &stripe.SubscriptionListParams{Status: stripe.String("all")}).All(l.Context()) {
		if err != nil {
			r.Fatal(err)
		}
		x := s.Items.Data[0]
		going := s.Status == "active" || s.Status == "trialing" || s.Status == "past_due" || s.Status == "unpaid"
		if going && (x.CurrentPeriodStart > now || x.CurrentPeriodEnd <= now) {
			r.Fatalf("%s is %s at %d, in a period from %d to %d", s.ID, s.Status, now, x.CurrentPeriodStart, x.CurrentPeriodEnd)
		}
		if s.Status == "trialing" && s.TrialEnd <= now || s.CancelAtPeriodEnd && going && s.CancelAt != x.CurrentPeriodEnd {
			r.Fatalf("%s is %s at %d: %+v", s.ID, s.Status, now, s)
		}
	}
	var paid, collected int64
	for i, err := range l.client.V1Invoices.List(l.Context(), nil).All(l.Context()) {
		if err != nil {
			r.Fatal(err)
		}
		var sum int64
		for _, line := range i.Lines.Data {
			sum += line.Amount
		}
		if sum != i.Total || i.Status == "paid" && i.AmountRemaining != 0 || i.AmountPaid > i.AmountDue {
			r.Fatalf("invoice %+v", i)
		}
		paid += i.AmountPaid
	}
	for c, err := range l.client.V1Charges.List(l.Context(), nil).All(l.Context()) {
		if err != nil {
			r.Fatal(err)
		}
		if c.Paid {
			collected += c.Amount
		}
	}
	if paid != collected {
		r.Fatalf("invoices say %d was paid, charges %d", paid, collected)
	}
}

func TestOneKeyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all sync.WaitGroup
	ids := make([]string, 20)
	for i := range ids {
		all.Go(func() {
			c, err := create(w, w.client, "a@example.com", "one")
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = c.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("customers %v", ids)
		}
	}
	if n := w.customers(); n != 1 {
		t.Errorf("%d customers", n)
	}
}
