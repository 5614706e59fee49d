package gate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Explanation is what Admit would answer, and why.
type Explanation struct {
	// Denial is nil where the request would be admitted.
	Denial *quota.Denial
	// Charges are what would be charged; none where the request is refused before
	// any is looked at. Decision is what the counters say of the first of them:
	// what is used of the others is not known.
	Charges  []quota.Charge
	Decision quota.Decision
	// Fault is why the counters, or the usage that they start from, could not be
	// asked, where the rules' on_outage has decided for that.
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
	e.Charges = quota.AppendCharges(nil, g.quotaCaller(&c, rules), rules, e.At, nil)
	if len(e.Charges) == 0 {
		return e
	}
	var unknown []quota.Charge
	if e.Fault = g.Peek(ctx, c.account(), e.Charges, &e.Decision); e.Fault != nil {
		unknown = g.explainOutage(ctx, e, rules)
	}
	if e.Denial == nil && !e.Decision.Admitted() {
		e.Denial = quota.NewDenial(e.Charges, &e.Decision, c.Entitlement, rules, e.At)
	}
	e.Charges = append(e.Charges, unknown...)
	return e
}

// explainOutage is outage without taking anything. It answers the charges of
// which nobody knows what is used.
func (g *Gate) explainOutage(ctx context.Context, e *Explanation, rules []quota.Applied) []quota.Charge {
	var cold *quota.ColdError
	counting := errors.As(e.Fault, &cold)
	var known, unknown []quota.Charge
	if counting {
		// Peek wants to know what is used of unlimited quotas too; a reservation
		// does not wait for those.
		waits := &quota.ColdError{}
		for i, c := range e.Charges {
			if !slices.Contains(cold.Charges, i) {
				known = append(known, c)
				continue
			}
			unknown = append(unknown, c)
			if !c.Limit.Unlimited && !c.Force {
				waits.Charges = append(waits.Charges, i)
			}
		}
		if cold = waits; len(cold.Charges) == 0 {
			e.Fault = nil
		}
	}
	if e.Fault != nil {
		if r := outageDenier(rules, e.Charges, cold); r != nil {
			e.Denial = refusal(quota.CodeLimiterUnavailable, r.Name)
			known, unknown = nil, nil
		} else if counting {
			all, d := slices.Clone(e.Charges), quota.Decision{}
			asKnown(all)
			if err := g.rt.engine.Peek(ctx, all, &d); err == nil && !d.Admitted() {
				e.Charges, e.Decision = all, d
				return nil
			}
		}
	}
	e.Charges = known
	if err := g.rt.engine.Peek(ctx, e.Charges, &e.Decision); err != nil {
		e.Fault, e.Charges = err, nil
		e.Decision.Reset(0)
	}
	return unknown
}
