package billing_test

import (
	"context"
	"sync"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"go.uber.org/zap"
)

// hooked is a provider of whose calls a test is told before they are made.
type hooked struct {
	billing.Provider
	creating func()                          // a page
	page     func(billing.NewCheckout) error // is answered instead, if it is one
	customer func(billing.NewCustomer) error // the same
	reading  func()                          // a customer
	changing func()                          // a plan
	// ending a subscription comes to nothing if this answers an error.
	ending func(context.Context) error
}

func call(f func()) {
	if f != nil {
		f()
	}
}

func (h *hooked) CreateCheckout(ctx context.Context, c billing.NewCheckout) (billing.Checkout, error) {
	call(h.creating)
	if h.page != nil {
		if err := h.page(c); err != nil {
			return billing.Checkout{}, err
		}
	}
	return h.Provider.CreateCheckout(ctx, c)
}

func (h *hooked) CreateCustomer(ctx context.Context, c billing.NewCustomer) (string, error) {
	if h.customer != nil {
		if err := h.customer(c); err != nil {
			return "", err
		}
	}
	return h.Provider.CreateCustomer(ctx, c)
}

func (h *hooked) Subscriptions(ctx context.Context, customer string) ([]billing.Subscription, error) {
	call(h.reading)
	return h.Provider.Subscriptions(ctx, customer)
}

func (h *hooked) ChangePlan(ctx context.Context, c billing.PlanChange) error {
	call(h.changing)
	return h.Provider.ChangePlan(ctx, c)
}

func (h *hooked) End(ctx context.Context, e billing.Ending) error {
	if h.ending != nil {
		if err := h.ending(ctx); err != nil {
			return err
		}
	}
	return h.Provider.End(ctx, e)
}

// beside is another process of the shop's, whose calls the test is told of.
func (s *shop) beside(h *hooked) billing.Desk {
	h.Provider = s.provider
	return billing.NewDesk(s.Companion, h, settings(), s.now, zap.NewNop())
}

// together makes the first n callers wait for each other; who comes later passes.
func together(n int) func() {
	var mu sync.Mutex
	came, all := 0, make(chan struct{})
	return func() {
		mu.Lock()
		came++
		if came == n {
			close(all)
		}
		mu.Unlock()
		<-all
	}
}
