package companion

import (
	"context"
	"fmt"
	"net/http"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Identify says who asks, by the verifiers of the app `quota`: the companion's
// handlers know their callers with or without a quota handler before them.
func (a *App) Identify(r *http.Request) (gate.Caller, error) {
	g, err := a.quota.Gate()
	if err != nil {
		return gate.Caller{}, fmt.Errorf("opening the gate: %w", err)
	}
	return caddymodule.Identify(g, r)
}

// CatchUp returns when this process judges requests by what was changed before, as
// gate.Runtime.CatchUp does.
func (a *App) CatchUp(ctx context.Context) {
	if g, err := a.quota.Gate(); err == nil {
		g.Runtime().CatchUp(ctx)
	}
}

// Peek asks the counters what the charges would find, and takes nothing.
func (a *App) Peek(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error {
	g, err := a.quota.Gate()
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return g.Peek(ctx, account, cs, d)
}
