package billing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// Service is billing of one config: what users ask for, what the provider tells,
// and the work that runs beside both. It is safe for concurrent use.
type Service struct {
	guest Guest
	// home is where pages lead that the guest's settings say nothing of.
	home string
	open func() (*store.Companion, error)
	log  *zap.Logger

	desk    atomic.Pointer[desk] // nil until it is started
	started chan struct{}        // closed then
	turns   turns
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// startPatience bounds how long a request waits for Start. Caddy starts the apps
// of a config in any order, so that requests may be there before it; where
// another app's start fails, it never comes.
const startPatience = 5 * time.Second

// NewService is billing by a guest, over records that are opened when they are
// first needed. home is where its pages lead back to where the guest does not say.
// It does nothing before Start, for which requests wait some seconds.
func NewService(g Guest, home string, open func() (*store.Companion, error), log *zap.Logger) *Service {
	return &Service{guest: g, home: home, open: open, log: log, started: make(chan struct{})}
}

// settings are the guest's; a page that leads nowhere leads home.
func (s *Service) settings() Settings {
	set := s.guest.Settings()
	if _, pages := s.guest.(Pager); pages {
		return set // it knows its own way back
	}
	for _, u := range []*string{&set.SuccessURL, &set.CancelURL, &set.ReturnURL} {
		if *u == "" {
			*u = s.home
		}
	}
	return set
}

// RegisterMetrics puts the collectors of billing into a config's registry.
func RegisterMetrics(reg *prometheus.Registry) error { return registerMetrics(reg) }

// Start opens the provider, which dials nobody, and begins to read the customers
// of whom there is news.
func (s *Service) Start() error {
	ctx, cancel := context.WithCancel(context.Background())
	p, err := s.guest.Open(ctx, Env{Log: s.log, Deliver: s.Receive, Now: time.Now})
	if err != nil {
		cancel()
		return fmt.Errorf("opening billing: %w", err)
	}
	d := newDesk(s.open, p, s.settings(), time.Now, s.log)
	s.stop = cancel
	s.desk.Store(d)
	close(s.started)
	s.work.Go(func() { d.run(ctx) })
	s.work.Go(func() { d.reconcile(ctx) })
	return nil
}

// Stop ends what Start began, and waits for it.
func (s *Service) Stop() {
	if s.stop != nil {
		s.stop()
	}
	s.work.Wait()
}

// begun is the desk, once Start has made it.
func (s *Service) begun(ctx context.Context) (*desk, error) {
	if d := s.desk.Load(); d != nil {
		return d, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errNotStarted)
	defer cancel()
	select {
	case <-s.started:
		return s.desk.Load(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Pages are the provider's own pages below PagesPath; nil for none.
func (s *Service) Pages() http.Handler {
	p, ok := s.guest.(Pager)
	if !ok {
		return nil
	}
	pages := p.Pages()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.begun(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// Receive takes a webhook in, and answers the status for its sender: 200, 400,
// 413, or 503 for one that is to be sent again.
func (s *Service) Receive(ctx context.Context, body []byte, signature string) int {
	d, err := s.begun(ctx)
	if err != nil {
		return http.StatusServiceUnavailable
	}
	return d.receive(ctx, body, signature)
}

// Buyer is an account that asks, and who asks for it.
type Buyer struct {
	Account     quota.Subject
	User, Email string // Email may be empty
}

// Order is what a buyer wants.
type Order struct {
	Plan     string
	Interval string // month or year; empty: month, or as it is
	Quantity int64  // 0: one, or as it is
}

func (o Order) order() order { return order{plan: o.Plan, interval: o.Interval, quantity: o.Quantity} }

// Refusal is why a request of a user is not carried out.
type Refusal string

// The refusals.
const (
	AlreadySubscribed Refusal = "already_subscribed"
	NoBillingAccount  Refusal = "no_billing_account"
	NoSubscription    Refusal = "no_subscription"
	SamePlan          Refusal = "same_plan"
	PlanNotFound      Refusal = "plan_not_found"
	PlanNotForSale    Refusal = "plan_not_for_sale"
	SessionNotFound   Refusal = "session_not_found"
	AccountDeleted    Refusal = quota.CodeDeleted // while the request was under way
	PaymentDeclined   Refusal = "payment_declined"
	RefusedByProvider Refusal = "refused_by_provider"
	ProviderDown      Refusal = "billing_unavailable"
)

// RefusalOf is the refusal that an error is; empty: a fault of ours.
func RefusalOf(err error) Refusal {
	for _, known := range []struct {
		err     error
		refusal Refusal
	}{
		{errSubscribed, AlreadySubscribed}, {errNoCustomer, NoBillingAccount}, {errNothingPaid, NoSubscription}, {errSamePlan, SamePlan},
		{errNoSuchPlan, PlanNotFound}, {errNotForSale, PlanNotForSale}, {errNoSession, SessionNotFound}, {ErrDeclined, PaymentDeclined}, {ErrRefused, RefusedByProvider},
		{store.ErrUserDeleted, AccountDeleted}, {ErrUnavailable, ProviderDown}, {ErrNotFound, ProviderDown}, {errNotStarted, ProviderDown},
	} {
		if errors.Is(err, known.err) {
			return known.refusal
		}
	}
	return ""
}

// errNotStarted is for requests that no Start has followed.
var errNotStarted = errors.New("billing is not started yet")

// do runs a request of a user and counts what became of it.
func (s *Service) do(ctx context.Context, account quota.Subject, operation string, f func(*desk, *store.Companion) error) error {
	err := s.inTurn(ctx, account, f)
	outcome := string(RefusalOf(err))
	switch {
	case err == nil:
		outcome = "done"
	case outcome == "":
		outcome = "failed"
	}
	purchases.WithLabelValues(operation, outcome).Inc()
	return err
}

func (s *Service) inTurn(ctx context.Context, account quota.Subject, f func(*desk, *store.Companion) error) error {
	d, err := s.begun(ctx)
	if err != nil {
		return err
	}
	st, err := d.store()
	if err != nil {
		return err
	}
	giveBack, err := s.turns.take(ctx, account)
	if err != nil {
		return fmt.Errorf("waiting for another request of the account: %w", err)
	}
	defer giveBack()
	return f(d, st)
}

// Checkout opens a page on which the buyer pays for a plan, or answers the one
// that is open already.
func (s *Service) Checkout(ctx context.Context, b Buyer, o Order) (page *store.CheckoutSession, err error) {
	err = s.do(ctx, b.Account, "checkout", func(d *desk, st *store.Companion) error {
		page, err = d.checkout(ctx, st, buyer{account: b.Account, user: b.User, email: b.Email}, o.order())
		return err
	})
	return page, err
}

// Portal opens the page on which the account manages what it has.
func (s *Service) Portal(ctx context.Context, account quota.Subject) (address string, err error) {
	err = s.do(ctx, account, "portal", func(d *desk, st *store.Companion) error {
		address, err = d.portal(ctx, st, account)
		return err
	})
	return address, err
}

// Sync reads what the account has from the provider now. A checkout session may
// be named, and is then the account's own, or the request is refused.
func (s *Service) Sync(ctx context.Context, account quota.Subject, session string) error {
	return s.do(ctx, account, "sync", func(d *desk, st *store.Companion) error { return d.sync(ctx, st, account, session) })
}

// Preview says what Change would cost.
func (s *Service) Preview(ctx context.Context, account quota.Subject, o Order) (p Preview, err error) {
	err = s.do(ctx, account, "preview", func(d *desk, st *store.Companion) error {
		p, err = d.preview(ctx, st, account, o.order())
		return err
	})
	return p, err
}

// Change moves the account to another plan: at once if that is more, when the
// period ends if it is less.
func (s *Service) Change(ctx context.Context, account quota.Subject, o Order) error {
	return s.do(ctx, account, "change", func(d *desk, st *store.Companion) error { return d.change(ctx, st, account, o.order()) })
}

// End cancels at a moment, or takes back what is pending.
func (s *Service) End(ctx context.Context, account quota.Subject, when When) error {
	operation := "cancel"
	if when == Never {
		operation = "resume"
	}
	return s.do(ctx, account, operation, func(d *desk, st *store.Companion) error { return d.end(ctx, st, account, when) })
}

// Nudge has the worker look at what was queued.
func (s *Service) Nudge() {
	if d := s.desk.Load(); d != nil {
		d.nudge()
	}
}

// errPlayed is for a provider that only the companion's own process can ask.
var errPlayed = errors.New("this payment provider is played by the companion's process: ask for what it has found itself, without --now")

// Compare compares all subscriptions with the provider now, from a process in
// which nothing was started. It changes nothing.
func (s *Service) Compare(ctx context.Context) (*Comparison, error) {
	if _, played := s.guest.(Pager); played {
		return nil, errPlayed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := s.guest.Open(ctx, Env{Log: s.log, Deliver: s.Receive, Now: time.Now})
	if err != nil {
		return nil, fmt.Errorf("opening billing: %w", err)
	}
	st, err := s.open()
	if err != nil {
		return nil, err
	}
	d := newDesk(s.open, p, s.settings(), time.Now, s.log)
	return d.compare(ctx, st, func(Drift) error { return nil })
}
