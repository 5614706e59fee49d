package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// BilledSubscription is a subscription as the payment provider has it.
type BilledSubscription struct {
	ID string
	// Status is Stripe's own word.
	Status                 string
	PriceID, LookupKey     string
	Quantity               int64
	StartedAt              time.Time
	Anchor                 time.Time // billing periods are counted from here
	PeriodStart, PeriodEnd time.Time
	TrialEnd               time.Time
	CancelAtPeriodEnd      bool
	CancelAt               time.Time // ends then, which is not the period's end
	CancelledAt, EndedAt   time.Time
	// PastDueSince is when the payment failed that is still due.
	PastDueSince time.Time
	// The pending price follows at PendingAt.
	PendingPriceID, PendingLookupKey string
	PendingAt                        time.Time
}

// BilledInvoice is an invoice as the payment provider has it.
type BilledInvoice struct {
	ID, Subscription, Number, Status, Currency string
	AmountDue, AmountPaid, AmountRemaining     int64 // in the currency's minor unit
	Attempts                                   int64 // how often a payment was tried
	PeriodStart, PeriodEnd                     time.Time
	CreatedAt, PaidAt                          time.Time
	HostedURL, PDFURL                          string
}

// CustomerTruth is everything that one read of a customer found.
type CustomerTruth struct {
	Subscriptions []BilledSubscription
	Invoices      []BilledInvoice
	// Prices are plan names by price id, as the config has them.
	Prices map[string]string
}

// SyncResult is what a read of a customer has changed.
type SyncResult struct {
	// Account is empty for a customer that none of ours is.
	Account quota.Subject
	// Stale: a read that began later was written before; nothing was done.
	Stale bool
	// Changes are in the order of the subscriptions' ids.
	Changes []BillingChange
	// Deleted: the account is a user who was deleted, and must not go on paying.
	Deleted bool
	// Page is a checkout session that is open though its account is deleted or has
	// a subscription that goes on: nobody is to pay on it.
	Page string
	// Unfinished: there is a Page, or a subscription of a deleted user, and so
	// something to end at the provider. The job goes on until a read finds nothing.
	Unfinished bool
	// UnknownPrices are of running subscriptions, sorted.
	UnknownPrices []string
}

// ApplySync writes what a read of a customer found and ends the job, in one
// transaction, unless the result of a read that began later is there already, or
// something is left to do at the provider: whoever does that may be killed, and
// then the customer must be read again. What it writes depends on what was found
// and on nothing that was there before: neither on how many events told of it nor
// on their order.
func (s *Companion) ApplySync(ctx context.Context, job SyncJob, truth CustomerTruth) (*SyncResult, error) {
	var result *SyncResult
	err := s.audited(ctx, Actor{Type: ActorSystem}, func(q *sqlgen.Queries, a *auditor) error {
		result = &SyncResult{}
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		fresh, err := q.ClaimWrite(ctx, sqlgen.ClaimWriteParams{CustomerID: job.Customer, WrittenFetch: job.Fetch})
		if err != nil {
			return fmt.Errorf("claiming the write: %w", err)
		}
		if fresh == 0 {
			result.Stale = true
			return giveBack(ctx, q, job) // the later read has ended it, or has not for a reason
		}
		if err := s.applyTruth(ctx, &billing{q: q, s: s, now: now, result: result, audit: a}, job.Customer, truth); err != nil {
			return err
		}
		if result.Unfinished {
			return nil
		}
		return finish(ctx, q, job, now)
	})
	if err != nil {
		return nil, fmt.Errorf("writing a customer: %w", err)
	}
	return result, nil
}

// billing is the writing of one customer's truth, within its transaction.
type billing struct {
	q       *sqlgen.Queries
	s       *Companion
	now     column.Time
	account quota.Subject
	plans   *catalogue
	prices  *priceBook
	have    []sqlgen.Subscription
	result  *SyncResult
	audit   *auditor
}

