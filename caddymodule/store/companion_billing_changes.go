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
	// Kind is subscription.created, .updated, .cancelled, .past_due, .grace_ended,
	// .recovered or .current.
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
	// SubscriptionGraceEnded: the payment has not come, and the default plan holds.
	SubscriptionGraceEnded = "subscription.grace_ended"
	SubscriptionRecovered  = "subscription.recovered"
	// SubscriptionCurrent: another subscription of the account gives its plan now.
	SubscriptionCurrent = "subscription.current"

	// SubscriptionTrialWillEnd, InvoicePaid and InvoicePaymentFailed stand in the outbox only.
	SubscriptionTrialWillEnd = "subscription.trial_will_end"
	InvoicePaid              = "invoice.paid"
	InvoicePaymentFailed     = "invoice.payment_failed"
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
	case failing(old) && row.Status == string(quota.StatusActive):
		c.Kind = SubscriptionRecovered
	}
	before := quota.StatusNone
	if old != nil {
		c.From, before = b.planName(old.PlanID), quota.Status(old.Status)
	}
	b.keep(c, before)
}

// failing reports whether a subscription waits for a payment that may yet come, in
// its grace or after the provider has given up. A first payment that never came is
// none of it: nothing was there that could recover.
func failing(row *sqlgen.Subscription) bool {
	switch quota.Status(row.Status) {
	case quota.StatusPastDue:
		return true
	case quota.StatusExpired:
		return GoesOn(row.StripeStatus.String)
	}
	return false
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
	b.keep(c, c.Status)
}

// keep puts a change into the result, the audit log and, where others know its
// kind, the outbox.
func (b *billing) keep(c BillingChange, before quota.Status) {
	b.result.Changes = append(b.result.Changes, c)
	changes := map[string]AuditChange{}
	if c.From != c.To {
		changes["plan"] = AuditChange{From: c.From, To: c.To}
	}
	if before != c.Status {
		changes["status"] = AuditChange{From: before, To: c.Status}
	}
	b.audit.add(AuditEvent{
		Action: c.Kind, ResourceType: "subscription", ResourceID: c.Subscription, Account: b.account.ID(), Changes: changes,
		Metadata: map[string]any{"stripe_subscription_id": c.StripeID},
	})
	if c.Kind != SubscriptionCurrent {
		b.tell(c.Kind, map[string]any{
			"subscription_id": c.Subscription, "plan": c.To, "previous_plan": c.From, "status": c.Status,
		})
	}
}

// noteInvoice tells of an invoice that was paid, or whose payment has failed.
func (b *billing) noteInvoice(old *sqlgen.InvoiceStatesRow, in *BilledInvoice) {
	var kind string
	switch {
	case in.Status == "paid" && old.Status != "paid":
		kind = InvoicePaid
	case in.Status == "open" && in.Attempts > old.Attempts && in.AmountRemaining > 0:
		kind = InvoicePaymentFailed
	default:
		return
	}
	b.tell(kind, map[string]any{
		"invoice_id": in.ID, "number": in.Number, "currency": in.Currency, "amount_due_cents": in.AmountDue,
		"amount_paid_cents": in.AmountPaid, "amount_remaining_cents": in.AmountRemaining,
	})
}

// tell puts an event into the outbox.
func (b *billing) tell(kind string, payload map[string]any) {
	payload[b.account.Kind()+"_id"] = b.account.ID()
	b.audit.tell(OutboxEvent{Type: kind, Account: b.account.ID(), Payload: payload})
}

func (b *billing) planName(id sql.NullString) string {
	if row := b.plans.byID(id.String); row != nil {
		return row.Name
	}
	return ""
}
