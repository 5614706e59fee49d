package billing_test

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
)

// paid is a page that was paid, of which everything was told and nothing read.
func (s *shop) paid() {
	s.Helper()
	page, err := s.Checkout(s.Context(), ann, "pro", "")
	s.ok(err)
	_, err = s.fake.Pay(page.ID, "pm_card_visa")
	s.ok(err)
	s.fake.Take()
	s.ok(s.RequestSync(s.Context(), s.customer(), "test"))
}

// A process that stops gives back what it was reading: nobody waits for its lease.
func TestStoppedWorkerGivesBack(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { s.beside(&hooked{reading: stop}).Run(ctx) })
	work.Wait()
	s.drain()
	s.want("pro active")
}

// A customer whose reading panics takes nobody else with it, and is tried again.
func TestPanicIsAFailedRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	desk := s.beside(&hooked{reading: func() { panic("a page that nobody thought of") }})
	if n, err := desk.Round(t.Context()); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	h, err := s.BillingHealth(t.Context())
	if next := s.nextAttempt(); err != nil || h.Pending != 1 || !next.After(s.now()) {
		t.Errorf("%+v, %v; next at %s", h, err, next)
	}
	s.offset = time.Minute
	s.drain()
	s.want("pro active")
}

// A customer that kills whoever reads it is read less and less often, and given up
// in the end.
func TestDeadlyCustomer(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	for deaths := 0; deaths <= 100; s.offset += 5 * minute {
		n, err := s.Die(t.Context())
		s.ok(err)
		deaths += n
	}
	if s.offset < day {
		t.Errorf("it has killed a hundred in %s", s.offset)
	}
	s.offset += time.Hour
	s.drain()
	if h, err := s.BillingHealth(t.Context()); err != nil || h.Dead != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	s.ok(s.RequestSync(t.Context(), s.customer(), "news"))
	s.drain()
	s.want("pro active")
}

// While the provider is down it shows how long somebody who has paid has been
// waiting, though each attempt to read puts the next one off.
func TestWaitingShowsWhileTheProviderIsDown(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	desk := s.beside(&hooked{reading: func() { panic("down") }})
	paid, attempts := s.now(), 0
	for range 12 * 60 {
		n, err := desk.Round(t.Context())
		s.ok(err)
		attempts += n
		h, err := s.BillingHealth(t.Context())
		if err != nil || h.Pending != 1 || !h.OldestDue.Equal(paid) {
			t.Fatalf("%+v, %v; paid at %s", h, err, paid)
		}
		s.offset += minute
	}
	if attempts > 60 {
		t.Errorf("tried %d times in 12 hours", attempts)
	}
}

// News that come while a customer who was put off is read at last are read next:
// the provider is up again.
func TestNewsDuringASuccessfulRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.paid()
	jobs, err := s.LeaseSyncs(t.Context(), "another", 1, func(int64) time.Duration { return time.Minute })
	s.ok(err)
	s.ok(s.FailSync(t.Context(), jobs[0], store.SyncFailure{Reason: "down", Retry: 15 * time.Minute}))
	desk := s.beside(&hooked{reading: func() { s.ok(s.RequestSync(t.Context(), s.customer(), "webhook")) }})
	s.ok(desk.Return(t.Context(), ann, ""))
	if n, err := s.Round(t.Context()); err != nil || n != 1 {
		t.Errorf("%d were read, %v; the next is to be at %s", n, err, s.nextAttempt())
	}
}

// Who could not read a customer does not give up what another has read meanwhile.
func TestFailureAfterAnothersRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.ok(s.RequestSync(t.Context(), s.customer(), "test"))
	jobs, err := s.LeaseSyncs(t.Context(), "another", 1, func(int64) time.Duration { return time.Minute })
	s.ok(err)
	s.ok(s.Return(t.Context(), ann, ""))
	s.ok(s.FailSync(t.Context(), jobs[0], store.SyncFailure{Reason: "refused", Dead: true}))
	s.drain()
	if h, err := s.BillingHealth(t.Context()); err != nil || h.Dead != 0 || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	s.want("pro active")
}

// Of customers that no account is nothing is read: the provider's account may be
// shared with others, who are many.
func TestForeignCustomersAreNotRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.fake.Take() // of its prices
	for range 20 {
		_, err := s.post(t.Context(), "/v1/customers", url.Values{"email": {"stranger@example.com"}})
		s.ok(err)
	}
	var reads atomic.Int64
	desk := s.beside(&hooked{reading: func() { reads.Add(1) }})
	for _, m := range s.fake.Take() {
		s.deliver(m)
	}
	for {
		n, err := desk.Round(t.Context())
		s.ok(err)
		if n == 0 {
			break
		}
	}
	h, err := s.BillingHealth(t.Context())
	if n := reads.Load(); n != 0 || err != nil || h.Pending != 0 || h.Dead != 0 {
		t.Errorf("%d were read; %+v, %v", n, h, err)
	}
	events, total, err := s.BillingEvents(t.Context(), 0, 10)
	if err != nil || total != 20 {
		t.Fatalf("%d of their events were kept, %v", total, err)
	}
	// A customer is one account's, and no other can be made to pay by it.
	if _, err := s.SetCustomer(t.Context(), "user:bob", events[0].Customer); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetCustomer(t.Context(), ann, events[0].Customer); err == nil {
		t.Error("one customer is two accounts")
	}
}
