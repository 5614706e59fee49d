package stripebilling

import (
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
)

// UnmarshalCaddyfile reads the block of an option `billing` in quota_companion:
//
//	billing stripe {
//	    api_key        <key>
//	    webhook_secret <secret>...
//	    price          <plan> <price id>
//	    api_base       <url>
//	    success_url    <url>
//	    cancel_url     <url>
//	    return_url     <url>
//	}
//
// price may stand once for each plan. Values may be placeholders.
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // stripe
	if err := block.NoArgs(d, "billing stripe { ... }"); err != nil {
		return err
	}
	return block.Parse(d, "billing stripe", map[string]block.Option{
		"api_key": block.Secret("api_key {env.STRIPE_API_KEY}", block.Text(&m.APIKey)),
		"webhook_secret": {Usage: "webhook_secret <secret>...", Min: 1, Max: -1, Set: func(args []string) error {
			m.WebhookSecrets = args
			return nil
		}},
		"price":       {Usage: "price <plan> <price id>", Min: 2, Max: 2, Repeat: true, SetAt: m.priceSetter()},
		"api_base":    block.One("api_base <url>", block.Text(&m.APIBase)),
		"success_url": block.One("success_url <url>", block.Text(&m.SuccessURL)),
		"cancel_url":  block.One("cancel_url <url>", block.Text(&m.CancelURL)),
		"return_url":  block.One("return_url <url>", block.Text(&m.ReturnURL)),
	})
}

// priceSetter takes one price after the other, of each plan one.
func (m *Module) priceSetter() func(place string, args []string) error {
	places := make(map[string]string)
	return func(place string, args []string) error {
		plan := args[0]
		if first, dup := places[plan]; dup {
			return fmt.Errorf("the plan %q has one at %s already; keep one of them", plan, first)
		}
		places[plan] = place
		if m.Prices == nil {
			m.Prices = make(map[string]string)
		}
		m.Prices[plan] = args[1]
		return nil
	}
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Module)(nil)
