package store

import (
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// sourceStripe marks subscriptions whose periods Stripe renews: their period's
// end is no end, unless they were cancelled to it.
const sourceStripe = "stripe"

// standing is what a subscription row means at one moment.
type standing struct {
	planID string // empty: the default plan
	status quota.Status
	// running: the subscription gives its plan.
	running bool
	// expires is when it stops, or stopped, by itself; zero: never.
	expires time.Time
	// graceUntil is when a past-due subscription loses its plan.
	graceUntil time.Time
	// pendingDue: the pending plan has taken effect.
	pendingDue bool
	// changes is the next moment at which this changes by itself; zero: never.
	changes time.Time
}

// judge says what a row means at now. Nothing runs in the background for a
// trial, a paid period or a grace to end: this is where they end.
func judge(row *sqlgen.Subscription, now time.Time, grace time.Duration) standing {
	if row == nil {
		return standing{status: quota.StatusNone}
	}
	st := standing{status: quota.Status(row.Status)}
	pending := row.PendingPlanID.Valid && !row.PendingEffectiveAt.IsZero()
	st.pendingDue = pending && !now.Before(row.PendingEffectiveAt.Time)
	if row.Status == string(quota.StatusPastDue) {
		st.graceUntil = row.PastDueSince.Add(grace)
	}
	st.expires = expiry(row, pending, st)
	switch {
	case st.status == quota.StatusCancelled || st.status == quota.StatusExpired:
		return st
	case !st.expires.IsZero() && !now.Before(st.expires):
		st.status = quota.StatusExpired
		if row.CancelAtPeriodEnd || !row.CancelledAt.IsZero() {
			st.status = quota.StatusCancelled
		}
		return st
	}
	st.running = true
	st.changes = st.expires
	st.planID = row.PlanID.String
	if st.pendingDue {
		st.planID = row.PendingPlanID.String
	} else if pending {
		st.changes = earliest(st.changes, row.PendingEffectiveAt.Time)
	}
	return st
}

// expiry is the earliest of the moments at which the row ends.
func expiry(row *sqlgen.Subscription, pending bool, st standing) time.Time {
	at := row.EndedAt.Time
	if row.Status == string(quota.StatusTrial) {
		at = earliest(at, row.TrialEnd.Time)
	}
	at = earliest(at, st.graceUntil)
	given := row.Source != sourceStripe && row.Status != string(quota.StatusPastDue)
	switch {
	case row.CancelAtPeriodEnd:
		at = earliest(at, row.CurrentPeriodEnd.Time)
	case given && pending: // the period's end is where the pending plan begins
		if st.pendingDue {
			at = earliest(at, row.PendingPeriodEnd.Time)
		}
	case given:
		at = earliest(at, row.CurrentPeriodEnd.Time)
	}
	return at
}

// anchor is where the subscription's billing periods are counted from.
func anchor(row *sqlgen.Subscription) time.Time {
	if row == nil {
		return time.Time{}
	}
	at := row.BillingAnchor
	if at.IsZero() {
		at = row.StartedAt
	}
	return at.Time
}

// checkSubscription refuses rows that say less than they must: a trial or a
// grace without an end would be free for ever.
func checkSubscription(row *sqlgen.Subscription) error {
	bad := func(field string, at column.Time, what string) error {
		if !at.IsZero() {
			return nil
		}
		return &RowError{"subscriptions", row.ID, field, invalid(field, "%s", what)}
	}
	switch quota.Status(row.Status) {
	case quota.StatusActive, quota.StatusCancelled, quota.StatusExpired:
	case quota.StatusTrial:
		return bad("trial_end", row.TrialEnd, "a trial must have an end")
	case quota.StatusPastDue:
		return bad("past_due_since", row.PastDueSince, "a past-due subscription must say since when")
	default:
		return &RowError{"subscriptions", row.ID, "status", invalid("status", "unknown status %q", row.Status)}
	}
	return nil
}

// earliest is the earlier of two moments; zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
