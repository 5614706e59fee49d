package billing_test

import (
	"errors"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
)

// openPages are the pages that could be paid on now.
func (s *shop) openPages() []string {
	s.Helper()
	v, err := s.post(s.Context(), "/v1/checkout/sessions?limit=100&status=open", nil)
	s.ok(err)
	var ids []string
	for _, o := range v["data"].([]any) {
		ids = append(ids, o.(map[string]any)["id"].(string))
	}
	return ids
}

// order orders plans at the same time: no page is written down before all are open.
func (s *shop) order(plans ...string) []string {
	s.Helper()
	h := &hooked{creating: together(len(plans))}
	ids := make([]string, len(plans))
	var all sync.WaitGroup
	for i, plan := range plans {
		desk := s.beside(h)
		all.Go(func() {
			page, err := desk.Checkout(s.Context(), ann, plan, "")
			if err != nil {
				s.Errorf("%s: %v", plan, err)
				return
			}
			ids[i] = page.ID
		})
	}
	all.Wait()
	return ids
}

// Who clicks twice has one page, and gets it again at the third click.
func TestDoubleClick(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ids := s.order("pro", "pro", "pro")
	page, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	if open := s.openPages(); len(open) != 1 || slices.Compact(append(ids, page.ID))[0] != open[0] || page.ID != open[0] {
		t.Errorf("answered %v and %s, open are %v", ids, page.ID, open)
	}
}

// Two tabs with two plans: at most one page can be paid on, whichever.
func TestTwoTabs(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	ids := s.order("pro", "enterprise")
	open := s.openPages()
	if len(open) != 1 || !slices.Contains(ids, open[0]) {
		t.Fatalf("answered %v, open are %v", ids, open)
	}
	last, err := s.LastCheckout(t.Context(), ann)
	if err != nil || last.ID != open[0] || !last.Open {
		t.Errorf("%+v, %v", last, err)
	}
	paid := 0
	for _, id := range ids {
		if _, err := s.fake.Pay(id, "pm_card_visa"); err == nil {
			paid++
		}
	}
	if paid != 1 {
		t.Errorf("paid %d times", paid)
	}
}

// A page whose time is over, or nearly, is not answered once more; nor is one
// that was closed behind our back.
func TestPagesThatAreOver(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	open := func(plan string) string {
		t.Helper()
		page, err := s.Checkout(t.Context(), ann, plan, "")
		s.ok(err)
		return page.ID
	}
	first := open("pro")
	s.ok(s.fake.Advance(day - 6*minute))
	if again := open("pro"); again != first {
		t.Errorf("closed with six minutes left")
	}
	s.ok(s.fake.Advance(2 * minute))
	second := open("pro")
	if left := s.openPages(); len(left) != 1 || left[0] != second || second == first {
		t.Errorf("%s after %s, open are %v", second, first, left)
	}
	_, err := s.post(t.Context(), "/v1/checkout/sessions/"+second+"/expire", url.Values{})
	s.ok(err)
	third := open("enterprise")
	if left := s.openPages(); len(left) != 1 || left[0] != third {
		t.Errorf("open are %v, want %s", left, third)
	}
	// The old one was closed, the new one could not be opened.
	s.fake.Inject(stripefake.Fault{Method: "POST", Path: "/v1/checkout/sessions", Skip: 1, Status: 500})
	if _, err := s.Checkout(t.Context(), ann, "pro", ""); !errors.Is(err, billing.ErrUnavailable) {
		t.Errorf("the provider was down: %v", err)
	}
	s.fake.Heal()
	fourth := open("enterprise")
	if left := s.openPages(); len(left) != 1 || left[0] != fourth || fourth == third {
		t.Errorf("open are %v, want %s and not %s", left, fourth, third)
	}
}

// Stripe keeps what it has answered with the key of the request for a day, also a
// fault of its own: who tries again a minute later is not to be answered that.
func TestFaultThatIsKeptWithItsKey(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	kept, calls := map[string]bool{}, 0
	answer := func(key string) error {
		calls++
		if calls == 1 || calls == 3 {
			kept[key] = true
		}
		if kept[key] {
			return billing.ErrUnavailable
		}
		return nil
	}
	desk := s.beside(&hooked{
		customer: func(c billing.NewCustomer) error { return answer(c.Key) },
		page:     func(c billing.NewCheckout) error { return answer(c.Key) },
	})
	for what, want := range []error{billing.ErrUnavailable, billing.ErrUnavailable, nil} { // no customer, no page, both
		if _, err := desk.Checkout(t.Context(), ann, "pro", ""); !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", what, err, want)
		}
		s.offset += time.Minute
	}
}

