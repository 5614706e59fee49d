package quota

import "time"

// Status is the state of an account's subscription, in the words of the API.
type Status string

// The subscription states. StatusNone: no subscription row, the default plan.
const (
	StatusNone      Status = ""
	StatusActive    Status = "active"
	StatusTrial     Status = "trial"
	StatusPastDue   Status = "past_due"
	StatusCancelled Status = "cancelled"
	StatusExpired   Status = "expired"
)

// Control is what an admin has decided about a user.
type Control uint8

// The control states of a user.
const (
	ControlActive Control = iota
	ControlSuspended
	ControlDeleted
)

// Entitlement is what an account may do, as of one version of the records. It
// is shared between requests and never written to after it was loaded.
type Entitlement struct {
	Account Subject
	// AccountDigest is Account.Digest(), kept by whoever keeps the entitlement so
	// that a request need not compute it; zero: not kept. Use Digest.
	AccountDigest Digest
	Plan          *Plan
	Status        Status
	// ValidUntil is when this stops being true by itself (a trial, a grace or a
	// paid period ends, an override begins or ends); zero: never.
	ValidUntil time.Time
	// Control, TokensValidAfter and RevokedSessions concern the user, not the account that pays.
	Control          Control
	TokensValidAfter time.Time
	RevokedSessions  map[string]struct{}
	// CurrentPeriodEnd is when the paid or granted period of the subscription
	// ends; zero: there is no subscription, or it has no end.
	CurrentPeriodEnd time.Time
	// Anchor of the billing periods; zero: calendar months.
	Anchor time.Time
	// RateOverrides are the account's own limits by scope; they go before the plan's.
	RateOverrides map[string]Rate
	// Quotas are the plan's quotas with the account's overrides and top-ups
	// applied; nil: the plan's as they are.
	Quotas map[string]Quota
	// Counted says in which periods each metric is counted: all that any plan
	// uses for it, so that a change of plan finds what was used.
	Counted map[string]Periods
	// Version is the largest change number that the load has seen.
	Version int64
}

// Digest is the digest of the account.
func (e *Entitlement) Digest() Digest {
	if e.AccountDigest != (Digest{}) {
		return e.AccountDigest
	}
	return e.Account.Digest()
}

// Quota is the account's quota of a metric; ok is false if the plan does not name it.
func (e *Entitlement) Quota(metric string) (q Quota, ok bool) {
	q, ok = e.AllQuotas()[metric]
	return q, ok
}

// AllQuotas are the account's quotas by metric. The map is not to be written to.
func (e *Entitlement) AllQuotas() map[string]Quota {
	if e.Quotas != nil || e.Plan == nil {
		return e.Quotas
	}
	return e.Plan.Quotas
}

// HasFeature reports whether the plan has the feature switched on.
func (e *Entitlement) HasFeature(name string) bool {
	return e.Plan != nil && e.Plan.Features[name]
}

// Revoked reports whether a credential was revoked: it was issued at or before
// the second of TokensValidAfter (or does not say when), or names a revoked session.
func (e *Entitlement) Revoked(p *Principal) bool {
	if !e.TokensValidAfter.IsZero() &&
		(p.IssuedAt.IsZero() || p.IssuedAt.Unix() <= e.TokensValidAfter.Unix()) {
		return true
	}
	if p.Session == "" || e.RevokedSessions == nil {
		return false
	}
	_, revoked := e.RevokedSessions[p.Session]
	return revoked
}

// RateFor is the limit of a scope: the account's override, else the plan's,
// else base times the plan's multiplier. ok is false where nobody names one;
// FallbackRate is returned then.
func (e *Entitlement) RateFor(scope string, base Rate) (r Rate, ok bool) {
	if r, ok := e.RateOverrides[scope]; ok {
		return r, true
	}
	if e.Plan != nil {
		if r, ok := e.Plan.RateLimits[scope]; ok {
			return r, true
		}
	}
	if base.Window == 0 {
		return FallbackRate, false
	}
	if e.Plan == nil {
		return base, true
	}
	return base.Scale(e.Plan.MultiplierPct), true
}
