// Package admin serves operators: it answers /v1/admin/*, for superadmins only.
// What an endpoint does to the records is in package store, in one transaction
// with its audit event; here are the words of the API, who may use it, and what
// it answers.
//
// How to add an endpoint:
//
//  1. A method of the store that takes a store.Actor and writes through audited:
//     it changes rows, notes an AuditEvent for what it did (and an OutboxEvent, if
//     others are to be told), and answers errors that failure knows.
//  2. An input and an answer type in a file of this package, with `json`, `doc`
//     and bounds in tags. Type names are shared by all handlers: they become the
//     schemas of the API, so that two of one name are refused at the start. A list
//     embeds api.Page, a change of something that has versions api.Match.
//     Unknown members of a body are refused by themselves.
//  3. A line in register that calls add with the operation. add gives it the
//     store, who asks (api.Actor), errors, and the place in the OpenAPI document.
//     POST operations take an Idempotency-Key by themselves.
//  4. go test ./plugins/companion -run OpenAPI -update, a test here, and a row in
//     docs/reference/quota-admin.md.
package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/plugins/companion"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("quota_admin", parse)
}

// Handler answers /v1/admin/* and passes everything else on. It authenticates
// by the verifiers of the app `quota` itself, with or without a quota handler
// before it. What it answers costs no quota.
type Handler struct {
	app    *companion.App
	server *api.Server
}

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_admin", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the companion's app (a default one where the config has none)
// and makes the API. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := companion.Load(ctx)
	if err != nil {
		return err
	}
	h.app = app
	h.server = api.NewServer(app.Identify, ctx.Logger(), api.In(app.Description()), api.CatchUp(app.CatchUp))
	s := &service{
		store: app.Store, bootstraps: app.Bootstraps, lists: app.Lists, peek: app.Peek, reset: h.reset, learn: h.learn, process: h.process, local: app.CountsAlone,
		hostKeys: app.HostKeys(), now: time.Now, log: h.server.Log(),
	}
	if b := app.Billing(); b != nil {
		s.nudge = b.Nudge
	}
	if box := app.Box(); box != nil {
		s.seal = func(userID, email string) string { return box.Seal(email, sealedEmail+userID) }
		s.unseal = func(userID, sealed string) (string, error) { return box.Open(sealed, sealedEmail+userID) }
	}
	mount(h.server, s)
	return nil
}

// sealedEmail is where an e-mail address is sealed: it opens nowhere else.
const sealedEmail = "user_controls.original_email/"

// ServeHTTP answers what is of the API and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.server.ServeHTTP(w, r, next)
}

func (h *Handler) reset(ctx context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	counters, err := h.app.Quota().Counters()
	if err != nil {
		return nil, fmt.Errorf("opening counters: %w", err)
	}
	return counters.Reset(ctx, subject, scopes)
}

// learn flushes what this process has counted, and with it the callers seen, to its
// end: a client that leaves is no fault of the records.
func (h *Handler) learn(ctx context.Context) error {
	g, err := h.app.Quota().Gate()
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return g.Runtime().Flush(context.WithoutCancel(ctx))
}

// process is what the records call this process.
func (h *Handler) process() string {
	g, err := h.app.Quota().Gate()
	if err != nil {
		return ""
	}
	return g.Runtime().Process()
}

// parse reads the directive:
//
//	quota_admin [<matcher>]
func parse(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return new(Handler), block.Bare(helper.Dispenser)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
