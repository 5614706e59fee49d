package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/block"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Health{})
	httpcaddyfile.RegisterHandlerDirective("quota_health", parseHealth)
}

// The paths that Health answers.
const (
	pathLive  = "/livez"
	pathReady = "/readyz"
)

// The words of a report.
const (
	statusOK       = "ok"
	statusReady    = "ready"
	statusDegraded = "degraded"
	statusFailed   = "failed"
)

// Health answers GET and HEAD of /livez and /readyz; any other request goes to
// the next handler. /livez says that the process serves. /readyz says whether
// it does so with all that it depends on: a gateway whose records or counters
// are unreachable goes on by its outage policy, so it stays in its load
// balancer (200, degraded) and is taken out only where it cannot judge at all
// (503).
type Health struct {
	ctx   caddy.Context
	log   *zap.Logger
	probe *probe
}

// Report is the body of /readyz.
type Report struct {
	// Status is ready, degraded or failed.
	Status string `json:"status"`
	// Checks are by dependency: records and counters. Without an app `quota` in
	// the config there are none.
	Checks map[string]Check `json:"checks"`
}

// Check is the state of one dependency.
type Check struct {
	// Status is ok, degraded or failed.
	Status string `json:"status"`
	// Detail is what is wrong, in words that reveal neither addresses nor
	// secrets: the error itself is in the log.
	Detail string `json:"detail,omitempty"`
}

// CaddyModule returns the module's information.
func (Health) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_health", New: func() caddy.Module { return new(Health) }}
}

// Provision keeps the context: which app there is shows only when all of the
// config is loaded, and none is made for the sake of a health check.
func (h *Health) Provision(ctx caddy.Context) error {
	h.ctx, h.log = ctx, ctx.Logger()
	h.probe = newProbe(h.log)
	return nil
}

// ServeHTTP answers the two paths.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return next.ServeHTTP(w, r)
	}
	switch r.URL.Path {
	case pathLive:
		h.write(w, r, http.StatusOK, struct {
			Status string `json:"status"`
		}{statusOK})
		return nil
	case pathReady:
		report := h.report()
		status := http.StatusOK
		if report.Status == statusFailed {
			status = http.StatusServiceUnavailable
		}
		h.write(w, r, status, report)
		return nil
	}
	return next.ServeHTTP(w, r)
}

// report asks the config's app, if it has one.
func (h *Health) report() Report {
	v, err := h.ctx.AppIfConfigured("quota")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return Report{Status: statusReady, Checks: map[string]Check{}}
	}
	app, ok := v.(*App)
	if err != nil || !ok {
		return failedReport("the app quota could not be loaded")
	}
	return h.judge(app)
}

func (h *Health) judge(app *App) Report {
	if _, err := app.Gate(); err != nil {
		h.probe.note("gate", err)
		return failedReport("the gate could not be opened")
	}
	return h.probe.report(app)
}

func failedReport(detail string) Report {
	return Report{Status: statusFailed, Checks: map[string]Check{"gate": {Status: statusFailed, Detail: detail}}}
}

func (h *Health) write(w http.ResponseWriter, r *http.Request, status int, body any) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.log.Debug("the client left before its health report was written", zap.Error(err))
	}
}

func parseHealth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	health := new(Health)
	if err := health.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return health, nil
}

// UnmarshalCaddyfile reads the directive, which has no options:
//
//	quota_health [<matcher>]
func (h *Health) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return block.Bare(d)
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Health)(nil)
	_ caddyhttp.MiddlewareHandler = (*Health)(nil)
	_ caddyfile.Unmarshaler       = (*Health)(nil)
)
