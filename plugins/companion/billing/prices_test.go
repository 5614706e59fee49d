package billing_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// plans changes the plans' document.
func (s *shop) plans(change func(p *store.PlanDocument)) {
	s.Helper()
	doc, err := s.ExportPlans(s.Context())
	s.ok(err)
	for i := range doc.Plans {
		change(&doc.Plans[i])
	}
	_, err = s.ApplyPlans(s.Context(), store.Actor{Type: store.ActorCLI}, doc)
	s.ok(err)
}

// priceOf is the id of the price that a lookup key finds.
func (s *shop) priceOf(key string) string {
	s.Helper()
	v, err := s.post(s.Context(), "/v1/prices?lookup_keys[]="+key, nil)
	s.ok(err)
	return v["data"].([]any)[0].(map[string]any)["id"].(string)
}

// A price that no plan knows raises an alert and changes nothing, until a plan
// gets it and the event is replayed.
func TestUnknownPrice(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	core, logs := observer.New(zap.ErrorLevel)
	s.Desk = billing.NewDesk(s.Companion, s.provider, settings(), s.now, zap.New(core))
	s.buy("pro")
	sub := s.current()
	move := func(key string) {
		t.Helper()
		_, err := s.post(t.Context(), "/v1/subscriptions/"+sub.ID, url.Values{"items[0][id]": {sub.ItemID}, "items[0][price]": {s.priceOf(key)}})
		s.ok(err)
		s.tell()
	}
	card, err := s.post(t.Context(), "/v1/payment_methods/pm_card_visa/attach", url.Values{"customer": {s.customer()}})
	s.ok(err)
	_, err = s.post(t.Context(), "/v1/customers/"+s.customer(), url.Values{"invoice_settings[default_payment_method]": {card["id"].(string)}})
	s.ok(err)
	_, err = s.post(t.Context(), "/v1/subscriptions", url.Values{"customer": {s.customer()}, "items[0][price]": {s.priceOf("mystery")}})
	s.ok(err)
	s.tell()
	s.want("pro active") // beside it
	unknown := func(want int64) {
		t.Helper()
		if h, err := s.BillingHealth(t.Context()); err != nil || h.UnknownPrices != want {
			t.Errorf("%+v, %v; want %d", h, err, want)
		}
	}
	unknown(1)
	if n := logs.FilterField(zap.String("price", s.priceOf("mystery"))).Len(); n == 0 {
		t.Error("nothing was logged of it")
	}
	move("mystery")
	s.want("free ")
	unknown(2)
	amount := int64(1)
	s.plans(func(p *store.PlanDocument) {
		if p.Name == "enterprise" {
			p.Prices = append(p.Prices, store.PriceDocument{Interval: "month", Currency: "usd", UnitAmount: &amount, PriceID: s.priceOf("mystery")})
		}
	})
	events, _, err := s.BillingEvents(t.Context(), 0, 100)
	s.ok(err)
	of := slices.IndexFunc(events, func(e store.ReceivedEvent) bool { return e.Customer == s.customer() })
	s.ok(s.ReplayEvent(t.Context(), store.Actor{Type: store.ActorCLI}, events[of].ID))
	s.drain()
	s.want("enterprise active")
	unknown(0)
	move("pro_monthly")
	s.want("enterprise active") // by the other subscription, which is the better one
}

// A plan gets another price of the same amount at the provider, loses it, and gets
// the first one back: who pays either keeps the plan.
func TestAnotherPriceOfTheSameAmount(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	product, err := s.post(t.Context(), "/v1/products", url.Values{"name": {"Pro"}})
	s.ok(err)
	price := func() string {
		p, err := s.post(t.Context(), "/v1/prices", url.Values{
			"product": {product["id"].(string)}, "currency": {"usd"}, "unit_amount": {"1999"}, "recurring[interval]": {"month"},
		})
		s.ok(err)
		return p["id"].(string)
	}
	sell := func(id, key string) {
		s.plans(func(p *store.PlanDocument) {
			if p.Name != "pro" {
				return
			}
			for i := range p.Prices {
				if p.Prices[i].Interval == "month" {
					p.Prices[i].PriceID, p.Prices[i].LookupKey = id, key
				}
			}
		})
	}
	first, second := price(), price()
	sell(first, "")
	s.buy("pro")
	for _, next := range []struct{ id, key string }{{second, ""}, {"", "pro_monthly"}, {first, ""}} {
		sell(next.id, next.key)
		s.ok(s.Sync(t.Context(), s.customer()))
		s.want("pro active")
		if h, err := s.BillingHealth(t.Context()); err != nil || h.UnknownPrices != 0 {
			t.Errorf("%+v, %v", h, err)
		}
		doc, err := s.ExportPlans(t.Context())
		s.ok(err)
		for _, p := range doc.Plans {
			if p.Name == "pro" && (len(p.Prices) != 2 || p.Prices[0].PriceID != next.id && p.Prices[1].PriceID != next.id) {
				t.Errorf("sold are %+v, want %v", p.Prices, next)
			}
		}
	}
}

