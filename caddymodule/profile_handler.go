package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/caddymodule/profile"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Profile{})
	httpcaddyfile.RegisterHandlerDirective("quota_profile", parseProfile)
}

// The defaults and bounds of Profile.
const (
	defaultProfileField = "subscription"
	defaultProfileSize  = 1_000_000  // 1 MB
	maxProfileSize      = 16_000_000 // held in memory for each request
	maxProfileField     = 128
)

// Profile adds the caller's subscription to the backend's answer, which knows
// nothing of it: to /v1/auth/me, say. Edited are answers with status 200 that
// are one JSON object without such a member, unencoded and of at most MaxSize;
// everything else passes byte for byte, and so does every answer to a caller
// who is anonymous or whose credential is refused.
type Profile struct {
	// Field is the member's name. Default: subscription.
	Field string `json:"field,omitempty"`
	// MaxSize is the largest body that is edited, in bytes: 1..16000000. Default: 1000000.
	MaxSize int64 `json:"max_size,omitempty"`

	app *App
	log *zap.Logger
}

// CaddyModule returns the module's information.
func (Profile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.quota_profile", New: func() caddy.Module { return new(Profile) }}
}

// Provision fills in the defaults and finds the app (a default one where the config has none).
func (p *Profile) Provision(ctx caddy.Context) error {
	p.log = ctx.Logger()
	setDefault(&p.Field, defaultProfileField)
	setDefault(&p.MaxSize, defaultProfileSize)
	app, err := ctx.App("quota")
	if err != nil {
		return fmt.Errorf("loading the app quota: %w", err)
	}
	p.app = app.(*App)
	return nil
}

// Validate reports everything that is wrong with the options.
func (p *Profile) Validate() error {
	var errs []error
	if err := checkField(p.Field); err != nil {
		errs = append(errs, fmt.Errorf("field: %w", err))
	}
	if err := checkProfileSize(p.MaxSize); err != nil {
		errs = append(errs, fmt.Errorf("max_size: %w", err))
	}
	return errors.Join(errs...)
}

// ServeHTTP passes the request on and edits its answer.
func (p *Profile) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	entitlement := p.caller(r)
	if entitlement == nil {
		return next.ServeHTTP(w, r)
	}
	pw := profile.NewWriter(w, r, profile.Options{Field: p.Field, MaxSize: p.MaxSize}, func() ([]byte, bool) {
		b, err := json.Marshal(subscriptionOf(entitlement))
		return b, err == nil
	})
	// Whatever becomes of the handlers below, a panic included: what is held back
	// reaches the client. After Close it does nothing.
	defer func() {
		if err := pw.Release(); err != nil {
			p.log.Debug("the client left before its answer was written", zap.Error(err))
		}
	}()
	if err := next.ServeHTTP(pw, profile.Prepare(r)); err != nil {
		return err
	}
	if err := pw.Close(); err != nil {
		p.log.Debug("the client left before its answer was written", zap.Error(err))
	}
	return nil
}

// caller is what a verified caller may do, nil for anybody else. A request that
// cannot be judged passes: refusing is for the directive quota.
func (p *Profile) caller(r *http.Request) *quota.Entitlement {
	if answer.IsPreflight(r) || Explaining(r.Context()) {
		return nil
	}
	g, err := p.app.Gate()
	if err != nil {
		return nil
	}
	c, err := Identify(g, r)
	if err != nil || c.Invalid != nil || c.Entitlement == nil || c.Entitlement.Plan == nil {
		return nil // without a plan the records are down and there is nothing to tell
	}
	return c.Entitlement
}

// profileMember is the member that is added.
type profileMember struct {
	Plan             string          `json:"plan"`
	DisplayName      string          `json:"display_name"`
	Status           quota.Status    `json:"status"`
	CurrentPeriodEnd *time.Time      `json:"current_period_end"`
	Features         map[string]bool `json:"features"`
}

// subscriptionOf is the subscription as a client sees it: someone without one
// is on the default plan, which is active and does not end.
func subscriptionOf(e *quota.Entitlement) profileMember {
	m := profileMember{
		Plan: e.Plan.Name, DisplayName: e.Plan.DisplayName, Status: e.Status, Features: e.Plan.Features,
	}
	if m.Features == nil {
		m.Features = map[string]bool{}
	}
	if m.Status == quota.StatusNone {
		m.Status = quota.StatusActive
	}
	if !e.CurrentPeriodEnd.IsZero() {
		end := e.CurrentPeriodEnd.UTC()
		m.CurrentPeriodEnd = &end
	}
	return m
}

func parseProfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	p := new(Profile)
	if err := p.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return p, nil
}

// UnmarshalCaddyfile reads the directive:
//
//	quota_profile [<matcher>] {
//	    field    <name>
//	    max_size <size>
//	}
func (p *Profile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := block.NoArgs(d, "quota_profile [<matcher>] { ... }, where a matcher is *, /path or @name"); err != nil {
		return err
	}
	return block.Parse(d, "the directive quota_profile", map[string]block.Option{
		"field":    block.One("field <name>", text(&p.Field, checkField)),
		"max_size": block.One("max_size <size>, e.g. 1MB", p.setMaxSize),
	})
}

func (p *Profile) setMaxSize(size string) error {
	n, err := humanize.ParseBytes(size)
	if err != nil || n > maxProfileSize {
		return fmt.Errorf("%q is not a size in 1B..16MB: write a number with a unit, e.g. 64kB or 1MB", size)
	}
	p.MaxSize = int64(n)
	return checkProfileSize(p.MaxSize)
}

func checkProfileSize(n int64) error {
	if n < 1 || n > maxProfileSize {
		return fmt.Errorf("%d bytes is outside 1..%d", n, maxProfileSize)
	}
	return nil
}

// checkField wants a name that every JSON reader takes for the same one.
func checkField(name string) error {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return fmt.Errorf("%q is not the name of a member: want printable ASCII without spaces, quotes and backslashes", name)
		}
	}
	if name == "" || len(name) > maxProfileField {
		return fmt.Errorf("the name of a member has 1 to %d characters", maxProfileField)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Profile)(nil)
	_ caddy.Validator             = (*Profile)(nil)
	_ caddyhttp.MiddlewareHandler = (*Profile)(nil)
	_ caddyfile.Unmarshaler       = (*Profile)(nil)
)
