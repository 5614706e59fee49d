package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/block"
)

func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the directive:
//
//	quota [<matcher>] {
//	    rule <name> { ... }
//	    anonymous        allow | deny
//	    forward_identity on | off
//	    headers          draft | legacy | both | off
//	    errors           fastapi | problem | pass
//	    cors             <origin> ...
//	}
//
// rule may be repeated, see Rule.UnmarshalCaddyfile.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := block.NoArgs(d, "quota [<matcher>] { ... }, where a matcher is *, /path or @name"); err != nil {
		return err
	}
	lines := make(map[string]int)
	return block.Parse(d, "the directive quota", map[string]block.Option{
		"rule": {Repeat: true, Parse: func(d *caddyfile.Dispenser) error {
			r, line := new(Rule), d.Line()
			at := *d
			if err := r.UnmarshalCaddyfile(d); err != nil {
				return err
			}
			if first, dup := lines[r.Name]; dup {
				return at.Errf("duplicate rule %q: it stands in line %d already; denials and metrics tell rules apart by their names", r.Name, first)
			}
			lines[r.Name] = line
			h.Rules = append(h.Rules, r)
			return nil
		}},
		"anonymous":        block.One("anonymous allow | deny", choice(&h.Anonymous, allow, deny)),
		"forward_identity": block.One("forward_identity on | off", onOff(&h.ForwardIdentity)),
		"headers":          block.One("headers draft | legacy | both | off", choice(&h.Headers, headersDraft, headersLegacy, headersBoth, headersOff)),
		"errors":           block.One("errors fastapi | problem | pass", choice(&h.Errors, errorsFastAPI, errorsProblem, errorsPass)),
		"cors":             {Usage: "cors <origin> ...", Min: 1, Max: -1, Set: h.setCORS},
	})
}

func (h *Handler) setCORS(args []string) error {
	seen := make(map[string]bool)
	for _, origin := range args {
		if err := checkOrigin(origin); err != nil {
			return err
		}
		if err := checkNew(seen, origin); err != nil {
			return err
		}
	}
	h.CORS = args
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Handler)(nil)