func (s *Companion) applyTruth(ctx context.Context, b *billing, customer string, truth CustomerTruth) error {
	q, r := b.q, b.result
	account, err := first(q.LockCustomer(ctx, sqlgen.LockCustomerParams{StripeCustomerID: text(customer), StripeSyncedAt: b.now}))
	if err != nil {
		return fmt.Errorf("locking account: %w", err)
	}
	if account == nil {
		return nil // somebody else's customer, in an account of the provider's that is shared
	}
	b.account = subjectOf(account.Kind, account.ID)
	r.Account = b.account
	if err := b.findUnfinished(ctx, truth.Subscriptions); err != nil {
		return err
	}
	if b.plans, err = s.loadCatalogue(ctx, q); err != nil {
		return err
	}
	if b.prices, err = s.loadPriceBook(ctx, q, b.plans, truth.Prices); err != nil {
		return err
	}
	if b.have, err = q.AccountSubscriptions(ctx, account.ID); err != nil {
		return fmt.Errorf("loading subscriptions: %w", err)
	}
	if err := b.putSubscriptions(ctx, truth.Subscriptions); err != nil {
		return err
	}
	if err := b.choose(ctx); err != nil {
		return err
	}
	if err := b.putInvoices(ctx, truth.Invoices); err != nil {
		return err
	}
	if len(r.Changes) == 0 {
		return nil
	}
	if err := q.RaiseEntitlementVersion(ctx, account.ID); err != nil {
		return fmt.Errorf("writing accounts: %w", err)
	}
	return nil
}

// putSubscriptions makes the account's rows what the provider says. One that the
// provider no longer has is over.
func (b *billing) putSubscriptions(ctx context.Context, found []BilledSubscription) error {
	found = slices.Clone(found)
	slices.SortFunc(found, func(x, y BilledSubscription) int { return strings.Compare(x.ID, y.ID) })
	unknown := map[string]bool{}
	seen := map[string]bool{}
	for _, f := range found {
		seen[f.ID] = true
		want, err := b.row(ctx, f, unknown)
		if err != nil {
			return err
		}
		if err := b.putSubscription(ctx, want); err != nil {
			return err
		}
	}
	for i := range b.have {
		row := b.have[i]
		if row.Source != sourceStripe || seen[row.StripeSubscriptionID.String] || row.StripeStatus.String == stripeMissing {
			continue
		}
		row.Status, row.StripeStatus = string(quota.StatusCancelled), text(stripeMissing)
		if row.EndedAt.IsZero() || row.EndedAt.After(b.now.Time) {
			row.EndedAt = b.now
		}
		row.PendingPlanID, row.PendingEffectiveAt = text(""), column.Time{}
		if err := b.putSubscription(ctx, row); err != nil {
			return err
		}
	}
	b.result.UnknownPrices = slices.Sorted(maps.Keys(unknown))
	return nil
}

// stripeMissing stands where Stripe no longer knows the subscription.
const stripeMissing = "missing"

// row is the row of a subscription as the provider has it.
func (b *billing) row(ctx context.Context, f BilledSubscription, unknown map[string]bool) (sqlgen.Subscription, error) {
	row := sqlgen.Subscription{
		AccountID: b.account.ID(), Source: sourceStripe, Status: string(statusOf(f.Status)), StripeStatus: text(f.Status),
		Quantity: max(f.Quantity, 1), StartedAt: column.At(f.StartedAt), BillingAnchor: column.At(f.Anchor), TrialEnd: column.At(f.TrialEnd),
		CurrentPeriodStart: column.At(f.PeriodStart), CurrentPeriodEnd: column.At(f.PeriodEnd),
		CancelAtPeriodEnd: f.CancelAtPeriodEnd, CancelledAt: column.At(f.CancelledAt), EndedAt: column.At(f.EndedAt),
		StripeSubscriptionID: text(f.ID),
	}
	if row.EndedAt.IsZero() {
		row.EndedAt = column.At(f.CancelAt)
	}
	if row.Status == string(quota.StatusPastDue) {
		row.PastDueSince = column.At(firstMoment(f.PastDueSince, f.PeriodStart, f.StartedAt))
	}
	if row.Status == string(quota.StatusTrial) && row.TrialEnd.IsZero() {
		row.TrialEnd = row.CurrentPeriodEnd
	}
	if p, ok := b.prices.plan(f.PriceID, f.LookupKey); ok {
		row.PlanID, row.PlanPriceID = text(p.planID), text(p.rowID)
		if err := b.prices.learn(ctx, b.q, f.PriceID, p, b.now); err != nil {
			return row, err
		}
	} else if isRunning(row.Status) {
		unknown[f.PriceID] = true
	}
	if f.PendingAt.IsZero() || !isRunning(row.Status) {
		return row, nil
	}
	if p, ok := b.prices.plan(f.PendingPriceID, f.PendingLookupKey); !ok {
		unknown[f.PendingPriceID] = true
	} else if p.planID != row.PlanID.String {
		row.PendingPlanID, row.PendingEffectiveAt = text(p.planID), column.At(f.PendingAt)
	}
	return row, nil
}

