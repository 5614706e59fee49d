package billing_test

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
)

// remove deletes ann.
func (s *shop) remove() {
	s.Helper()
	_, err := s.RemoveUser(s.Context(), store.Actor{Type: store.ActorCLI}, ann.ID(), store.Removal{Reason: "asked"})
	s.ok(err)
}

// wantEnded lets leases run out, and checks that ann pays nothing and that nothing
// is left to do.
func (s *shop) wantEnded() {
	s.Helper()
	s.offset += time.Hour
	s.drain()
	subs, err := s.provider.Subscriptions(s.Context(), s.customer())
	s.ok(err)
	for _, sub := range subs {
		if sub.Status != "canceled" {
			s.Errorf("%s is %s", sub.ID, sub.Status)
		}
	}
	if h, err := s.BillingHealth(s.Context()); err != nil || h.Pending != 0 || h.Dead != 0 {
		s.Errorf("%+v, %v", h, err)
	}
}

// A process that is stopped, or killed, while it ends what a deleted user pays
// leaves that to the next one.
func TestEndingThatBreaksOff(t *testing.T) {
	t.Parallel()
	for name, work := range map[string]func(s *shop){
		"stopped": func(s *shop) {
			ctx, stop := context.WithCancel(s.Context())
			desk := s.beside(&hooked{ending: func(ctx context.Context) error {
				stop()
				<-ctx.Done()
				return ctx.Err()
			}})
			var all sync.WaitGroup
			all.Go(func() { desk.Run(ctx) })
			all.Wait()
		},
		"killed": func(s *shop) {
			desk := s.beside(&hooked{ending: func(context.Context) error {
				runtime.Goexit()
				return nil
			}})
			_, err := desk.Round(s.Context())
			s.ok(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.buy("pro")
			s.remove()
			work(s)
			if sub := s.current(); sub.Status != "active" {
				t.Fatalf("ended after all: %+v", sub)
			}
			s.wantEnded()
		})
	}
}

// A provider that refuses to end what a deleted user pays is asked five times, each
// time after a longer pause, and then no more, which is an alert. One that it
// refuses keeps no other from being ended.
func TestEndingThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.subscribe("enterprise_monthly")
	s.tell()
	s.remove()
	var asked []time.Time
	refusing := s.beside(&hooked{ending: func(context.Context) error {
		if asked = append(asked, s.now()); len(asked) == 2 {
			return nil // the second of the first time
		}
		return billing.ErrRefused
	}})
	for range 1000 {
		_, err := refusing.Round(t.Context())
		s.ok(err)
		s.offset += time.Second
	}
	h, err := s.BillingHealth(t.Context())
	if err != nil || h.Dead != 1 || h.Pending != 0 || len(asked) != 6 || asked[5].Sub(asked[4]) < 4*asked[2].Sub(asked[0]) {
		t.Errorf("%+v, %v; asked at %v", h, err, asked)
	}
	subs, err := s.provider.Subscriptions(t.Context(), s.customer())
	if err != nil || len(subs) != 2 || (subs[0].Status == "canceled") == (subs[1].Status == "canceled") {
		t.Errorf("one was to be ended: %+v, %v", subs, err)
	}
	s.ok(s.RequestSync(t.Context(), s.customer(), "replay"))
	s.wantEnded()
}

// On a page that is open when its user is deleted nobody pays any more.
func TestDeletedUserHasNoPage(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	page, err := s.Checkout(t.Context(), ann, "pro", "")
	s.ok(err)
	s.remove()
	s.drain()
	if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err == nil {
		t.Error("a deleted user has paid")
	}
	if h, err := s.BillingHealth(t.Context()); err != nil || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// A page that is being opened when its user is deleted is closed again: the read
// that the deletion asks for may be over by then.
func TestDeletedWhileAPageIsOpened(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	_, err := s.CustomerOf(t.Context(), ann, "")
	s.ok(err)
	desk := s.beside(&hooked{creating: func() {
		s.remove()
		s.drain()
	}})
	if page, err := desk.Checkout(t.Context(), ann, "pro", ""); billing.RefusalOf(err) != billing.AccountDeleted {
		t.Errorf("%+v, %v", page, err)
	}
	if open := s.openPages(); len(open) != 0 {
		t.Errorf("a deleted user may pay on %v", open)
	}
}

// A deleted user pays no more, however long the provider is down.
func TestDeletedUserPaysNoMore(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.remove()
	s.fake.Inject(stripefake.Fault{Method: http.MethodDelete, Status: 500, Times: -1})
	s.drain()
	s.fake.Heal()
	subs, err := s.provider.Subscriptions(t.Context(), s.customer())
	if err != nil || subs[0].Status != "active" {
		t.Fatalf("%+v, %v", subs, err)
	}
	s.offset += time.Hour
	s.drain()
	if subs, err = s.provider.Subscriptions(t.Context(), s.customer()); err != nil || subs[0].Status != "canceled" {
		t.Errorf("%+v, %v", subs, err)
	}
	if h, err := s.BillingHealth(t.Context()); err != nil || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}
