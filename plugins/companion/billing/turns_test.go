package billing_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"go.uber.org/zap"
)

// counted is a guest whose provider says how many ask it at once.
type counted struct {
	guest
	hook *hooked
}

func (c counted) Open(ctx context.Context, env billing.Env) (p billing.Provider, err error) {
	c.hook.Provider, err = c.guest.Open(ctx, env)
	return c.hook, err
}

// An account asks the provider once at a time, however often it clicks; others
// need not wait for it, and who leaves waits no more.
func TestOneRequestOfAnAccountAtATime(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	var now, most atomic.Int64
	inside, goOn := make(chan struct{}), make(chan struct{})
	h := &hooked{reading: func() {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		inside <- struct{}{}
		<-goOn
		now.Add(-1)
	}}
	sv := billing.NewService(counted{s.guest(), h}, "", func() (*store.Companion, error) { return s.Companion, nil }, zap.NewNop())
	for account, customer := range map[quota.Subject]string{ann: "cus_ann", "user:bob": "cus_bob"} {
		_, err := s.SetCustomer(t.Context(), account, customer)
		s.ok(err)
	}
	s.ok(sv.Open())
	defer sv.Stop()
	var all sync.WaitGroup
	ask := func(ctx context.Context, account quota.Subject) {
		all.Go(func() {
			// The provider has never heard of them: what is counted is that it was asked.
			if err := sv.Sync(ctx, account, ""); !errors.Is(err, billing.ErrNotFound) && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", account, err)
			}
		})
	}
	gone, leave := context.WithCancel(t.Context())
	for range 5 {
		ask(t.Context(), ann)
	}
	<-inside
	ask(gone, ann)
	leave() // while the first one asks
	ask(t.Context(), "user:bob")
	<-inside // bob did not wait
	if n := most.Load(); n != 2 {
		t.Errorf("%d ask at once", n)
	}
	goOn <- struct{}{}
	goOn <- struct{}{}
	for range 4 {
		<-inside
		goOn <- struct{}{}
	}
	all.Wait()
	if n := most.Load(); n != 2 {
		t.Errorf("%d asked at once", n)
	}
	if status := sv.Receive(t.Context(), nil, ""); status != http.StatusBadRequest {
		t.Errorf("answered %d", status)
	}
}
