package caddymodule

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler stands before a backend: it identifies each caller, charges what the
// matching rules say in one step, and passes the request on or refuses it.
type Handler struct {
	// Rules are looked at in order; every one that matches adds its charges.
	Rules []*Rule `json:"rules,omitempty"`
	// Anonymous is what becomes of a request without any credential: allow or
	// deny. Default: allow.
	Anonymous string `json:"anonymous,omitempty"`
	// ForwardIdentity tells the backend who was charged, in X-Quota-User,
	// X-Quota-Account and X-Quota-Plan.
	ForwardIdentity bool `json:"forward_identity,omitempty"`
	// Headers selects the fields that tell what is left: draft
	// (draft-ietf-httpapi-ratelimit-headers), legacy (X-RateLimit-*), both or
	// off. Default: both.
	Headers string `json:"headers,omitempty"`
	// Errors selects the body of denials: fastapi, problem (RFC 9457), or pass,
	// which hands over to handle_errors. Default: fastapi.
	Errors string `json:"errors,omitempty"`
	// CORS lists origins whose scripts may read denials ("*": all). Default: what
	// the backend's own answers allow.
	CORS []string `json:"cors,omitempty"`

	app *App
	log *zap.Logger
	// denials logs denials, sampled: a client that is refused all the time must
	// not fill the disk.
	denials     *zap.Logger
	headersMode answer.Mode
	errorsStyle answer.Style
	cors        *answer.Origins
	metrics     *handlerMetrics
}

// The words of Headers and Errors.
const (
	headersDraft  = "draft"
	headersLegacy = "legacy"
	headersBoth   = "both"
	headersOff    = "off"
	errorsFastAPI = "fastapi"
	errorsProblem = "problem"
	errorsPass    = "pass"
)

// CaddyModule returns the module's information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota", New: func() caddy.Module { return new(Handler) }}
}

// Provision fills in the defaults, finds the app (a default one where the
// config has none) and compiles the rules.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	setDefault(&h.Anonymous, allow)
	setDefault(&h.Headers, headersBoth)
	setDefault(&h.Errors, errorsFastAPI)

	h.provisionAnswers()
	app, err := ctx.App("quota")
	if err != nil {
		return fmt.Errorf("loading the app quota: %w", err)
	}
	h.app = app.(*App)
	h.app.judges = true
	sites, err := h.app.runtime.sites.get()
	if err != nil {
		return fmt.Errorf("finding what is known of CORS: %w", err)
	}
	h.cors = sites.Of(listens(ctx), h.CORS...)
	for i, r := range h.Rules {
		if r == nil {
			return fmt.Errorf("rules[%d] is null", i)
		}
		if err := r.provision(ctx, h.app.OnOutage); err != nil {
			return fmt.Errorf("rule %q: %w", r.Name, err)
		}
		for _, doubt := range r.doubts() {
			h.log.Warn(doubt, zap.String("rule", r.Name))
		}
		h.app.noteMetrics(r)
	}
	return nil
}

// listens is where the server of the handler listens: its name may be another's
// in the next config.
func listens(ctx caddy.Context) string {
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		return strings.Join(srv.Listen, " ")
	}
	return ""
}

// noteMetrics remembers what the rule meters, for the app's Start.
func (a *App) noteMetrics(r *Rule) {
	for _, ms := range [][]Metered{r.Spends, r.Frees} {
		for _, m := range ms {
			a.metered = append(a.metered, meteredUse{Metric: m.Metric, Rule: r.Name, At: m.At})
		}
	}
}

// Validate reports everything that is wrong with the handler and its rules.
func (h *Handler) Validate() error {
	var errs []error
	add := func(option string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", option, err))
		}
	}
	add("anonymous", checkUnset(h.Anonymous, allow, deny))
	add("headers", checkUnset(h.Headers, headersDraft, headersLegacy, headersBoth, headersOff))
	add("errors", checkUnset(h.Errors, errorsFastAPI, errorsProblem, errorsPass))
	origins := make(map[string]bool)
	for _, origin := range h.CORS {
		add("cors", checkOrigin(origin))
		add("cors", checkNew(origins, origin))
	}
	names := make(map[string]bool)
	for _, r := range h.Rules {
		errs = append(errs, r.validate())
		add("rules", checkNew(names, r.Name))
	}
	return errors.Join(errs...)
}

// checkOrigin wants "*" or a serialized origin (RFC 6454, section 6.2), as
// browsers send it: no path, no trailing slash.
func checkOrigin(s string) error {
	if s == "*" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || s != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q is not an origin: write https://app.example.com, without a path, or *", s)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Module      = (*Handler)(nil)
	_ caddy.Provisioner = (*Handler)(nil)
	_ caddy.Validator   = (*Handler)(nil)
)
