package billing_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"go.uber.org/zap"
)

// shop is one installation before a fake provider.
type shop struct {
	*testing.T
	*world
	*records
	billing.Desk
	provider billing.Provider
}

func newShop(t *testing.T) *shop {
	t.Helper()
	w := newWorld(t)
	t.Cleanup(w.close)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	opened, closeDB := w.open(t, template(t))
	t.Cleanup(closeDB)
	p := w.provider(ctx, t)
	return &shop{t, w, opened, billing.NewDesk(opened.Companion, p, settings(), w.now, zap.NewNop()), p}
}

func (s *shop) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// buy pays for a plan, and has everything be known.
func (s *shop) buy(plan string) *store.CheckoutSession {
	s.Helper()
	page, err := s.Checkout(s.Context(), ann, plan, "")
	s.ok(err)
	if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err != nil {
		s.Fatal(err)
	}
	s.tell()
	return page
}

// tell delivers all events, and reads what they are of.
func (s *shop) tell() {
	s.Helper()
	for _, m := range s.fake.Take() {
		s.deliver(m)
	}
	s.drain()
}

func (s *shop) deliver(m stripefake.Message) {
	s.Helper()
	if status := s.Receive(s.Context(), m.Payload, stripefake.Signature(m.Payload, whsec, s.now())); status != http.StatusOK {
		s.Fatalf("%s was answered %d", m.Type, status)
	}
}

func (s *shop) drain() {
	s.Helper()
	for {
		n, err := s.Round(s.Context())
		s.ok(err)
		if n == 0 {
			return
		}
	}
}

func (s *shop) want(plan string) {
	s.Helper()
	e, err := s.Entitlement(s.Context(), ann)
	s.ok(err)
	if got := e.Plan.Name + " " + string(e.Status); got != plan {
		s.Errorf("at %s the plan is %q, want %q", s.now().Format(time.RFC3339), got, plan)
	}
}

func (s *shop) customer() string {
	s.Helper()
	b, err := s.BillingAccount(s.Context(), ann)
	s.ok(err)
	return b.Customer
}

// nextAttempt is when ann is read at the earliest.
func (s *shop) nextAttempt() time.Time {
	s.Helper()
	var at column.Time
	row := s.db.QueryRowContext(s.Context(), "SELECT next_attempt_at FROM stripe_sync_queue WHERE customer_id = $1", s.customer())
	s.ok(row.Scan(&at))
	return at.Time
}

// Failed payments: the plan stays for the grace, then it is the default plan, then
// the payment comes. Not parallel: metrics are the process'.
func TestFailedPaymentGraceAndRecovery(t *testing.T) {
	s := newShop(t)
	before := map[string]float64{}
	for _, change := range []string{"subscription.created", "subscription.past_due", "subscription.grace_ended", "subscription.recovered"} {
		before[change] = max(0, metric(t, "quotagate_billing_subscription_changes_total", change))
	}
	s.buy("pro")
	s.want("pro active")
	s.ok(s.fake.FailPayments(s.customer(), "insufficient_funds"))
	s.ok(s.fake.Advance(29 * day)) // the renewal, from the 31st to the 28th, and its hour as a draft
	s.tell()
	s.want("pro past_due")
	sub, err := s.CurrentSubscription(t.Context(), ann)
	s.ok(err)
	s.offset = sub.GraceUntil.Sub(s.fake.Now()) - time.Microsecond
	s.want("pro past_due")
	s.ok(s.Tick(t.Context()))
	s.offset += time.Microsecond
	s.want("free expired")
	s.ok(s.Tick(t.Context()))
	s.offset = 0
	s.ok(s.fake.FailPayments(s.customer(), ""))
	s.ok(s.fake.Advance(4 * day)) // it is tried again after three days
	s.tell()
	s.want("pro active")
	if after, err := s.CurrentSubscription(t.Context(), ann); err != nil || !after.CurrentPeriodEnd.After(sub.CurrentPeriodStart) {
		t.Errorf("renewal did not extend: %+v, %v", after, err)
	}
	list, total, err := s.Invoices(t.Context(), ann, 0, 10)
	if err != nil || total != 2 || list[0].Status != "paid" || list[0].Attempts != 2 {
		t.Errorf("%d invoices: %+v, %v", total, list, err)
	}
	kinds, err := s.told(t.Context())
	want := []string{
		"subscription.created", "invoice.paid", // bought
		"subscription.past_due", "invoice.payment_failed", "subscription.grace_ended", "subscription.recovered", "invoice.paid",
	}
	if diff := cmp.Diff(want, kinds); diff != "" || err != nil {
		t.Errorf("%v; told others (-want +got):\n%s", err, diff)
	}
	for _, change := range []string{"subscription.created", "subscription.past_due", "subscription.grace_ended", "subscription.recovered"} {
		if n := metric(t, "quotagate_billing_subscription_changes_total", change) - before[change]; n != 1 {
			t.Errorf("the metric counts %v of %s", n, change)
		}
	}
}

func TestDeclinedChangeChangesNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.ok(s.fake.FailPayments(s.customer(), "insufficient_funds"))
	s.ok(s.fake.Advance(minute))
	if err := s.Change(t.Context(), ann, "enterprise", ""); !errors.Is(err, billing.ErrDeclined) {
		t.Errorf("declined: %v", err)
	}
	s.tell()
	s.want("pro active")
	s.ok(s.fake.FailPayments(s.customer(), ""))
	s.ok(s.Change(t.Context(), ann, "enterprise", "")) // the refusal is not replayed
	s.want("enterprise active")
}

