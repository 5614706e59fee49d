// Package stripebilling is the payment provider Stripe. It is the only package
// that knows Stripe's client: it turns what package billing asks into requests,
// and what Stripe answers into the few words that billing acts on.
package stripebilling

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/plugins/companion/billing"
)

func init() { caddy.RegisterModule(new(Module)) }

// Module sells plans by Stripe.
type Module struct {
	// APIKey is a secret or restricted key: sk_test_..., rk_live_.... Its mode
	// decides which events and prices are accepted. Default: {env.STRIPE_API_KEY}.
	APIKey string `json:"api_key,omitempty"`
	// WebhookSecrets are the endpoint's signing secrets, whsec_...: two while one
	// is exchanged for the other. Default: {env.STRIPE_WEBHOOK_SECRET}.
	WebhookSecrets []string `json:"webhook_secrets,omitempty"`
	// Prices are Stripe's price ids by the name of the plan that they sell each
	// month. A plan without one is sold at its own stripe_price_id, else at the
	// price that its lookup key finds.
	Prices map[string]string `json:"prices,omitempty"`
	// APIBase is the address of another server that speaks Stripe's API, for
	// tests. Default: Stripe's.
	APIBase string `json:"api_base,omitempty"`
	// SuccessURL and CancelURL are where the checkout page leads to, paid or not.
	SuccessURL string `json:"success_url,omitempty"`
	CancelURL  string `json:"cancel_url,omitempty"`
	// ReturnURL is where the customer portal leads back to. Default:
	// SuccessURL without its query.
	ReturnURL string `json:"return_url,omitempty"`
}

// CaddyModule returns the module's information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota_companion.billing.stripe", New: func() caddy.Module { return new(Module) }}
}

// The placeholders of what the config does not say.
const (
	defaultAPIKey        = "{env.STRIPE_API_KEY}"
	defaultWebhookSecret = "{env.STRIPE_WEBHOOK_SECRET}"
)

// Provision resolves placeholders. It dials nobody.
func (m *Module) Provision(caddy.Context) error {
	if m.APIKey == "" {
		m.APIKey = defaultAPIKey
	}
	if len(m.WebhookSecrets) == 0 {
		m.WebhookSecrets = []string{defaultWebhookSecret}
	}
	repl := caddy.NewReplacer()
	fields := []struct {
		name  string
		value *string
	}{
		{"api_key", &m.APIKey}, {"api_base", &m.APIBase}, {"success_url", &m.SuccessURL},
		{"cancel_url", &m.CancelURL}, {"return_url", &m.ReturnURL},
	}
	for i := range m.WebhookSecrets {
		fields = append(fields, struct {
			name  string
			value *string
		}{"webhook_secret", &m.WebhookSecrets[i]})
	}
	for _, f := range fields {
		resolved, err := resolve(repl, *f.value)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		*f.value = resolved
	}
	for plan, price := range m.Prices {
		resolved, err := resolve(repl, price)
		if err != nil {
			return fmt.Errorf("price %s: %w", plan, err)
		}
		m.Prices[plan] = resolved
	}
	return nil
}

// checkoutSession stands in addresses for Stripe, which puts the session's id in.
const checkoutSession = "{CHECKOUT_SESSION_ID}"

// resolve replaces Caddy's placeholders, and leaves Stripe's own alone.
func resolve(repl *caddy.Replacer, s string) (string, error) {
	const stand = "\x00"
	out, err := repl.ReplaceOrErr(strings.ReplaceAll(s, checkoutSession, stand), true, true)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", s, err)
	}
	return strings.ReplaceAll(out, stand, checkoutSession), nil
}

// Validate reports what is wrong with the options, and never quotes a secret.
func (m *Module) Validate() error {
	switch {
	case !strings.HasPrefix(m.APIKey, "sk_") && !strings.HasPrefix(m.APIKey, "rk_"):
		return errors.New("api_key: want a secret key (sk_...) or a restricted key (rk_...) of Stripe")
	case !strings.Contains(m.APIKey, "_test_") && !live(m.APIKey):
		return errors.New("api_key: it does not say whether it is of the test or the live mode (sk_test_..., sk_live_...)")
	}
	for _, s := range m.WebhookSecrets {
		if !strings.HasPrefix(s, "whsec_") || len(s) < len("whsec_")+8 {
			return errors.New("webhook_secret: want the signing secret of a webhook endpoint (whsec_...)")
		}
	}
	for plan, price := range m.Prices {
		if !strings.HasPrefix(price, "price_") {
			return fmt.Errorf("price %s: %q is not the id of a price (price_...)", plan, price)
		}
	}
	for _, u := range []struct{ name, value string }{
		{"api_base", m.APIBase}, {"success_url", m.SuccessURL}, {"cancel_url", m.CancelURL}, {"return_url", m.ReturnURL},
	} {
		if err := checkURL(u.value); err != nil {
			return fmt.Errorf("%s: %w", u.name, err)
		}
	}
	if m.APIBase != "" && live(m.APIKey) && !strings.HasPrefix(m.APIBase, "https://") {
		return errors.New("api_base: a live key is sent over https only")
	}
	return nil
}

func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(strings.ReplaceAll(s, checkoutSession, "x"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an http or https address", s)
	}
	return nil
}

// Settings implements billing.Guest.
func (m *Module) Settings() billing.Settings {
	s := billing.Settings{
		SuccessURL: m.SuccessURL, CancelURL: m.CancelURL, ReturnURL: m.ReturnURL, Prices: m.Prices, Livemode: live(m.APIKey),
	}
	if s.ReturnURL == "" {
		s.ReturnURL, _, _ = strings.Cut(s.SuccessURL, "?")
	}
	return s
}

// Open implements billing.Guest.
func (m *Module) Open(ctx context.Context, _ billing.Env) (billing.Provider, error) {
	c := newClient(m.APIKey, m.APIBase, m.WebhookSecrets)
	context.AfterFunc(ctx, c.http.CloseIdleConnections)
	return c, nil
}

// Interface guards.
var (
	_ caddy.Provisioner = (*Module)(nil)
	_ caddy.Validator   = (*Module)(nil)
	_ billing.Guest     = (*Module)(nil)
)
