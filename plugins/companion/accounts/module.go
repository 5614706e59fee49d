// Package accounts serves users what concerns their own account: the plan, the
// subscription, what was used. It asks the records through the store and the
// counters through the gate; whom it answers, the gate's verifiers say.
package accounts

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/plugins/companion"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("quota_account", parse)
}

// Handler answers /v1/subscription/*, /v1/usage/history and /v1/openapi.json, and
// passes everything else on. It authenticates by the app's verifiers itself, with or
// without a quota handler before it. What it answers costs no quota.
type Handler struct {
	server *api.Server
}

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_account", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the companion's app (a default one where the config has none) and makes
// the API. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := companion.Load(ctx)
	if err != nil {
		return err
	}
	h.server = api.NewServer(app.Identify, ctx.Logger(), api.In(app.Description()))
	register(h.server.API(), &service{store: app.Store, peek: app.Peek, now: time.Now, log: h.server.Log()})
	return nil
}

// ServeHTTP answers what is of the API and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.server.ServeHTTP(w, r, next)
}

// parse reads the directive:
//
//	quota_account [<matcher>]
func parse(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Handler), block.Bare(helper.Dispenser)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
