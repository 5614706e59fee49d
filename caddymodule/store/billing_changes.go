package store

import (
	"database/sql"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// BillingChange is what happened to a subscription, in the words of the events
// that webhooks and the audit log have.
type BillingChange struct {
	// Kind is subscription.created, .updated, .cancelled, .past_due, .recovered or .current.
	Kind string
	// Subscription is our id, StripeID the provider's.
	Subscription, StripeID string
	// From and To are plan names; empty: none, or of a price that no plan knows.
	From, To string
	Status   quota.Status
	At       time.Time
}

// The kinds of changes.
const (
	SubscriptionCreated   = "subscription.created"
	SubscriptionUpdated   = "subscription.updated"
	SubscriptionCancelled = "subscription.cancelled"
	SubscriptionPastDue   = "subscription.past_due"
	SubscriptionRecovered = "subscription.recovered"
	// SubscriptionCurrent: another subscription of the account gives its plan now.
	SubscriptionCurrent = "subscription.current"
)

// note keeps what happened to a row; old is nil for a new one.
func (b *billing) note(old, row *sqlgen.Subscription) {
	c := BillingChange{
		Kind: SubscriptionUpdated, Subscription: row.ID, StripeID: row.StripeSubscriptionID.String,
		To: b.planName(row.PlanID), Status: quota.Status(row.Status), At: b.now.Time,
	}
	switch {
	case old == nil:
		c.Kind = SubscriptionCreated
	case isRunning(old.Status) && !isRunning(row.Status):
		c.Kind = SubscriptionCancelled
	case old.Status != row.Status && row.Status == string(quota.StatusPastDue):
		c.Kind = SubscriptionPastDue
	case old.Status == string(quota.StatusPastDue) && row.Status == string(quota.StatusActive):
		c.Kind = SubscriptionRecovered
	}
	if old != nil {
		c.From = b.planName(old.PlanID)
	}
	b.result.Changes = append(b.result.Changes, c)
}

// noteCurrent keeps that another subscription is the current one; nil: none.
func (b *billing) noteCurrent(from, to *sqlgen.Subscription) {
	c := BillingChange{Kind: SubscriptionCurrent, At: b.now.Time}
	if from != nil {
		c.From, c.Subscription, c.StripeID, c.Status = b.planName(from.PlanID), from.ID, from.StripeSubscriptionID.String, quota.Status(from.Status)
	}
	if to != nil {
		c.To, c.Subscription, c.StripeID, c.Status = b.planName(to.PlanID), to.ID, to.StripeSubscriptionID.String, quota.Status(to.Status)
	}
	b.result.Changes = append(b.result.Changes, c)
}

func (b *billing) planName(id sql.NullString) string {
	if row := b.plans.byID(id.String); row != nil {
		return row.Name
	}
	return ""
}
