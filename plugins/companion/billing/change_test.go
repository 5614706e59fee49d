package billing_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
)

// current is ann's only subscription, as the provider has it.
func (s *shop) current() billing.Subscription {
	s.Helper()
	subs, err := s.provider.Subscriptions(s.Context(), s.customer())
	s.ok(err)
	if len(subs) != 1 {
		s.Fatalf("%d subscriptions", len(subs))
	}
	return subs[0]
}

// What a change would cost is what it costs, and from when it holds is told.
func TestPreview(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.ok(s.fake.Advance(14 * day)) // half of the 28 days from the 31st to the 28th
	p, err := s.Preview(t.Context(), ann, "enterprise", "")
	s.ok(err)
	if p.AmountDue != 4000 || p.Currency != "usd" || !p.EffectiveAt.Equal(s.now()) || len(p.Lines) != 2 {
		t.Errorf("%+v", p)
	}
	for i, want := range []int64{-999, 5000} {
		if got := p.Lines[i]; !got.Proration || got.Amount < want-1 || got.Amount > want+1 || got.Description == "" {
			t.Errorf("line %d: %+v, want about %d", i, got, want)
		}
	}
	s.want("pro active") // nothing has changed
	s.ok(s.Change(t.Context(), ann, "enterprise", ""))
	s.want("enterprise active")
	list, _, err := s.Invoices(t.Context(), ann, 0, 10)
	if err != nil || list[0].AmountPaid != p.AmountDue {
		t.Errorf("foreseen were %d: %+v, %v", p.AmountDue, list, err)
	}
	sub, err := s.CurrentSubscription(t.Context(), ann)
	s.ok(err)
	p, err = s.Preview(t.Context(), ann, "pro", "")
	if err != nil || p.AmountDue != 0 || p.Currency != "usd" || !p.EffectiveAt.Equal(sub.CurrentPeriodEnd) {
		t.Errorf("less: %+v, %v", p, err)
	}
	if _, err := s.Preview(t.Context(), ann, "enterprise", ""); !errors.Is(err, billing.ErrSamePlan) {
		t.Errorf("the same: %v", err)
	}
}

// A change that fails leaves also what was to happen later as it was.
func TestFailedChangeKeepsWhatIsPending(t *testing.T) {
	t.Parallel()
	pending := func(s *shop, want string) {
		s.Helper()
		s.drain()
		sub, err := s.CurrentSubscription(s.Context(), ann)
		if err != nil || sub.PendingPlan != want {
			s.Errorf("%+v, %v; want %q pending", sub, err, want)
		}
	}
	for name, c := range map[string]struct {
		fault stripefake.Fault
		act   func(s *shop) error
		want  error
	}{
		"a declined upgrade": {act: func(s *shop) error {
			s.ok(s.fake.FailPayments(s.customer(), "insufficient_funds"))
			return s.Change(s.Context(), ann, "enterprise", "year")
		}, want: billing.ErrDeclined},
		"a cancellation that fails": {
			fault: stripefake.Fault{Method: http.MethodPost, Path: "/v1/subscriptions/", Status: 500},
			act:   func(s *shop) error { return s.End(s.Context(), ann, billing.AtPeriodEnd) }, want: billing.ErrUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.buy("enterprise")
			s.ok(s.Change(t.Context(), ann, "pro", ""))
			pending(s, "pro")
			if c.fault.Status != 0 {
				s.fake.Inject(c.fault)
			}
			if err := c.act(s); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			s.fake.Heal()
			s.tell()
			s.want("enterprise active")
			pending(s, "pro")
			s.ok(s.fake.FailPayments(s.customer(), ""))
			s.ok(s.fake.Advance(29 * day))
			s.tell()
			s.want("pro active")
		})
	}
}

// So it does with fewer seats, which are another quantity of the same price.
func TestFailedChangeKeepsPendingSeats(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buySeats(5)
	s.ok(s.ChangeSeats(t.Context(), ann, "pro", 3))
	s.ok(s.fake.FailPayments(s.customer(), "insufficient_funds"))
	if err := s.Change(t.Context(), ann, "enterprise", ""); !errors.Is(err, billing.ErrDeclined) {
		t.Errorf("declined: %v", err)
	}
	s.ok(s.fake.FailPayments(s.customer(), ""))
	s.ok(s.fake.Advance(29 * day))
	s.tell()
	s.want("pro active")
	if sub := s.current(); sub.Quantity != 3 {
		t.Errorf("pays for %d seats", sub.Quantity)
	}
}

// A change of which only the answer is lost has been made and paid for: what was
// pending before it is not put over that.
func TestLostAnswerOfAChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(s *shop) error
		done func(sub billing.Subscription) bool
	}{
		"a larger plan": {
			func(s *shop) error { return s.Change(s.Context(), ann, "enterprise", "year") },
			func(sub billing.Subscription) bool {
				return sub.LookupKey == "enterprise_yearly" && !sub.CancelAtPeriodEnd
			},
		},
		"a cancellation": {
			func(s *shop) error { return s.End(s.Context(), ann, billing.AtPeriodEnd) },
			func(sub billing.Subscription) bool { return sub.LookupKey == "pro_yearly" && sub.CancelAtPeriodEnd },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			page, err := s.Checkout(t.Context(), ann, "pro", "year")
			s.ok(err)
			_, err = s.fake.Pay(page.ID, "pm_card_visa")
			s.ok(err)
			s.tell()
			s.ok(s.Change(t.Context(), ann, "pro", "month")) // at the year's end
			s.fake.Inject(stripefake.Fault{Method: http.MethodPost, Path: "/v1/subscriptions/", Lost: true, Times: -1})
			s.ok(c.act(s))
			s.fake.Heal()
			if sub := s.current(); !c.done(sub) || sub.Schedule != "" {
				t.Errorf("%+v", sub)
			}
		})
	}
}

