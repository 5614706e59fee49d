// Package purchases serves users what concerns paying: checkout, portal, changes
// of plan, invoices, and the payment provider its webhook. What is done is in
// package billing; here are the words of the API, who may use it, and what it
// answers.
package purchases

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/plugins/companion"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/billing"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("quota_billing", parse)
}

// WebhookPath is where the payment provider sends its events.
const WebhookPath = "/v1/billing/webhook"

// Handler answers /v1/billing/* and passes everything else on; everything, where
// the config has no payment provider. It authenticates by the verifiers of the
// app `quota` itself, with or without a quota handler before it. What it answers
// costs no quota.
type Handler struct {
	billing *billing.Service
	server  *api.Server
	pages   http.Handler // nil: the provider has its own elsewhere
}

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_billing", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the companion's app and makes the API. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := companion.Load(ctx)
	if err != nil {
		return err
	}
	h.billing = app.Billing()
	if h.billing == nil {
		return nil
	}
	h.pages = h.billing.Pages()
	h.server = api.NewServer(app.Identify, ctx.Logger(), api.In(app.Description()), api.CatchUp(app.CatchUp))
	mount(h.server, &service{store: app.Store, billing: h.billing, log: h.server.Log()})
	return nil
}

// ServeHTTP answers what is of billing and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch {
	case h.billing == nil || !strings.HasPrefix(r.URL.Path, "/v1/billing/"):
		return next.ServeHTTP(w, r)
	case r.URL.Path == WebhookPath && r.Method == http.MethodPost:
		if !caddymodule.Explaining(r.Context()) {
			h.receive(w, r)
		}
		return nil
	case h.pages != nil && strings.HasPrefix(r.URL.Path, billing.PagesPath):
		if !caddymodule.Explaining(r.Context()) {
			h.pages.ServeHTTP(w, r)
		}
		return nil
	}
	return h.server.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), siteKey{}, siteOf(r))), next)
}

// receive takes a webhook in: the body as it came, since it is signed.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, billing.MaxWebhook))
	if errors.As(err, new(*http.MaxBytesError)) {
		api.Write(w, api.NewError(http.StatusRequestEntityTooLarge, "The webhook is too large"))
		return
	}
	if err != nil {
		api.Write(w, api.NewError(http.StatusBadRequest, "The webhook's body broke off"))
		return
	}
	switch status := h.billing.Receive(r.Context(), body, r.Header.Get("Stripe-Signature")); status {
	case http.StatusOK:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"success"}`) // only a client that has left makes this fail
	case http.StatusServiceUnavailable:
		api.Write(w, api.Unavailable())
	default:
		api.Write(w, api.NewError(status, "The webhook was refused"))
	}
}

type siteKey struct{}

// siteOf is scheme and host by which the client reaches the site. A proxy in
// front is believed if the server trusts it.
func siteOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if said := r.Header.Get("X-Forwarded-Proto"); said == "http" || said == "https" {
			scheme = said
		}
	}
	return scheme + "://" + r.Host
}

// absolute completes an address that begins at the site's root.
func absolute(ctx context.Context, address string) string {
	site, _ := ctx.Value(siteKey{}).(string)
	if !strings.HasPrefix(address, "/") {
		return address
	}
	return site + address
}

// parse reads the directive:
//
//	quota_billing [<matcher>]
func parse(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Handler), block.Bare(helper.Dispenser)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
