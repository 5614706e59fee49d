package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Rule says what the requests that it matches are charged, and what is demanded
// of their callers.
type Rule struct {
	// Name labels the rule in denials and metrics; unique in its handler.
	Name string `json:"name"`
	// MatcherSetsRaw select the requests. Without any, every request matches.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// By says whose counters the limits use: user, account, ip, header or
	// placeholder. Default: the account if it is known, else the IP prefix.
	By string `json:"by,omitempty"`
	// ByText is the header's name (by: header) or the placeholder (by: placeholder).
	ByText string `json:"by_text,omitempty"`
	// Limits are rate limits. Default: none.
	Limits []Limit `json:"limits,omitempty"`
	// Spends are charged to the plan's quotas. Default: none.
	Spends []Metered `json:"spends,omitempty"`
	// Frees are given back to levels when the backend succeeded. Default: none.
	Frees []Metered `json:"frees,omitempty"`
	// Idempotent charges a repeated Idempotency-Key once. It is for backends that
	// honour the header themselves: else replays are free.
	Idempotent bool `json:"idempotent,omitempty"`
	// InvalidToken is what becomes of an invalid credential: deny or anonymous.
	// Default: deny.
	InvalidToken string `json:"invalid_token,omitempty"`
	// RefundUnless lists classes of status codes (2 for 2xx, 1..5): what was
	// spent is given back when the backend answers any other. Default: never.
	RefundUnless []int `json:"refund_unless,omitempty"`
	// Requires is what the caller must have. Default: nothing.
	Requires []Requirement `json:"requires,omitempty"`
	// OnOutage is what the rule does while the counters are unreachable: allow or
	// deny. Default: the app's.
	OnOutage string `json:"on_outage,omitempty"`
	// Mode is enforce, or shadow: decide and count, never deny. Default: enforce.
	Mode string `json:"mode,omitempty"`

	matchers caddyhttp.MatcherSets
	rule     *quota.Rule
	byText   string // the canonical header name or the placeholder
	// valueNames are the placeholders of a rule by placeholder.
	valueNames []string
	// keyParts say whose counters the limits use; none for rules by user, account or
	// address. A request must not equivocate with them.
	keyParts []keyPart

	// Amounts of rule.Spends and rule.Frees that every request shares; dynamic if some differ.
	spendAmounts, freeAmounts []int64
	dynamic                   bool
}

// Limit is a rate limit in one scope. Without a base, a plan's limit of that
// scope is the only one.
type Limit struct {
	Scope string `json:"scope"`
	// Requests is the base limit: how many may pass in any window, 0..2^53.
	Requests *int64 `json:"requests,omitempty"`
	// Window is the length of the base limit's window: 10ms..9600h, whole milliseconds.
	Window caddy.Duration `json:"window,omitempty"`
}

// Requirement demands exactly one thing of the caller.
type Requirement struct {
	// User demands a verified user.
	User bool `json:"user,omitempty"`
	// Feature demands a feature of the caller's plan.
	Feature string `json:"feature,omitempty"`
	// Scope demands a scope of the caller's API key.
	Scope string `json:"scope,omitempty"`
}

// The words of By, InvalidToken and Mode.
const (
	byUser         = "user"
	byAccount      = "account"
	byIP           = "ip"
	byHeader       = "header"
	byPlaceholder  = "placeholder"
	tokenAnonymous = "anonymous"
	modeEnforce    = "enforce"
	modeShadow     = "shadow"
)

// provision loads the matchers and compiles the rule. What Validate refuses
// compiles too, to something that is never used.
func (r *Rule) provision(ctx caddy.Context, onOutage string) error {
	if r.MatcherSetsRaw != nil {
		sets, err := ctx.LoadModule(r, "MatcherSetsRaw")
		if err != nil {
			return fmt.Errorf("loading matchers: %w", err)
		}
		if err := r.matchers.FromInterface(sets); err != nil {
			return fmt.Errorf("loading matchers: %w", err)
		}
	}
	setDefault(&r.OnOutage, onOutage)
	r.compile()
	return nil
}

func (r *Rule) compile() {
	c := &quota.Rule{
		Name: r.Name, By: r.by(),
		Idempotent:            r.Idempotent,
		InvalidTokenAnonymous: r.InvalidToken == tokenAnonymous,
		RefundUnless:          slices.Clone(r.RefundUnless),
		DenyOnOutage:          r.OnOutage == deny,
		Shadow:                r.Mode == modeShadow,
	}
	for _, l := range r.Limits {
		c.Limits = append(c.Limits, quota.ScopeLimit{Scope: l.Scope, Base: l.base()})
	}
	for _, m := range r.Spends {
		c.Spends = append(c.Spends, m.compile())
	}
	for _, m := range r.Frees {
		c.Frees = append(c.Frees, m.compile())
	}
	for _, q := range r.Requires {
		c.Require = append(c.Require, quota.Requirement(q))
	}
	r.byText = r.ByText
	if c.By == quota.ByHeader {
		r.byText = http.CanonicalHeaderKey(r.ByText)
	}
	r.keyParts = keyParts(c.By, r.byText)
	if c.By == quota.ByValue {
		r.valueNames = valueNames(r.byText)
	}
	r.rule = c
	r.prepare()
}

