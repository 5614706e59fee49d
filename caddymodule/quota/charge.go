package quota

import (
	"errors"
	"time"
)

// Space separates the namespaces of counter names: a scope and a metric of the
// same name never meet.
type Space uint8

// The namespaces of counters.
const (
	SpaceRate  Space = iota // Key.Name is a scope
	SpaceUsage              // Key.Name is a metric
)

// Key names one counter. It is comparable and holds no plan: usage survives an upgrade.
type Key struct {
	Digest Digest // of the subject
	Name   string // scope or metric
	Space  Space
	Period Period // SpaceUsage only
	Start  int64  // SpaceUsage only: the period's start in Unix seconds, 0 for a level
}

// Limit is what a charge is compared with.
type Limit struct {
	Max       int64
	Unlimited bool          // counted, never denied
	Window    time.Duration // SpaceRate only
}

// Charge asks for Cost units of one counter.
type Charge struct {
	Key   Key
	Limit Limit
	// Cost is what is taken, Need what must be left for the charge to be
	// admitted, where that is more (response_seconds: Cost 0, Need 1).
	Cost, Need int64
	// Account and End complete a usage row: who pays, and the period's end (Unix seconds).
	Account Subject
	End     int64
	// Once, unless zero, makes the charge free if the same Once was charged
	// under the same key within OnceTTL.
	Once Digest
	// Force counts without denying. A rate that is over its limit is reported as
	// denied and not counted; usage is always counted.
	Force bool
	// AsKnown compares with what the counters know of usage, though the records may
	// know of more: the charge is never cold.
	AsKnown bool
	// DenyOnOutage says that the request must not pass unless the counters have
	// been asked: a rule that charges this one denies in an outage.
	DenyOnOutage bool
	// Status of the denial.
	Status int
	// Rule is the index of the applied rule that asks.
	Rule int
}

// ErrOverflow refuses a charge that a counter cannot hold: it would pass
// MaxAmount. Nothing is taken.
var ErrOverflow = errors.New("the counter would pass 2^53")

// OnceTTL is how long a Once is remembered.
const OnceTTL = 24 * time.Hour

// Caller is whom a request's charges fall on.
type Caller struct {
	Principal *Principal
	// Entitlement is nil for an anonymous caller.
	Entitlement *Entitlement
	IP          Subject
}

// Warning is a scope for which neither a plan nor the config has a limit.
type Warning struct{ Rule, Scope string }

// AppendCharges appends what the applied rules charge the caller at now, in
// their order, and reports the scopes that fell back to FallbackRate. A counter
// that is named twice is charged once, by the first rule that names it; but an
// enforced rule goes before a shadow one, or a trial of a new rule would switch
// off an old one. Spends of an anonymous caller are skipped: it has no plan.
func AppendCharges(dst []Charge, c Caller, rules []Applied, now time.Time, warn func(Warning)) []Charge {
	for i := range rules {
		dst = appendLimits(dst, c, rules, i, warn)
	}
	if c.Entitlement == nil {
		return dst
	}
	digest := c.Entitlement.Digest()
	for i := range rules {
		r := &rules[i]
		for j := range r.Spends {
			dst = appendSpend(dst, c.Entitlement, digest, r, i, j, now)
		}
	}
	return dst
}

// digest is that of a subject of the caller's, which is most often the account.
func (c *Caller) digest(s Subject) Digest {
	if c.Entitlement != nil && s == c.Entitlement.Account {
		return c.Entitlement.Digest()
	}
	return s.Digest()
}

func appendLimits(dst []Charge, c Caller, rules []Applied, index int, warn func(Warning)) []Charge {
	r := &rules[index]
	if len(r.Limits) == 0 {
		return dst
	}
	subject, planned := r.subject(c)
	digest := c.digest(subject)
	for _, l := range r.Limits {
		key := Key{Digest: digest, Name: l.Scope}
		if charged(dst, key, r) {
			continue
		}
		base := l.Base
		if base.Window == 0 {
			base = baseOf(l.Scope, rules)
		}
		rate, ok := base, base.Window != 0
		switch {
		case planned:
			rate, ok = c.Entitlement.RateFor(l.Scope, base)
		case !ok:
			rate = FallbackRate
		}
		if !ok && warn != nil {
			warn(Warning{Rule: r.Name, Scope: l.Scope})
		}
		dst = put(dst, Charge{
			Key: key, Limit: Limit{Max: rate.Requests, Window: rate.Window},
			Cost: 1, Force: r.Shadow, DenyOnOutage: r.deniesOnOutage(), Status: 429, Rule: index,
		})
	}
	return dst
}

