package store

import (
	"database/sql"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
	"pgregory.net/rapid"
)

// What is judged at one moment holds, with its status and plan, until the moment
// that it says it changes at: a cache may keep it until then and no longer.
func TestStandingHoldsUntilItChanges(t *testing.T) {
	t.Parallel()
	const unit = time.Hour
	zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := rapid.Custom(func(t *rapid.T) column.Time {
		if n := rapid.IntRange(-1, 20).Draw(t, "at"); n >= 0 {
			return column.At(zero.Add(time.Duration(n) * unit))
		}
		return column.Time{}
	})
	rapid.Check(t, func(t *rapid.T) {
		row := &sqlgen.Subscription{
			PlanID:             sql.NullString{String: "plan", Valid: true},
			Source:             rapid.SampledFrom([]string{"stripe", "manual", "trial"}).Draw(t, "source"),
			Status:             rapid.SampledFrom([]string{"active", "trial", "past_due", "cancelled", "expired"}).Draw(t, "status"),
			TrialEnd:           at.Draw(t, "trial_end"),
			CurrentPeriodEnd:   at.Draw(t, "current_period_end"),
			CancelAtPeriodEnd:  rapid.Bool().Draw(t, "cancel_at_period_end"),
			CancelledAt:        at.Draw(t, "cancelled_at"),
			EndedAt:            at.Draw(t, "ended_at"),
			PastDueSince:       at.Draw(t, "past_due_since"),
			PendingPlanID:      sql.NullString{String: "next", Valid: rapid.Bool().Draw(t, "pending")},
			PendingEffectiveAt: at.Draw(t, "pending_effective_at"),
			PendingPeriodEnd:   at.Draw(t, "pending_period_end"),
		}
		if checkSubscription(row) != nil {
			return
		}
		grace := 3 * unit
		now := zero.Add(time.Duration(rapid.IntRange(0, 25).Draw(t, "now")) * unit)
		st := judge(row, now, grace)
		later := zero.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "later")) * unit)
		if later.Before(now) {
			return
		}
		after := judge(row, later, grace)
		same := after.planID == st.planID && after.status == st.status && after.running == st.running
		if !same && (st.changes.IsZero() || later.Before(st.changes)) {
			t.Fatalf("at %s: %+v; at %s, before it changes: %+v", now, st, later, after)
		}
		if !st.changes.IsZero() && !st.changes.After(now) {
			t.Fatalf("at %s it changes in the past: %+v", now, st)
		}
		if !st.running && st.planID != "" {
			t.Fatalf("not running, and with a plan: %+v", st)
		}
		if st.running && (st.status == quota.StatusExpired || st.status == quota.StatusCancelled) {
			t.Fatalf("running although it is over: %+v", st)
		}
	})
}
