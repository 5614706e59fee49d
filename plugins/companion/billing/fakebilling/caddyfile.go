package fakebilling

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
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
	if d.NextArg() {
		return d.Errf("billing fake: unexpected argument %q; write: billing fake [<file>]", d.Val())
	}
	texts := map[string]*string{
		"url": &m.URL, "success_url": &m.SuccessURL, "cancel_url": &m.CancelURL, "return_url": &m.ReturnURL,
	}
	lines := map[string]int{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		field, ok := texts[name]
		if !ok {
			return d.Errf("billing fake: unknown option %q: want one of %s", name, strings.Join(slices.Sorted(maps.Keys(texts)), ", "))
		}
		if at, dup := lines[name]; dup {
			return d.Errf("billing fake: duplicate option %q: it stands in line %d already; keep one of them", name, at)
		}
		lines[name] = d.Line()
		args := d.RemainingArgs()
		if len(args) != 1 || args[0] == "" {
			return d.Errf("billing fake: option %q takes one argument", name)
		}
		*field = args[0]
	}
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Module)(nil)