// A smaller plan waits for the period's end, and can be thought better of.
func TestDowngradeWaits(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("enterprise")
	pending := func(want string) {
		t.Helper()
		sub, err := s.CurrentSubscription(t.Context(), ann)
		if err != nil || sub.PendingPlan != want || sub.Plan != "enterprise" {
			t.Errorf("%+v, %v; want %q pending", sub, err, want)
		}
	}
	s.ok(s.Change(t.Context(), ann, "pro", ""))
	pending("pro")
	s.ok(s.End(t.Context(), ann, billing.Never))
	pending("")
	s.ok(s.Change(t.Context(), ann, "pro", ""))
	s.want("enterprise active")
	s.ok(s.fake.Advance(29 * day))
	s.want("pro active") // before anybody has told of it
	s.tell()
	s.want("pro active")
}

func TestTrialOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	doc, err := s.ExportPlans(t.Context())
	s.ok(err)
	for i := range doc.Plans {
		if doc.Plans[i].Name == "pro" {
			doc.Plans[i].TrialDays = 14
		}
	}
	if _, err := s.ApplyPlans(t.Context(), store.Actor{Type: store.ActorCLI}, doc); err != nil {
		t.Fatal(err)
	}
	if page := s.buy("pro"); page.TrialDays != 14 {
		t.Errorf("%d days of trial", page.TrialDays)
	}
	s.want("pro trial")
	s.ok(s.End(t.Context(), ann, billing.AtOnce))
	s.tell()
	s.want("free cancelled")
	if page := s.buy("pro"); page.TrialDays != 0 {
		t.Errorf("a second trial of %d days", page.TrialDays)
	}
	s.want("pro active")
}

// One page is open at a time; who pays it has a subscription, once.
func TestCheckoutPages(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	open := func(plan string) string {
		t.Helper()
		page, err := s.Checkout(t.Context(), ann, plan, "")
		s.ok(err)
		return page.ID
	}
	first := open("pro")
	if again := open("pro"); again != first {
		t.Errorf("the same order opened %s beside %s", again, first)
	}
	second := open("enterprise")
	if _, err := s.fake.Pay(first, "pm_card_visa"); err == nil {
		t.Error("a page that was replaced could be paid")
	}
	if _, err := s.fake.Pay(second, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	// Nobody was told yet: the provider is asked.
	if _, err := s.Checkout(t.Context(), ann, "pro", ""); !errors.Is(err, billing.ErrSubscribed) {
		t.Errorf("bought twice: %v", err)
	}
	s.want("enterprise active")
	for _, plan := range []string{"free", "nothing"} {
		if _, err := s.Checkout(t.Context(), "user:bob", plan, ""); err == nil {
			t.Errorf("%s was sold", plan)
		}
	}
}

// Nothing is granted for what an object's metadata says.
func TestMetadataGrantsNothing(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	subs, err := s.provider.Subscriptions(t.Context(), s.customer())
	s.ok(err)
	_, err = s.post(t.Context(), "/v1/subscriptions/"+subs[0].ID, url.Values{
		"metadata[plan]": {"enterprise"}, "metadata[plan_name]": {"enterprise"}, "metadata[quotagate_account]": {"user:bob"},
	})
	s.ok(err)
	s.tell()
	s.want("pro active")
	if e, err := s.Entitlement(t.Context(), "user:bob"); err != nil || e.Plan.Name != "free" {
		t.Errorf("bob has %+v, %v", e.Plan, err)
	}
}

// A customer who cannot be read waits, longer each time, and is read in the end.
func TestProviderFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]stripefake.Fault{
		"500": {Status: 500}, "429": {Status: 429}, "broken off": {Lost: true, Method: http.MethodGet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			page, err := s.Checkout(t.Context(), ann, "pro", "")
			s.ok(err)
			if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err != nil {
				t.Fatal(err)
			}
			fault.Times = -1
			s.fake.Inject(fault)
			s.tell() // webhooks are taken in all the same
			s.want("free ")
			for range 3 {
				h, err := s.BillingHealth(t.Context())
				next := s.nextAttempt()
				if err != nil || h.Pending != 1 || !next.After(s.now()) {
					t.Fatalf("%+v, %v; next at %s", h, err, next)
				}
				s.offset = next.Sub(s.fake.Now())
				s.drain()
			}
			s.fake.Heal()
			s.offset += time.Hour
			s.drain()
			s.want("pro active")
		})
	}
}

// Whom the provider does not know is given up, until an admin asks again.
func TestRefusedCustomerDies(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	if _, err := s.SetCustomer(t.Context(), ann, "cus_nobody"); err != nil {
		t.Fatal(err)
	}
	s.ok(s.RequestSync(t.Context(), "cus_nobody", "test"))
	for range 5 {
		s.drain()
		s.offset += time.Hour
	}
	h, err := s.BillingHealth(t.Context())
	if err != nil || h.Dead != 1 || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// grant gives ann a plan by hand, without overruling anything.
func (s *shop) grant(plan string) {
	s.Helper()
	_, err := s.PatchUser(s.Context(), store.Actor{Type: store.ActorCLI}, ann.ID(), store.UserPatch{Plan: plan, Reason: "kind"})
	s.ok(err)
}

// What an admin grants does not beat a purchase of which the webhook is yet to
// come, though the purchase is the older one.
func TestGrantBeforeTheWebhook(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	page, err := s.Checkout(t.Context(), ann, "enterprise", "")
	s.ok(err)
	_, err = s.fake.Pay(page.ID, "pm_card_visa")
	s.ok(err)
	s.offset += time.Minute
	s.grant("pro")
	s.tell()
	s.want("enterprise active")
}