// That the price of what is pending cannot be found says nothing about what is
// paid for now.
func TestPendingPriceThatIsGone(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("enterprise")
	s.ok(s.Change(t.Context(), ann, "pro", ""))
	s.want("enterprise active")
	s.fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/prices/", Status: 404, Times: -1})
	s.ok(s.Sync(t.Context(), s.customer()))
	s.want("enterprise active")
}

// Who has cancelled and cannot have the smaller plan has still cancelled.
func TestFailedDowngradeKeepsTheCancellation(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("enterprise")
	s.ok(s.End(t.Context(), ann, billing.AtPeriodEnd))
	s.fake.Inject(stripefake.Fault{Path: "/v1/subscription_schedules", Status: 500})
	if err := s.Change(t.Context(), ann, "pro", ""); !errors.Is(err, billing.ErrUnavailable) {
		t.Errorf("the provider was down: %v", err)
	}
	if sub := s.current(); !sub.CancelAtPeriodEnd {
		t.Errorf("goes on: %+v", sub)
	}
	s.ok(s.Change(t.Context(), ann, "pro", ""))
	if sub := s.current(); sub.CancelAtPeriodEnd || sub.PendingLookupKey != "pro_monthly" {
		t.Errorf("%+v", sub)
	}
	// Who buys more goes on as well, in one step with what is paid for it.
	s.ok(s.End(t.Context(), ann, billing.AtPeriodEnd))
	s.ok(s.Change(t.Context(), ann, "enterprise", "year"))
	if sub := s.current(); sub.CancelAtPeriodEnd || sub.LookupKey != "enterprise_yearly" || sub.Schedule != "" {
		t.Errorf("%+v", sub)
	}
}

// A client that leaves in the middle of a change does not have half of it done.
func TestClientLeavesDuringAChange(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	ctx, leave := context.WithCancel(t.Context())
	desk := s.beside(&hooked{changing: leave})
	s.ok(desk.Change(ctx, ann, "enterprise", ""))
	if ctx.Err() == nil {
		t.Fatal("the client has not left")
	}
	s.want("enterprise active")
}

// What the provider has done is not answered as if it had failed because it cannot
// be read back: it is known a little later.
func TestChangeThatCannotBeReadBack(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	down := func() {
		s.fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/subscriptions", Status: 500, Times: -1})
	}
	up := func() {
		s.fake.Heal()
		s.fake.Take() // nothing is told of it
		s.offset += time.Hour
		s.drain()
	}
	s.ok(s.beside(&hooked{changing: down}).Change(t.Context(), ann, "enterprise", ""))
	up()
	s.want("enterprise active")
	desk := s.beside(&hooked{ending: func(context.Context) error {
		down()
		return nil
	}})
	s.ok(desk.End(t.Context(), ann, billing.AtPeriodEnd))
	up()
	if sub, err := s.CurrentSubscription(t.Context(), ann); err != nil || !sub.CancelAtPeriodEnd {
		t.Errorf("%+v, %v", sub, err)
	}
}

// Of a subscription with several items the one that a plan knows gives the plan,
// wherever it stands, and a change leaves the others alone.
func TestSubscriptionOfManyItems(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("enterprise")
	// The extra comes first, as it may.
	sub := s.current()
	_, err := s.post(t.Context(), "/v1/subscriptions/"+sub.ID, url.Values{
		"items[0][id]": {sub.ItemID}, "items[0][price]": {s.priceOf("mystery")},
		"items[1][price]": {s.priceOf("enterprise_monthly")}, "proration_behavior": {"none"},
	})
	s.ok(err)
	s.tell()
	s.want("enterprise active")
	if h, err := s.BillingHealth(t.Context()); err != nil || h.UnknownPrices != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	items := func() (keys []string) {
		for _, i := range s.current().Items {
			keys = append(keys, i.LookupKey)
		}
		return keys
	}
	s.ok(s.Change(t.Context(), ann, "pro", ""))
	if c, err := s.CurrentSubscription(t.Context(), ann); err != nil || c.PendingPlan != "pro" {
		t.Errorf("%+v, %v", c, err)
	}
	if sub := s.current(); sub.LookupKey != "mystery" || sub.PendingLookupKey != "pro_monthly" {
		t.Errorf("%+v", sub)
	}
	s.ok(s.fake.Advance(29 * day))
	s.tell()
	s.want("pro active")
	s.ok(s.Change(t.Context(), ann, "enterprise", ""))
	s.want("enterprise active")
	if keys := items(); len(keys) != 2 || keys[0] != "mystery" || keys[1] != "enterprise_monthly" {
		t.Errorf("the items are %v", keys)
	}
	if c := s.compare(); c.Compared != 1 || c.Drifted != 0 {
		t.Errorf("%+v", c)
	}
}
