package gate

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// Config makes a Gate.
type Config struct {
	Runtime   *Runtime
	Verifiers []Verifier
	// Prefix4 and Prefix6 are the prefix lengths that make one anonymous caller.
	Prefix4, Prefix6 int
	// Warn is told of scopes without any limit; may be nil.
	Warn func(quota.Warning)
	Log  *zap.Logger
}

// Gate admits the requests of one config.
type Gate struct {
	rt               *Runtime
	verifiers        []Verifier
	prefix4, prefix6 int
	warn             func(quota.Warning)
	log              *zap.Logger
}

// New makes a Gate.
func New(c Config) *Gate {
	g := &Gate{
		rt: c.Runtime, verifiers: c.Verifiers, prefix4: c.Prefix4, prefix6: c.Prefix6, log: sparing(c.Log),
	}
	g.warn = func(w quota.Warning) {
		g.rt.Stats.UnlimitedScopes.Add(1)
		if c.Warn != nil {
			c.Warn(w)
		}
	}
	return g
}

// Runtime is what the gate shares with the gates of other configs.
func (g *Gate) Runtime() *Runtime { return g.rt }

// Caller is an identity with what it may do.
type Caller struct {
	Identity
	// Entitlement is nil for an anonymous caller.
	Entitlement *quota.Entitlement
}

// Resolve looks up what the identity may do. It refuses suspended and deleted
// users whatever they ask for; a revoked session becomes an invalid credential.
func (g *Gate) Resolve(ctx context.Context, id Identity, r *http.Request) (Caller, error) {
	c := Caller{Identity: id}
	p := id.Principal
	if p.Anonymous() {
		return c, nil
	}
	e := g.rt.Entitlements.Of(ctx, p)
	switch e.Control {
	case quota.ControlSuspended:
		return c, quota.Refuse(quota.CodeSuspended)
	case quota.ControlDeleted:
		return c, quota.Refuse(quota.CodeDeleted)
	}
	if e.Revoked(p) {
		c.Principal, c.IP = anonymous, g.Address(&id)
		c.Invalid = &InvalidError{Reason: "its session was revoked"}
		return c, nil
	}
	if p.Org != "" || namesOrg(r.Header) {
		// Nobody is a member of an organization that the records do not hold.
		return c, quota.Refuse(quota.CodeNotOrgMember)
	}
	c.Entitlement = e
	return c, nil
}

// refusal is the denial of that code by a rule.
func refusal(code, rule string) *quota.Denial {
	d := quota.Refuse(code)
	d.Rule = rule
	return d
}

// Policy is what a site says beside its rules.
type Policy struct {
	// DenyAnonymous refuses callers without any credential.
	DenyAnonymous bool
}

// Admit reserves what the applied rules charge. It answers a *Ticket, to be
// settled once, or a *quota.Denial.
func (g *Gate) Admit(ctx context.Context, c Caller, rules []quota.Applied, site Policy) (*Ticket, error) {
	if d := g.refuse(&c, rules, site); d != nil {
		return nil, d
	}
	t := newTicket(g, c, rules)
	t.charges = quota.AppendCharges(t.charges[:0], t.quotaCaller(), t.rules, t.began, g.warn)
	if len(t.charges) == 0 {
		t.decision.Reset(0)
		return t, nil
	}
	err := g.take(ctx, t)
	if cold, ok := errors.AsType[*quota.ColdError](err); ok {
		if d := g.unloaded(ctx, t, err, cold); d != nil {
			return t, d
		}
		err = g.take(ctx, t)
	}
	switch {
	case errors.Is(err, quota.ErrOverflow):
		// The counters are well: to go on as in an outage would let a client that
		// makes its amounts up pass uncounted.
		return t, t.deny(quota.Refuse(quota.CodeBadRequest))
	case err != nil:
		return g.outage(ctx, t, err)
	}
	return t.judged()
}

// take reserves the ticket's charges. What is only counted, for a rule in shadow
// mode, must not refuse a request that it makes overflow.
func (g *Gate) take(ctx context.Context, t *Ticket) error {
	err := g.reserve(ctx, t.caller.account(), t.charges, &t.decision)
	if errors.Is(err, quota.ErrOverflow) && t.dropForced() {
		err = g.reserve(ctx, t.caller.account(), t.charges, &t.decision)
	}
	return err
}

// refuse applies what needs no counter.
func (g *Gate) refuse(c *Caller, rules []quota.Applied, site Policy) *quota.Denial {
	if c.Invalid != nil {
		deny := true
		for i := range rules {
			deny = deny && !rules[i].InvalidTokenAnonymous
		}
		if deny {
			return quota.Refuse(quota.CodeInvalidToken)
		}
	}
	if site.DenyAnonymous && c.Principal.Anonymous() {
		// Also with a credential that a rule lets pass as none: else any garbage
		// would open what sending nothing does not.
		return quota.Refuse(quota.CodeUnauthenticated)
	}
	for i := range rules {
		r := &rules[i]
		for _, need := range r.Require {
			if d := c.lacks(need, r.Name); d != nil && !r.Shadow {
				return d
			}
		}
	}
	return c.cannotCharge(rules)
}

// cannotCharge refuses a known caller whose request does not tell what it spends.
func (c *Caller) cannotCharge(rules []quota.Applied) *quota.Denial {
	if c.Entitlement == nil {
		return nil // spends nothing
	}
	for i := range rules {
		r := &rules[i]
		if at := slices.Index(r.SpendAmounts, quota.AmountInvalid); at >= 0 && !r.Shadow {
			d := refusal(quota.CodeBadRequest, r.Name)
			d.Message = "The amount of " + r.Spends[at].Metric + " is not a whole number in 0..2^53"
			return d
		}
	}
	return nil
}

func (c *Caller) lacks(need quota.Requirement, rule string) *quota.Denial {
	p := c.Principal
	switch {
	case p.Anonymous():
		return refusal(quota.CodeUnauthenticated, rule)
	case need.Feature != "" && !c.Entitlement.HasFeature(need.Feature):
		d := refusal(quota.CodeFeature, rule)
		d.Feature, d.Plan = need.Feature, c.PlanName()
		return d
	case need.Scope != "" && p.KeyID != "" && !p.HasScope(need.Scope):
		return refusal(quota.CodeScope, rule)
	}
	return nil
}

// account is who pays, empty for an anonymous caller.
func (c *Caller) account() quota.Subject {
	if c.Entitlement == nil {
		return ""
	}
	return c.Entitlement.Account
}
