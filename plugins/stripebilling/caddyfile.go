package stripebilling

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
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
	if d.NextArg() {
		return d.Errf("billing stripe: unexpected argument %q; its options stand in a block", d.Val())
	}
	lines := map[string]int{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		args := d.RemainingArgs()
		line := name
		if name == "price" && len(args) > 0 {
			line += " " + args[0]
		}
		if at, dup := lines[line]; dup {
			return d.Errf("billing stripe: duplicate option %q: it stands in line %d already; keep one of them", line, at)
		}
		lines[line] = d.Line()
		if err := m.set(d, name, args); err != nil {
			return err
		}
	}
	return nil
}

// set reads one line.
func (m *Module) set(d *caddyfile.Dispenser, name string, args []string) error {
	texts := map[string]*string{
		"api_key": &m.APIKey, "api_base": &m.APIBase, "success_url": &m.SuccessURL, "cancel_url": &m.CancelURL, "return_url": &m.ReturnURL,
	}
	field, isText := texts[name]
	switch {
	case isText && len(args) == 1 && args[0] != "":
		*field = args[0]
	case isText:
		return d.Errf("billing stripe: option %q takes one argument", name)
	case name == "webhook_secret" && len(args) > 0:
		m.WebhookSecrets = args
	case name == "webhook_secret":
		return d.Err("billing stripe: an argument is missing; write: webhook_secret <secret>...")
	case name == "price" && len(args) == 2:
		if m.Prices == nil {
			m.Prices = map[string]string{}
		}
		m.Prices[args[0]] = args[1]
	case name == "price":
		return d.Err("billing stripe: write: price <plan> <price id>")
	default:
		return d.Errf("billing stripe: unknown option %q: want one of %s", name,
			strings.Join([]string{"api_base", "api_key", "cancel_url", "price", "return_url", "success_url", "webhook_secret"}, ", "))
	}
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Module)(nil)
