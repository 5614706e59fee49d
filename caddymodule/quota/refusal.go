package quota

import (
	"slices"
	"time"
)

// NewDenial is the denial that a decision amounts to; d.Denied must be an index
// of cs. The entitlement may be nil (an anonymous caller), and rules are those
// that the charges were made from. The ID is left to the caller.
func NewDenial(cs []Charge, d *Decision, e *Entitlement, rules []Applied, now time.Time) *Denial {
	c := &cs[d.Denied]
	n := &Denial{
		Status:   c.Status,
		Message:  c.Message(),
		Policies: violated(cs, d),
		Limit:    c.Limit,
		Used:     d.Outcomes[d.Denied].Used,
	}
	if c.Rule >= 0 && c.Rule < len(rules) {
		n.Rule = rules[c.Rule].Name
	}
	if e != nil && e.Plan != nil {
		n.Plan = e.Plan.Name
	}
	if d.RetryAfter >= 0 {
		// Zero would say that waiting is of no use: the window has moved on
		// between the decision and now.
		n.RetryAfter = max(d.RetryAfter, time.Millisecond)
	}
	if c.Key.Space == SpaceRate {
		n.Code, n.Scope = CodeRateLimited, c.Key.Name
		return n
	}
	n.Code, n.Metric, n.Period = CodeQuotaExceeded, c.Key.Name, c.Key.Period
	if c.End != 0 {
		n.ResetAt = time.Unix(c.End, 0).UTC()
	}
	return n
}

// violated names the policies that deny, in the charges' order, each once.
func violated(cs []Charge, d *Decision) []string {
	var names []string
	for i := range cs {
		if !d.Outcomes[i].Exceeded || cs[i].Force {
			continue
		}
		if name := string(cs[i].AppendPolicy(nil)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Refuse is a denial that has nothing to do with counters, with the status and
// the message that belong to its code. The caller completes Rule, Feature, Plan and ID.
func Refuse(code string) *Denial {
	d := &Denial{Code: code, Status: 403}
	switch code {
	case CodeUnauthenticated, CodeInvalidToken:
		d.Status, d.Message = 401, "Could not validate credentials"
	case CodeSuspended:
		d.Message = "This account is suspended"
	case CodeDeleted:
		d.Message = "This account was deleted"
	case CodeNotOrgMember:
		d.Message = "You are not a member of this organization"
	case CodeFeature:
		d.Message = "Your plan does not include this feature"
	case CodeScope:
		d.Message = "This API key does not have the required scope"
	case CodeAdmin:
		d.Message = "Admin access required"
	case CodeLimiterUnavailable:
		d.Status, d.Message, d.RetryAfter = 503, "Limits cannot be checked at the moment", time.Second
	case CodeBadRequest:
		d.Status, d.Message = 400, "The request is malformed"
	default:
		d.Message = "The request was refused"
	}
	return d
}
