// Package fakebilling is the payment provider of tests and demonstrations: the
// Caddy module quota_companion.billing.fake. It plays Stripe in this process
// (package stripefake) and asks it by the same client that asks Stripe, so that a
// purchase can be shown from start to end without an account. Whoever reaches
// its pages can buy without paying: it is nothing for production.
package fakebilling

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/stripebilling"
	"go.uber.org/zap"
)

// DefaultFile is where the books are kept where the config says nothing.
const DefaultFile = "./data/billing-fake.json"

func init() { caddy.RegisterModule(new(Module)) }

// Module sells plans for nothing.
type Module struct {
	// File keeps the provider's books over restarts, relative to the working
	// directory. Default: ./data/billing-fake.json. Placeholders are replaced.
	File string `json:"file,omitempty"`
	// URL is how browsers reach the site, scheme and host, for the addresses of
	// pages in e-mails and the like. Default: as the request came.
	URL string `json:"url,omitempty"`
	// SuccessURL and CancelURL are where the payment page leads to, paid or not.
	// Default: a page that says thanks, and nowhere.
	SuccessURL string `json:"success_url,omitempty"`
	CancelURL  string `json:"cancel_url,omitempty"`
	// ReturnURL is where the portal leads back to. Default: nowhere.
	ReturnURL string `json:"return_url,omitempty"`

	file  string // absolute
	books atomic.Pointer[books]
}

// CaddyModule returns the module's information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota_companion.billing.fake", New: func() caddy.Module { return new(Module) }}
}

// sessionID stands in addresses for the provider, which puts the session's id in.
const sessionID = "{CHECKOUT_SESSION_ID}"

// Provision resolves placeholders and sets the defaults. It touches no file.
func (m *Module) Provision(caddy.Context) error {
	if m.File == "" {
		m.File = DefaultFile
	}
	repl := caddy.NewReplacer()
	for _, f := range []struct {
		name  string
		value *string
	}{
		{"file", &m.File}, {"url", &m.URL}, {"success_url", &m.SuccessURL}, {"cancel_url", &m.CancelURL}, {"return_url", &m.ReturnURL},
	} {
		// The provider's own placeholder is none of Caddy's.
		const stand = "\x00"
		resolved, err := repl.ReplaceOrErr(strings.ReplaceAll(*f.value, sessionID, stand), true, true)
		if err != nil {
			return fmt.Errorf("resolving %s: %w", f.name, err)
		}
		*f.value = strings.ReplaceAll(resolved, stand, sessionID)
	}
	var err error
	if m.file, err = filepath.Abs(m.File); err != nil {
		return fmt.Errorf("resolving file: %w", err)
	}
	m.URL = strings.TrimSuffix(m.URL, "/")
	if m.SuccessURL == "" {
		m.SuccessURL = m.URL + billing.PagesPath + "thanks/" + sessionID
	}
	return nil
}

// Validate reports what is wrong with the addresses.
func (m *Module) Validate() error {
	if u, err := url.Parse(m.URL); m.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "") {
		return fmt.Errorf("url: %q is not scheme and host, such as https://app.example.com", m.URL)
	}
	for _, f := range []struct{ name, value string }{
		{"success_url", m.SuccessURL}, {"cancel_url", m.CancelURL}, {"return_url", m.ReturnURL},
	} {
		u, err := url.Parse(strings.ReplaceAll(f.value, sessionID, "x"))
		if err != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" || u.Scheme == "" && !strings.HasPrefix(f.value+"/", "/") ||
			strings.HasPrefix(f.value, "//") {
			return fmt.Errorf("%s: %q is neither an http or https address nor a path of the site", f.name, f.value)
		}
	}
	return nil
}

// Settings implements billing.Guest.
func (m *Module) Settings() billing.Settings {
	return billing.Settings{SuccessURL: m.SuccessURL, CancelURL: m.CancelURL, ReturnURL: m.ReturnURL}
}

// pool has the open books by their file: an old config and a new one share them.
var pool = caddy.NewUsagePool()

// Open implements billing.Guest.
func (m *Module) Open(ctx context.Context, env billing.Env) (billing.Provider, error) {
	v, _, err := pool.LoadOrNew(m.file, func() (caddy.Destructor, error) { return openBooks(m.file) })
	if err != nil {
		return nil, fmt.Errorf("opening billing fake: %w", err)
	}
	b := v.(*books)
	leave := b.join(env.Deliver, m.URL+strings.TrimSuffix(billing.PagesPath, "/"))
	m.books.Store(b)
	context.AfterFunc(ctx, func() {
		leave()
		if _, err := pool.Delete(m.file); err != nil {
			b.log.Error("the billing fake did not stop in order", zap.Error(err))
		}
	})
	env.Log.Warn("billing fake: plans are given to everybody who enters a test card; this is for tests and demonstrations")
	client := &stripebilling.Module{APIKey: b.key, WebhookSecrets: []string{b.secret}, APIBase: b.address}
	return client.Open(ctx, env)
}

// Pages implements billing.Pager.
func (m *Module) Pages() http.Handler {
	pages := http.StripPrefix(strings.TrimSuffix(billing.PagesPath, "/"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := m.books.Load()
		if b == nil || strings.HasPrefix(r.URL.Path, "/v1/") {
			http.NotFound(w, r) // the API is for the process itself
			return
		}
		b.fake.ServeHTTP(w, r)
	}))
	return pages
}

// errNobody is for an event while no config is running.
var errNobody = errors.New("nobody takes billing events at the moment")

// Interface guards.
var (
	_ caddy.Provisioner = (*Module)(nil)
	_ caddy.Validator   = (*Module)(nil)
	_ billing.Guest     = (*Module)(nil)
	_ billing.Pager     = (*Module)(nil)
)