// baseOf is the first base that one of the rules gives the scope, zero if none does.
func baseOf(scope string, rules []Applied) Rate {
	for i := range rules {
		for _, l := range rules[i].Limits {
			if l.Scope == scope && l.Base.Window != 0 {
				return l.Base
			}
		}
	}
	return Rate{}
}

// subject is whose counter the rule's limits use, and whether a plan applies to it.
func (r *Applied) subject(c Caller) (s Subject, planned bool) {
	known := c.Entitlement != nil
	switch r.By {
	case ByIP:
		return c.IP, false
	case ByHeader, ByValue:
		if r.Key != "" {
			return r.Key, known
		}
		return c.IP, known
	case ByUser:
		if known {
			return c.Principal.Subject, true
		}
	default:
		if known {
			return c.Entitlement.Account, true
		}
	}
	return c.IP, false
}

// ByAddress reports whether the rule counts even a known caller by its address.
func (r *Applied) ByAddress() bool {
	switch r.By {
	case ByIP:
		return true
	case ByHeader, ByValue:
		return r.Key == ""
	}
	return false
}

// absurd is half of what a counter can hold. Only a client that makes its
// amounts up asks for more.
const absurd = MaxAmount / 2

func appendSpend(dst []Charge, e *Entitlement, digest Digest, r *Applied, index, spend int, now time.Time) []Charge {
	metric := r.Spends[spend].Metric
	q, limited := e.Quota(metric)
	counted := e.countedIn(metric)
	cost, need := r.SpendAmounts[spend], int64(0)
	switch cost {
	case AmountLate:
		cost, need = 0, 1
	case AmountInvalid: // of a rule in shadow mode
		return dst
	}
	if cost > absurd && limited && !q.Unlimited && cost > q.Limit && !r.Shadow {
		// It is denied whatever is used. The counters must be able to say so: beside
		// what is used it might be more than they can hold.
		cost = q.Limit + 1
	}
	for p := PeriodDay; p <= PeriodNone; p++ {
		if !counted.Has(p) {
			continue
		}
		start, end := p.Span(now, e.Anchor)
		key := Key{Digest: digest, Name: metric, Space: SpaceUsage, Period: p, Start: unix(start)}
		if charged(dst, key, r) {
			continue
		}
		ch := Charge{
			Key: key, Limit: Limit{Unlimited: true}, Cost: cost, Need: need,
			Account: e.Account, End: unix(end), Once: r.Once, Force: r.Shadow, DenyOnOutage: r.deniesOnOutage(), Rule: index,
		}
		if limited && q.Period == p {
			ch.Limit = Limit{Max: q.Limit, Unlimited: q.Unlimited}
			ch.Status = q.Status
		}
		dst = put(dst, ch)
	}
	return dst
}

// charged reports whether a charge for k stands already and is not to be
// replaced by one of the rule. The rule then shares it, with what it says of outages.
func charged(cs []Charge, k Key, r *Applied) bool {
	i := find(cs, k)
	if i < 0 || (!r.Shadow && cs[i].Force) {
		return false
	}
	cs[i].DenyOnOutage = cs[i].DenyOnOutage || r.deniesOnOutage()
	return true
}

func (r *Applied) deniesOnOutage() bool { return r.DenyOnOutage && !r.Shadow }

// put appends ch, or replaces the charge for the same key in its place.
func put(cs []Charge, ch Charge) []Charge {
	if i := find(cs, ch.Key); i >= 0 {
		cs[i] = ch
		return cs
	}
	return append(cs, ch)
}

func find(cs []Charge, k Key) int {
	for i := range cs {
		if cs[i].Key == k {
			return i
		}
	}
	return -1
}

// unix is t in Unix seconds, 0 for the zero time (a level has no period).
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
