// Package accounts serves users what concerns their own account: the plan, the
// subscription, what was used. It asks the records through the store and the
// counters through the gate; whom it answers, the gate's verifiers say.
package accounts

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("quota_account", parse)
}

// Handler answers /v1/subscription/* and /v1/openapi.json, and passes
// everything else on. It authenticates by the app's verifiers itself, with or
// without a quota handler before it.
type Handler struct {
	app *caddymodule.App
	log *zap.Logger
	mux *http.ServeMux
}

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_account", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the app and makes the API. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.App("quota")
	if err != nil {
		return fmt.Errorf("loading the app quota: %w", err)
	}
	h.app, h.log = app.(*caddymodule.App), ctx.Logger()
	h.mux = http.NewServeMux()
	register(api.New(h.mux), &service{store: h.store, gate: h.app.Gate, log: h.log})
	return nil
}

// store is the open store. It is asked for with each request: the records are
// opened by whoever needs them first.
func (h *Handler) store() (*store.Store, error) {
	records, err := h.app.Records()
	if err != nil {
		return nil, err
	}
	s, ok := records.(interface{ Store() *store.Store })
	if !ok {
		return nil, errors.New("these records have no store for the companion")
	}
	return s.Store(), nil
}

// ServeHTTP answers what is of the API and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if answer.IsPreflight(r) {
		return next.ServeHTTP(w, r)
	}
	if _, pattern := h.mux.Handler(r); pattern == "" {
		return next.ServeHTTP(w, r)
	}
	g, err := h.app.Gate()
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	caller, err := caddymodule.Identify(g, r)
	if d := (*quota.Denial)(nil); errors.As(err, &d) {
		return answer.Write(w, r, d, answer.Options{})
	}
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, api.WithCaller(r, &caller))
	return nil
}

// UnmarshalCaddyfile parses:
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
