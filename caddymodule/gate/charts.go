package gate

import "github.com/quotagate/quotagate/caddymodule/quota"

// The words for admitted requests; denials are known by their codes.
const (
	OutcomeAdmitted     = "admitted"
	OutcomeShadowDenied = "shadow_denied"
)

// Outcome is the word for what rule i said of an admitted request.
func (t *Ticket) Outcome(i int) string {
	r := &t.rules[i]
	if !r.Shadow {
		return OutcomeAdmitted
	}
	for _, need := range r.Require {
		if t.caller.lacks(need, r.Name) != nil {
			return OutcomeShadowDenied
		}
	}
	for j := range t.charges {
		if t.charges[j].Rule == i && t.decision.Outcomes[j].Exceeded {
			return OutcomeShadowDenied
		}
	}
	return OutcomeAdmitted
}

// count adds the request to the charts, once for each rule that applied.
// Without a denial's code the rules speak for themselves.
func (t *Ticket) count(code string, status int) {
	e := t.caller.Entitlement
	if e == nil {
		return
	}
	hour := t.began.Unix() / 3600 * 3600
	for i := range t.rules {
		decision := code
		if decision == "" {
			decision = t.Outcome(i)
		}
		t.gate.rt.recorder.count(e.Digest(), rollupKind{
			hour: hour, account: e.Account, scope: ChartScope(t.rules[i].Rule), decision: decision, class: status / 100,
		}, t.cost(i))
	}
}

// cost is what rule i has charged of its first metric.
func (t *Ticket) cost(i int) int64 {
	r := &t.rules[i]
	if len(r.Spends) == 0 {
		return 0
	}
	for j := range t.charges {
		if c := &t.charges[j]; c.Rule == i && c.Key.Space == quota.SpaceUsage && c.Key.Name == r.Spends[0].Metric {
			return t.decision.Outcomes[j].Charged
		}
	}
	return 0
}

// ChartScope is the word for a rule in charts and metrics: its first scope or
// metric, else its name.
func ChartScope(r *quota.Rule) string {
	if len(r.Limits) > 0 {
		return r.Limits[0].Scope
	}
	if len(r.Spends) > 0 {
		return r.Spends[0].Metric
	}
	return r.Name
}