// buySeats has ann buy pro, priced by seats, for so many.
func (s *shop) buySeats(n int64) {
	s.Helper()
	s.plans(func(p *store.PlanDocument) {
		for i := range p.Prices {
			p.Prices[i].PerSeat = p.Name == "pro"
		}
	})
	page, err := s.Order(s.Context(), ann, "pro", n)
	s.ok(err)
	_, err = s.fake.Pay(page.ID, "pm_card_visa")
	s.ok(err)
	s.tell()
}

// Seats are bought of a plan that is priced by them, and are not taken along to
// one that is not.
func TestSeats(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buySeats(5)
	if sub := s.current(); sub.Quantity != 5 {
		t.Errorf("%d seats", sub.Quantity)
	}
	s.ok(s.ChangeSeats(t.Context(), ann, "pro", 7)) // more: at once
	if sub := s.current(); sub.Quantity != 7 {
		t.Errorf("%d seats", sub.Quantity)
	}
	s.ok(s.ChangeSeats(t.Context(), ann, "enterprise", 0))
	if sub := s.current(); sub.Quantity != 1 || sub.LookupKey != "enterprise_monthly" {
		t.Errorf("%d times %s", sub.Quantity, sub.LookupKey)
	}
	if _, err := s.Order(t.Context(), "user:bob", "enterprise", 2); err == nil {
		t.Error("two of what is not sold by seats")
	}
	if err := s.ChangeSeats(t.Context(), ann, "enterprise", 2); err == nil {
		t.Error("a change to two of what is not sold by seats")
	}
}

// What a trial of a year's price is changed to is paid by the year.
func TestIntervalIsThePrices(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.plans(func(p *store.PlanDocument) {
		if p.Name == "pro" {
			p.TrialDays = 14
		}
	})
	page, err := s.Checkout(t.Context(), ann, "pro", "year")
	s.ok(err)
	_, err = s.fake.Pay(page.ID, "pm_card_visa")
	s.ok(err)
	s.tell()
	s.want("pro trial")
	s.ok(s.Change(t.Context(), ann, "enterprise", ""))
	if sub := s.current(); sub.LookupKey != "enterprise_yearly" {
		t.Errorf("now of %s", sub.LookupKey)
	}
}

// A webhook that cannot be kept is not acknowledged; it is taken when it comes again.
func TestWebhookWhileTheRecordsAreDown(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	m := s.event()
	signed := stripefake.Signature(m.Payload, whsec, s.now())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if status := s.Receive(gone, m.Payload, signed); status != http.StatusServiceUnavailable {
		t.Errorf("answered %d", status)
	}
	if _, total, err := s.BillingEvents(t.Context(), 0, 1); err != nil || total != 0 {
		t.Errorf("%d were kept, %v", total, err)
	}
	for range 2 {
		if status := s.Receive(t.Context(), m.Payload, signed); status != http.StatusOK {
			t.Errorf("answered %d", status)
		}
	}
	if _, total, err := s.BillingEvents(t.Context(), 0, 1); err != nil || total != 1 {
		t.Errorf("%d were kept, %v", total, err)
	}
	s.ok(s.db.Close())
	if status := s.Receive(t.Context(), m.Payload, signed); status != http.StatusServiceUnavailable {
		t.Errorf("without records: %d", status)
	}
	if err := s.Sync(t.Context(), "cus_1"); err == nil || errors.Is(err, billing.ErrUnavailable) {
		t.Errorf("a fault of ours passes for the provider's: %v", err)
	}
}

// event makes the provider tell of something.
func (s *shop) event() stripefake.Message {
	s.Helper()
	_, err := s.post(s.Context(), "/v1/customers/"+s.customer(), url.Values{"name": {"Ann"}})
	s.ok(err)
	messages := s.fake.Take()
	if len(messages) != 1 {
		s.Fatalf("%d messages", len(messages))
	}
	return messages[0]
}
