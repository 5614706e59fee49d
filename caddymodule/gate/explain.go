package gate

import (
	"context"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Explanation is what Admit would answer, and why.
type Explanation struct {
	// Denial is nil where the request would be admitted.
	Denial *quota.Denial
	// Charges are what would be charged, and Decision what the counters say of
	// them; both are empty where the request is refused before any is looked at.
	Charges  []quota.Charge
	Decision quota.Decision
	// Fault is why the counters, or the usage that they start from, could not be
	// asked: the rules' on_outage has decided.
	Fault error
	// At is when it was judged.
	At time.Time
}

// Explain is Admit without taking anything: the same checks, the same charges,
// the same words of the counters. Nothing is recorded.
func (g *Gate) Explain(ctx context.Context, c Caller, rules []quota.Applied, site Policy) *Explanation {
	e := &Explanation{At: time.Now(), Decision: quota.Decision{Denied: -1}}
	if e.Denial = g.refuse(&c, rules, site); e.Denial != nil {
		return e
	}
	caller := quota.Caller{Principal: c.Principal, Entitlement: c.Entitlement, IP: c.IP}
	e.Charges = quota.AppendCharges(nil, caller, rules, e.At, nil)
	if len(e.Charges) == 0 {
		return e
	}
	if e.Fault = g.Peek(ctx, c.account(), e.Charges, &e.Decision); e.Fault != nil {
		g.explainOutage(ctx, e, rules)
	}
	if e.Denial == nil && !e.Decision.Admitted() {
		e.Denial = quota.NewDenial(e.Charges, &e.Decision, c.Entitlement, rules, e.At)
	}
	return e
}

// explainOutage is outage without taking anything.
func (g *Gate) explainOutage(ctx context.Context, e *Explanation, rules []quota.Applied) {
	for i := range rules {
		if r := &rules[i]; r.DenyOnOutage && !r.Shadow {
			e.Denial = refusal(quota.CodeLimiterUnavailable, r.Name)
			e.Charges = nil
			e.Decision.Reset(0)
			return
		}
	}
	for i := range e.Charges {
		if e.Charges[i].Key.Space == quota.SpaceUsage {
			e.Charges[i].Force = true
		}
	}
	if err := g.rt.engine.Peek(ctx, e.Charges, &e.Decision); err != nil {
		e.Charges = nil
		e.Decision.Reset(0)
	}
}