func (r *Rule) by() quota.By {
	switch r.By {
	case byUser:
		return quota.ByUser
	case byAccount:
		return quota.ByAccount
	case byIP:
		return quota.ByIP
	case byHeader:
		return quota.ByHeader
	case byPlaceholder:
		return quota.ByValue
	}
	return quota.ByDefault
}

func (l *Limit) base() quota.Rate {
	if l.Requests == nil {
		return quota.Rate{}
	}
	return quota.Rate{Requests: *l.Requests, Window: time.Duration(l.Window)}
}

// doubts are what is valid and will hardly do what was meant, a sentence each.
func (r *Rule) doubts() []string {
	var doubts []string
	if len(r.Limits) == 0 && len(r.Spends) == 0 && len(r.Frees) == 0 && len(r.Requires) == 0 && r.InvalidToken == "" {
		doubts = append(doubts, "the rule has no limit, spend, free or require: it changes nothing")
	}
	if slices.ContainsFunc(r.Requires, func(q Requirement) bool { return q.Scope != "" }) {
		doubts = append(doubts, "require scope is for callers with an API key, which this release does not have: every verified user passes, as by require user")
	}
	return doubts
}

// validate reports everything that is wrong with the rule.
func (r *Rule) validate() error {
	var errs []error
	add := func(place string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("rule %q: %s: %w", r.Name, place, err))
		}
	}
	add("name", checkName(r.Name))
	add("by", checkBy(r.By, r.ByText))
	scopes := make(map[string]bool)
	for i := range r.Limits {
		l := &r.Limits[i]
		add("limits."+l.Scope, l.check(r.By))
		add("limits."+l.Scope, checkNew(scopes, l.Scope))
	}
	add("spends", checkMetered(r.Spends, checkSpend))
	add("frees", checkMetered(r.Frees, checkFree))
	requires := make(map[Requirement]bool)
	for _, q := range r.Requires {
		add("requires", q.check())
		add("requires", checkNew(requires, q))
	}
	classes := make(map[int]bool)
	for _, class := range r.RefundUnless {
		add("refund_unless", checkRange(class, 1, 5))
		add("refund_unless", checkNew(classes, class))
	}
	add("invalid_token", checkUnset(r.InvalidToken, deny, tokenAnonymous))
	add("on_outage", checkUnset(r.OnOutage, allow, deny))
	add("mode", checkUnset(r.Mode, modeEnforce, modeShadow))
	return errors.Join(errs...)
}

// checkBy wants a header's name or a placeholder exactly where it is used.
func checkBy(by, byText string) error {
	switch by {
	case byHeader:
		return checkHeader(byText)
	case byPlaceholder:
		if !isPlaceholder(byText) {
			return fmt.Errorf("%q is not a placeholder such as {http.request.uri.query.tenant}", byText)
		}
		return nil
	}
	if err := checkUnset(by, byUser, byAccount, byIP, byHeader, byPlaceholder); err != nil {
		return err
	}
	if byText != "" {
		return fmt.Errorf("%q belongs to by header or by placeholder only", byText)
	}
	return nil
}

func (l *Limit) check(by string) error {
	if err := checkName(l.Scope); err != nil {
		return fmt.Errorf("scope %w", err)
	}
	if l.Requests == nil {
		if l.Window != 0 {
			return errors.New("a window without requests limits nothing: give both or neither")
		}
		if by == byIP {
			return fmt.Errorf("a limit by ip needs a base, e.g. limit %s 10/1h: a plan's limit never applies to an address", l.Scope)
		}
		return nil
	}
	return l.base().Validate()
}

func (q Requirement) check() error {
	n := 0
	for _, set := range []bool{q.User, q.Feature != "", q.Scope != ""} {
		if set {
			n++
		}
	}
	if n != 1 {
		return errors.New("a requirement is exactly one of user, feature or scope")
	}
	if s := q.Feature + q.Scope; strings.ContainsAny(s, " \t") || hasControl(s) || len(s) > 255 {
		return fmt.Errorf("%q is not the name of a feature or scope", s)
	}
	return nil
}

func checkUnset(word string, words ...string) error {
	if word == "" {
		return nil
	}
	return checkChoice(word, words...)
}

// checkNew refuses a value that was seen before, and remembers it.
func checkNew[T comparable](seen map[T]bool, value T) error {
	if seen[value] {
		return fmt.Errorf("%v stands twice; keep one of them", value)
	}
	seen[value] = true
	return nil
}

// checkHeader wants a field name (RFC 9110, section 5.6.2). Go keeps Host out of
// the header fields, so a rule by it would always fall back to the IP.
func checkHeader(name string) error {
	if strings.EqualFold(name, "host") {
		return errors.New("the Host header is not among the fields: use by {http.request.host}")
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) {
		return fmt.Errorf("%q is not the name of a header", name)
	}
	return nil
}

// isPlaceholder reports whether s is a placeholder, or several in a row.
func isPlaceholder(s string) bool {
	return len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}'
}

// String is the requirement as it stands in a Caddyfile.
func (q Requirement) String() string {
	switch {
	case q.Feature != "":
		return "feature " + q.Feature
	case q.Scope != "":
		return "scope " + q.Scope
	}
	return "user"
}
