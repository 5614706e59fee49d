package billing

import (
	"context"
	"sync"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// turns lets one request of an account at a time ask the provider: who clicks
// without end must not use up what the provider answers to all.
type turns struct {
	mu   sync.Mutex
	held map[quota.Subject]*turn
}

// turn is an account's. Whoever has put something into the channel has it.
type turn struct {
	taken chan struct{}
	users int // who have it or wait for it
}

// take waits for the account's turn, and answers how to give it back.
func (t *turns) take(ctx context.Context, account quota.Subject) (giveBack func(), err error) {
	t.mu.Lock()
	if t.held == nil {
		t.held = map[quota.Subject]*turn{}
	}
	of := t.held[account]
	if of == nil {
		of = &turn{taken: make(chan struct{}, 1)}
		t.held[account] = of
	}
	of.users++
	t.mu.Unlock()
	select {
	case of.taken <- struct{}{}:
		return func() {
			<-of.taken
			t.leave(account, of)
		}, nil
	case <-ctx.Done():
		t.leave(account, of)
		return nil, context.Cause(ctx)
	}
}

func (t *turns) leave(account quota.Subject, of *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if of.users--; of.users == 0 {
		delete(t.held, account)
	}
}
