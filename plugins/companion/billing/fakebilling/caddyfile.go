package fakebilling

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
)

// UnmarshalCaddyfile reads an option `billing` of quota_companion:
//
//	billing fake [<file>] {
//	    url         <scheme and host>
//	    success_url <url>
//	    cancel_url  <url>
//	    return_url  <url>
//	}
//
// The block may be missing. Values may be placeholders.
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // fake
	if d.NextArg() {
		m.File = d.Val()
	}
	if err := block.NoArgs(d, "billing fake [<file>]"); err != nil {
		return err
	}
	return block.Parse(d, "billing fake", map[string]block.Option{
		"url":         block.One("url <scheme and host>", block.Text(&m.URL)),
		"success_url": block.One("success_url <url>", block.Text(&m.SuccessURL)),
		"cancel_url":  block.One("cancel_url <url>", block.Text(&m.CancelURL)),
		"return_url":  block.One("return_url <url>", block.Text(&m.ReturnURL)),
	})
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Module)(nil)
