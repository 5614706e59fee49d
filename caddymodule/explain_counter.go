package caddymodule

import (
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// ExplainedCounter is one counter that a request would be charged to.
type ExplainedCounter struct {
	// Policy is the name as it stands in RateLimit headers: a scope, or <metric>/<period>.
	Policy string `json:"policy"`
	// Rule is the rule that charges it.
	Rule string `json:"rule"`
	// Scope and WindowSeconds describe a rate limit, Metric and Period a quota.
	Scope         string  `json:"scope,omitempty"`
	WindowSeconds float64 `json:"window_seconds,omitempty"`
	Metric        string  `json:"metric,omitempty"`
	Period        string  `json:"period,omitempty"`
	// Limit is null where the counter only counts.
	Limit *int64 `json:"limit"`
	// LimitFrom is where the limit stands: override (the account's own), plan,
	// base (the config's, times the plan's multiplier), fallback (nobody names
	// one), or none.
	LimitFrom string `json:"limit_from"`
	// Cost is what the request would take; what only its end tells is 0.
	Cost int64 `json:"cost"`
	// Used is what is counted now, Remaining what is left before the request; null: unlimited.
	Used      int64  `json:"used"`
	Remaining *int64 `json:"remaining"`
	// ResetSeconds is how long until more is left: for a rate at most its window,
	// for a quota its period's end. Null where time does not help.
	ResetSeconds *float64 `json:"reset_seconds"`
	// Exceeded says that the request does not fit; Shadow that it passes all the same.
	Exceeded bool `json:"exceeded,omitempty"`
	Shadow   bool `json:"shadow,omitempty"`
}

// The places that a limit comes from.
const (
	fromOverride = "override"
	fromPlan     = "plan"
	fromBase     = "base"
	fromFallback = "fallback"
	fromNone     = "none"
)

// explainCounter describes charge i.
func explainCounter(e *gate.Explanation, i int, c *gate.Caller, applied []quota.Applied) ExplainedCounter {
	ch := &e.Charges[i]
	rule := &applied[ch.Rule]
	x := ExplainedCounter{
		Policy: string(ch.AppendPolicy(nil)), Rule: rule.Name, Cost: ch.Cost,
		LimitFrom: limitFrom(ch, c, rule), Shadow: rule.Shadow,
	}
	if ch.Key.Space == quota.SpaceRate {
		x.Scope, x.WindowSeconds = ch.Key.Name, ch.Limit.Window.Seconds()
	} else {
		x.Metric, x.Period = ch.Key.Name, ch.Key.Period.String()
	}
	known := i < len(e.Decision.Outcomes)
	if known {
		o := &e.Decision.Outcomes[i]
		x.Used, x.Exceeded = o.Used-o.Charged, o.Exceeded
		if wait := resetOf(e, i); wait >= 0 {
			seconds := wait.Seconds()
			x.ResetSeconds = &seconds
		}
	}
	if !ch.Limit.Unlimited {
		limit := ch.Limit.Max
		x.Limit = &limit
		if known {
			left := max(0, limit-x.Used)
			x.Remaining = &left
		}
	}
	return x
}

// resetOf is how long until charge i has more left; negative: never by waiting.
func resetOf(e *gate.Explanation, i int) time.Duration {
	ch := &e.Charges[i]
	switch {
	case e.Decision.Outcomes[i].Exceeded:
		return e.Decision.WaitFor(e.Charges, i, e.At)
	case ch.Key.Space == quota.SpaceRate:
		return ch.Limit.Window
	case ch.End == 0:
		return -1
	}
	return max(0, time.Unix(ch.End, 0).Sub(e.At))
}

// limitFrom follows the precedence of quota.AppendCharges.
func limitFrom(ch *quota.Charge, c *gate.Caller, rule *quota.Applied) string {
	if ch.Key.Space == quota.SpaceUsage {
		return quotaFrom(ch, c.Entitlement)
	}
	e := c.Entitlement
	if e != nil && rule.By != quota.ByIP {
		if _, ok := e.RateOverrides[ch.Key.Name]; ok {
			return fromOverride
		}
		if e.Plan != nil {
			if _, ok := e.Plan.RateLimits[ch.Key.Name]; ok {
				return fromPlan
			}
		}
	}
	for _, l := range rule.Limits {
		if l.Scope == ch.Key.Name && l.Base.Window != 0 {
			return fromBase
		}
	}
	return fromFallback
}

func quotaFrom(ch *quota.Charge, e *quota.Entitlement) string {
	q, ok := e.Quota(ch.Key.Name)
	if !ok || q.Period != ch.Key.Period {
		return fromNone // counted in this period for the sake of another plan, or for display
	}
	if e.Plan != nil && e.Plan.Quotas[ch.Key.Name] == q {
		return fromPlan
	}
	return fromOverride
}