// putSubscription writes the row if it differs from what is there, keeping what
// is ours: its id, and whether it is current.
func (b *billing) putSubscription(ctx context.Context, want sqlgen.Subscription) error {
	i := slices.IndexFunc(b.have, func(r sqlgen.Subscription) bool {
		return r.StripeSubscriptionID.Valid && r.StripeSubscriptionID == want.StripeSubscriptionID
	})
	if i < 0 {
		return b.insert(ctx, want)
	}
	old := b.have[i]
	want.ID, want.IsCurrent, want.CreatedAt, want.UpdatedAt = old.ID, old.IsCurrent, old.CreatedAt, old.UpdatedAt
	want.GrantedBy, want.GrantReason = old.GrantedBy, old.GrantReason
	if want == old {
		return nil
	}
	want.UpdatedAt = b.now
	err := b.q.UpdateBilledSubscription(ctx, sqlgen.UpdateBilledSubscriptionParams{
		ID: want.ID, PlanID: want.PlanID, PlanPriceID: want.PlanPriceID, Status: want.Status, StripeStatus: want.StripeStatus,
		Quantity: want.Quantity, StartedAt: want.StartedAt, BillingAnchor: want.BillingAnchor, TrialEnd: want.TrialEnd,
		CurrentPeriodStart: want.CurrentPeriodStart, CurrentPeriodEnd: want.CurrentPeriodEnd, CancelAtPeriodEnd: want.CancelAtPeriodEnd,
		CancelledAt: want.CancelledAt, EndedAt: want.EndedAt, PastDueSince: want.PastDueSince, PendingPlanID: want.PendingPlanID,
		PendingEffectiveAt: want.PendingEffectiveAt, PendingPeriodEnd: want.PendingPeriodEnd, UpdatedAt: want.UpdatedAt,
	})
	if err != nil {
		return fmt.Errorf("writing subscriptions: %w", err)
	}
	b.have[i] = want
	b.note(&old, &want)
	return nil
}

func (b *billing) insert(ctx context.Context, row sqlgen.Subscription) error {
	id, err := newID()
	if err != nil {
		return err
	}
	row.ID, row.CreatedAt, row.UpdatedAt = id, b.now, b.now
	err = b.q.InsertBilledSubscription(ctx, sqlgen.InsertBilledSubscriptionParams{
		ID: row.ID, AccountID: row.AccountID, PlanID: row.PlanID, PlanPriceID: row.PlanPriceID, Status: row.Status,
		StripeStatus: row.StripeStatus, Quantity: row.Quantity, StartedAt: row.StartedAt, BillingAnchor: row.BillingAnchor,
		TrialEnd: row.TrialEnd, CurrentPeriodStart: row.CurrentPeriodStart, CurrentPeriodEnd: row.CurrentPeriodEnd,
		CancelAtPeriodEnd: row.CancelAtPeriodEnd, CancelledAt: row.CancelledAt, EndedAt: row.EndedAt, PastDueSince: row.PastDueSince,
		PendingPlanID: row.PendingPlanID, PendingEffectiveAt: row.PendingEffectiveAt, PendingPeriodEnd: row.PendingPeriodEnd,
		StripeSubscriptionID: row.StripeSubscriptionID, CreatedAt: row.CreatedAt,
	})
	if err != nil {
		return fmt.Errorf("writing subscriptions: %w", err)
	}
	b.have = append(b.have, row)
	b.note(nil, &row)
	return nil
}

func (b *billing) putInvoices(ctx context.Context, found []BilledInvoice) error {
	rows, err := b.q.InvoiceStates(ctx, b.account.ID())
	if err != nil {
		return fmt.Errorf("loading invoices: %w", err)
	}
	states := make(map[string]sqlgen.InvoiceStatesRow, len(rows))
	for _, r := range rows {
		states[r.ID] = r
	}
	for _, f := range found {
		old, known := states[f.ID]
		if known && old.Status == f.Status && old.AmountRemaining == f.AmountRemaining && old.Attempts == f.Attempts {
			continue
		}
		err := b.q.PutInvoice(ctx, sqlgen.PutInvoiceParams{
			ID: f.ID, AccountID: b.account.ID(), StripeSubscriptionID: text(f.Subscription), Number: f.Number, Status: f.Status,
			Currency: f.Currency, AmountDue: f.AmountDue, AmountPaid: f.AmountPaid, AmountRemaining: f.AmountRemaining,
			PeriodStart: column.At(f.PeriodStart), PeriodEnd: column.At(f.PeriodEnd), CreatedAt: column.At(f.CreatedAt),
			PaidAt: column.At(f.PaidAt), HostedUrl: f.HostedURL, PdfUrl: f.PDFURL, Attempts: f.Attempts,
		})
		if err != nil {
			return fmt.Errorf("writing invoices: %w", err)
		}
		b.noteInvoice(&old, &f)
	}
	return nil
}
