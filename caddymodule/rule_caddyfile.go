package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// UnmarshalCaddyfile reads one rule:
//
//	rule <name> {
//	    match { <any Caddy matchers> }
//	    by user | account | ip | header <name> | {placeholder}
//	    limit <scope> [<requests>/<window>]
//	    spend <metric> [<amount> | request_bytes | response_seconds | {placeholder}]
//	    free  <metric> <amount> | request_bytes | {placeholder}
//	    idempotent
//	    invalid_token deny | anonymous
//	    refund_unless <class>xx ... | never
//	    require user | feature <name> | scope <scope>
//	    on_outage allow | deny
//	    mode enforce | shadow
//	}
//
// limit, spend, free and require may be repeated.
func (r *Rule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	line := block.Option{Usage: "rule <name> { ... }", Min: 1, Max: 1}
	args, err := line.Args(d)
	if err != nil {
		return err
	}
	r.Name = args[0]
	if err := checkName(r.Name); err != nil {
		return d.WrapErr(fmt.Errorf("rule: %w", err))
	}
	return block.Parse(d, fmt.Sprintf("rule %q", r.Name), r.options())
}

func (r *Rule) options() map[string]block.Option {
	return map[string]block.Option{
		"match":         {Parse: r.parseMatch},
		"by":            {Usage: "by user | account | ip | header <name> | {placeholder}", Min: 1, Max: 2, Set: r.setBy},
		"limit":         {Usage: "limit <scope> [<requests>/<window>]", Min: 1, Max: 2, Repeat: true, Set: r.addLimit},
		"spend":         {Usage: "spend <metric> [<amount> | request_bytes | response_seconds | {placeholder}]", Min: 1, Max: 2, Repeat: true, SetAt: r.addSpend},
		"free":          {Usage: "free <metric> <amount> | request_bytes | {placeholder}", Min: 2, Max: 2, Repeat: true, SetAt: r.addFree},
		"idempotent":    {Usage: "idempotent", Set: func([]string) error { r.Idempotent = true; return nil }},
		"invalid_token": block.One("invalid_token deny | anonymous", choice(&r.InvalidToken, deny, tokenAnonymous)),
		"refund_unless": {Usage: "refund_unless 2xx [3xx ...] | never", Min: 1, Max: -1, Set: r.setRefundUnless},
		"require":       {Usage: "require user | feature <name> | scope <scope>", Min: 1, Max: 2, Repeat: true, Set: r.addRequire},
		"on_outage":     block.One("on_outage allow | deny", choice(&r.OnOutage, allow, deny)),
		"mode":          block.One("mode enforce | shadow", choice(&r.Mode, modeEnforce, modeShadow)),
	}
}

func (r *Rule) setBy(args []string) error {
	switch by := args[0]; {
	case by == byHeader:
		if len(args) < 2 {
			return errors.New("the header's name is missing; write: by header <name>")
		}
		r.By, r.ByText = byHeader, args[1]
	case len(args) > 1:
		return fmt.Errorf("unexpected argument %q; only by header takes one", args[1])
	case isPlaceholder(by):
		r.By, r.ByText = byPlaceholder, by
	default:
		r.By = by
		if err := checkChoice(by, byUser, byAccount, byIP); err != nil {
			return fmt.Errorf("%w, header <name>, {placeholder}", err)
		}
	}
	for i := range r.Limits {
		if err := r.Limits[i].check(r.By); err != nil {
			return err
		}
	}
	return checkBy(r.By, r.ByText)
}

func (r *Rule) addLimit(args []string) error {
	l := Limit{Scope: args[0]}
	for i := range r.Limits {
		if r.Limits[i].Scope == l.Scope {
			return fmt.Errorf("scope %q stands twice in this rule; keep one of them", l.Scope)
		}
	}
	if len(args) == 2 {
		rate, err := parseRate(args[1])
		if err != nil {
			return err
		}
		l.Requests, l.Window = &rate.Requests, caddy.Duration(rate.Window)
	}
	r.Limits = append(r.Limits, l)
	return l.check(r.By)
}

// parseRate reads <requests>/<window>.
func parseRate(s string) (quota.Rate, error) {
	requests, window, ok := strings.Cut(s, "/")
	n, err := strconv.ParseInt(requests, 10, 64)
	if !ok || err != nil {
		return quota.Rate{}, fmt.Errorf("%q is not a limit: write <requests>/<window> with whole requests in 0..2^53, e.g. 60/1m", s)
	}
	dur, err := block.ParseDuration(window)
	if err != nil {
		return quota.Rate{}, fmt.Errorf("window: %w", err)
	}
	rate := quota.Rate{Requests: n, Window: dur}
	return rate, rate.Validate()
}

func (r *Rule) addSpend(place string, args []string) error {
	m, err := newMetered(place, args)
	if err != nil {
		return err
	}
	r.Spends = append(r.Spends, m)
	return checkMetered(r.Spends, checkSpend)
}

func (r *Rule) addFree(place string, args []string) error {
	m, err := newMetered(place, args)
	if err != nil {
		return err
	}
	r.Frees = append(r.Frees, m)
	return checkMetered(r.Frees, checkFree)
}

// newMetered refuses an empty amount: an unset {$VAR} must not mean the default.
func newMetered(place string, args []string) (Metered, error) {
	m := Metered{Metric: args[0]}
	if !quota.SeedMetric(m.Metric) {
		m.At = place
	}
	if len(args) == 2 {
		m.Amount = Amount(args[1])
		if m.Amount == "" {
			return m, errors.New("the amount is empty: write one")
		}
	}
	return m, nil
}

func (r *Rule) setRefundUnless(args []string) error {
	if len(args) == 1 && args[0] == "never" {
		return nil
	}
	seen := make(map[int]bool)
	for _, arg := range args {
		if len(arg) != 3 || arg[1:] != "xx" || arg[0] < '1' || arg[0] > '5' {
			return fmt.Errorf("%q is not a class of status codes: want 1xx to 5xx, or never alone", arg)
		}
		class := int(arg[0] - '0')
		if checkNew(seen, class) != nil {
			return fmt.Errorf("%s stands twice; keep one of them", arg)
		}
		r.RefundUnless = append(r.RefundUnless, class)
	}
	return nil
}

func (r *Rule) addRequire(args []string) error {
	q, err := parseRequirement(args)
	if err != nil {
		return err
	}
	if slices.Contains(r.Requires, q) {
		return fmt.Errorf("%s stands twice in this rule; keep one of them", q)
	}
	r.Requires = append(r.Requires, q)
	return nil
}

func parseRequirement(args []string) (Requirement, error) {
	what := args[0]
	switch {
	case what == "user" && len(args) == 1:
		return Requirement{User: true}, nil
	case what == "user":
		return Requirement{}, fmt.Errorf("unexpected argument %q; write: require user", args[1])
	case what != "feature" && what != "scope":
		return Requirement{}, fmt.Errorf("%q is not one of user, feature <name>, scope <scope>", what)
	case len(args) == 1 || args[1] == "":
		return Requirement{}, fmt.Errorf("the name is missing; write: require %s <name>", what)
	}
	q := Requirement{Feature: args[1]}
	if what == "scope" {
		q = Requirement{Scope: args[1]}
	}
	return q, q.check()
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Rule)(nil)