// A process dies between making a customer and writing it down. Whoever asks again
// at once gets the same one; with another address by then it is another order to the
// provider, which refuses a key that was used for something else.
func TestCustomerThatWasNotWrittenDown(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	made := map[string]string{}
	for _, email := range []string{"a@example.com", "a@example.com", "new@example.com"} {
		id, err := s.CustomerOf(t.Context(), ann, email)
		s.ok(err)
		if was, ok := made[email]; ok && was != id {
			t.Errorf("%s is %s and %s", email, was, id)
		}
		made[email] = id
		_, err = s.db.ExecContext(t.Context(), "UPDATE accounts SET stripe_customer_id = NULL WHERE id = $1", ann.ID())
		s.ok(err)
	}
	if len(made) != 2 || made["a@example.com"] == made["new@example.com"] {
		t.Errorf("made %v", made)
	}
}

// Somebody deletes a customer at the provider: what it had ends, and it can buy again.
func TestDeletedCustomerBuysAgain(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	gone := s.customer()
	s.ok(s.delete("/v1/customers/" + gone))
	s.tell()
	s.want("free cancelled")
	if _, err := s.Portal(t.Context(), ann); !errors.Is(err, billing.ErrNoCustomer) {
		t.Errorf("the portal of nobody: %v", err)
	}
	s.buy("enterprise")
	s.want("enterprise active")
	if now := s.customer(); now == gone {
		t.Error("still the customer that was deleted")
	}
	// One that the provider has never had is no reason to make another one: the key
	// may be that of another account.
	if _, err := s.SetCustomer(t.Context(), "user:bob", "cus_nobody"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkout(t.Context(), "user:bob", "pro", ""); !errors.Is(err, billing.ErrNotFound) {
		t.Errorf("sold to nobody: %v", err)
	}
}

// The page of a customer that was deleted at the provider is no page to pay on: who
// orders the same again becomes a new customer, and gets that one's page.
func TestPageOfADeletedCustomer(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	page, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	gone := s.customer()
	s.ok(s.delete("/v1/customers/" + gone))
	s.tell()
	again, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	if open := s.openPages(); again.ID == page.ID || s.customer() == gone || len(open) != 1 || open[0] != again.ID {
		t.Errorf("%s after %s, open are %v", again.ID, page.ID, open)
	}
	_, err = s.fake.Pay(again.ID, "pm_card_visa")
	s.ok(err)
	s.tell()
	s.want("pro active")
}

// subscribe makes a subscription as somebody in the dashboard would, paid by a card.
func (s *shop) subscribe(key string) {
	s.Helper()
	card, err := s.post(s.Context(), "/v1/payment_methods/pm_card_visa/attach", url.Values{"customer": {s.customer()}})
	s.ok(err)
	_, err = s.post(s.Context(), "/v1/subscriptions", url.Values{
		"customer": {s.customer()}, "items[0][price]": {s.priceOf(key)}, "default_payment_method": {card["id"].(string)},
	})
	s.ok(err)
}

// Who gets a subscription beside the page that is open does not pay on it as well,
// also if the page cannot be closed at once.
func TestPageBesideASubscription(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	page, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	s.subscribe("pro_monthly")
	s.fake.Inject(stripefake.Fault{Method: "POST", Path: "/v1/checkout/sessions", Status: 500, Times: -1})
	s.tell()
	s.want("pro active")
	s.ok(s.Return(t.Context(), ann, page.ID)) // what was read is right all the same
	if last, err := s.LastCheckout(t.Context(), ann); err != nil || !last.Open {
		t.Errorf("%+v, %v; could not be closed", last, err)
	}
	s.fake.Heal()
	s.offset += time.Hour
	s.drain()
	if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err == nil {
		t.Error("paid twice")
	}
	if last, err := s.LastCheckout(t.Context(), ann); err != nil || last.Open {
		t.Errorf("%+v, %v; is closed", last, err)
	}
	if h, err := s.BillingHealth(t.Context()); err != nil || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// Whoever comes back from paying names the session, which must be the account's own.
func TestSyncOnReturn(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	page, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Checkout(t.Context(), "user:bob", "pro", ""); err != nil {
		t.Fatal(err)
	}
	for name, session := range map[string]string{"another's": page.ID, "nobody's": "cs_test_none"} {
		if err := s.Return(t.Context(), "user:bob", session); !errors.Is(err, billing.ErrNoSession) {
			t.Errorf("%s session: %v", name, err)
		}
	}
	s.want("free ")
	s.ok(s.Return(t.Context(), ann, page.ID))
	s.want("pro active")
	if e, err := s.Entitlement(t.Context(), "user:bob"); err != nil || e.Plan.Name != "free" {
		t.Errorf("bob has %+v, %v", e.Plan, err)
	}
	s.ok(s.Return(t.Context(), ann, ""))
	if err := s.Return(t.Context(), "user:eve", ""); !errors.Is(err, billing.ErrNoCustomer) {
		t.Errorf("of somebody who never bought anything: %v", err)
	}
	s.offset = time.Hour // and once more, much later
	s.ok(s.Return(t.Context(), ann, page.ID))
}
