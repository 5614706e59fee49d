// Package accounts serves users what concerns their own account: the plan, the
// subscription, what was used. It asks the records through the store and the
// counters through the gate; whom it answers, the gate's verifiers say.
package accounts

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("quota_account", parse)
}

// Handler answers /v1/subscription/* and /v1/openapi.json, and passes
// everything else on. It authenticates by the app's verifiers itself, with or
// without a quota handler before it. What it answers costs no quota.
type Handler struct {
	app    *caddymodule.App
	server *api.Server
}

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_account", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the app (a default one where the config has none) and makes
// the API. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.App("quota")
	if err != nil {
		return fmt.Errorf("loading the app quota: %w", err)
	}
	h.app = app.(*caddymodule.App)
	h.server = api.NewServer(h.identify, ctx.Logger())
	register(h.server.API(), &service{store: h.store, peek: h.peek, now: time.Now, log: h.server.Log()})
	return nil
}

// ServeHTTP answers what is of the API and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.server.ServeHTTP(w, r, next)
}

func (h *Handler) identify(r *http.Request) (gate.Caller, error) {
	g, err := h.app.Gate()
	if err != nil {
		return gate.Caller{}, fmt.Errorf("opening the gate: %w", err)
	}
	return caddymodule.Identify(g, r)
}

func (h *Handler) peek(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error {
	g, err := h.app.Gate()
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return g.Peek(ctx, account, cs, d)
}

// store is the open store. It is asked for with each request: the records are
// opened by whoever needs them first.
func (h *Handler) store() (*store.Store, error) {
	records, err := h.app.Records()
	if err != nil {
		return nil, fmt.Errorf("opening records: %w", err)
	}
	s, ok := records.(interface{ Store() *store.Store })
	if !ok {
		return nil, fmt.Errorf("%T have no store for the companion", records)
	}
	return s.Store(), nil
}

// parse reads the directive:
//
//	quota_account [<matcher>]
func parse(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	helper.Next() // the directive's name
	if helper.NextArg() {
		return nil, helper.ArgErr()
	}
	if helper.NextBlock(0) {
		return nil, helper.Errf("quota_account has no option %q: it takes none", helper.Val())
	}
	return h, nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
