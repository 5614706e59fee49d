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

// count adds the request to the charts, for each rule that applied under the
// rule's word and under each metric that it spends. Without a denial's code the
// rules speak for themselves.
func (t *Ticket) count(code string, status int) {
	e := t.caller.Entitlement
	if e == nil {
		return
	}
	kind := rollupKind{hour: t.began.Unix() / 3600 * 3600, account: e.Account, class: status / 100}
	for i := range t.rules {
		r := &t.rules[i]
		if kind.decision = code; code == "" {
			kind.decision = t.Outcome(i)
		}
		kind.scope, kind.metric = ChartScope(r.Rule), ""
		own := ownSpend(r, kind.scope)
		if own < len(r.Spends) && r.Spends[own].Metric != kind.scope {
			kind.metric = r.Spends[own].Metric
		}
		t.gate.rt.recorder.count(e.Digest(), kind, t.cost(i, own))
		for s := range r.Spends {
			if s != own {
				kind.scope, kind.metric = r.Spends[s].Metric, ""
				t.gate.rt.recorder.count(e.Digest(), kind, t.cost(i, s))
			}
		}
	}
}

// ownSpend is the spend whose cost stands beside the rule's word: of the metric
// of that name, else the first.
func ownSpend(r *quota.Applied, scope string) int {
	for s := range r.Spends {
		if r.Spends[s].Metric == scope {
			return s
		}
	}
	return 0
}

// cost is what rule i has charged by its given spend, 0 where it has none.
func (t *Ticket) cost(i, spend int) int64 {
	r := &t.rules[i]
	if spend >= len(r.Spends) {
		return 0
	}
	for j := range t.charges {
		if c := &t.charges[j]; c.Rule == i && c.Key.Space == quota.SpaceUsage && c.Key.Name == r.Spends[spend].Metric {
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
