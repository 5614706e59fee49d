package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
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
	if err := unexpectedArgs(d, "quota [<matcher>] { ... }, where a matcher is *, /path or @name"); err != nil {
		return err
	}
	lines := make(map[string]int)
	return parseBlock(d, "the directive quota", map[string]option{
		"rule": {repeat: true, parse: func(d *caddyfile.Dispenser) error {
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
		"anonymous":        {usage: "anonymous allow | deny", min: 1, max: 1, set: choice(&h.Anonymous, allow, deny)},
		"forward_identity": {usage: "forward_identity on | off", min: 1, max: 1, set: onOff(&h.ForwardIdentity)},
		"headers":          {usage: "headers draft | legacy | both | off", min: 1, max: 1, set: choice(&h.Headers, headersDraft, headersLegacy, headersBoth, headersOff)},
		"errors":           {usage: "errors fastapi | problem | pass", min: 1, max: 1, set: choice(&h.Errors, errorsFastAPI, errorsProblem, errorsPass)},
		"cors":             {usage: "cors <origin> ...", min: 1, max: -1, set: h.setCORS},
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
