package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// desk is billing at work: it takes webhooks in, reads customers from the
// provider and writes what it finds. It is safe for concurrent use, also by
// several processes over the same records.
type desk struct {
	store    func() (*store.Companion, error)
	provider Provider
	settings Settings
	now      func() time.Time
	log      *zap.Logger
	// holder names this process to the leases.
	holder string
	// lease is how long that of the jobs is taken for, and renewed meanwhile.
	lease time.Duration
	// wake says that something was queued here; what others queue is found by asking.
	wake chan struct{}
}

func newDesk(open func() (*store.Companion, error), p Provider, s Settings, now func() time.Time, log *zap.Logger) *desk {
	return &desk{
		store: open, provider: p, settings: s, now: now, log: log,
		holder: "billing-" + uuid.NewString(), lease: jobsLease, wake: make(chan struct{}, 1),
	}
}

// plansByPrice are plan names by the provider's price id, as the config has them.
func (d *desk) plansByPrice() map[string]string {
	m := make(map[string]string, len(d.settings.Prices))
	for plan, price := range d.settings.Prices {
		m[price] = plan
	}
	return m
}

// nudge makes the worker look at the queue now.
func (d *desk) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// fetchTimeout bounds one read of a customer, well below leaseFor.
const (
	fetchTimeout = 30 * time.Second
	leaseFor     = 90 * time.Second
)

// reading is everything of a customer, as the provider has it.
type reading struct {
	subscriptions []Subscription
	invoices      []Invoice
}

// fetch reads a customer from the provider.
func (d *desk) fetch(ctx context.Context, customer string) (r reading, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	start := time.Now()
	if r.subscriptions, err = d.provider.Subscriptions(ctx, customer); err != nil {
		return r, fmt.Errorf("reading subscriptions: %w", err)
	}
	if err := d.choose(ctx, r.subscriptions); err != nil {
		return r, err
	}
	if r.invoices, err = d.provider.Invoices(ctx, customer); err != nil {
		return r, fmt.Errorf("reading invoices: %w", err)
	}
	fetchSeconds.Observe(time.Since(start).Seconds())
	return r, nil
}

// choose makes the item that gives the plan each subscription's, where there are several.
func (d *desk) choose(ctx context.Context, subs []Subscription) error {
	if !slices.ContainsFunc(subs, func(s Subscription) bool { return len(s.Items) > 1 }) {
		return nil
	}
	st, err := d.store()
	if err != nil {
		return err
	}
	planOf, err := st.PlanOfPrice(ctx, d.plansByPrice())
	if err != nil {
		return err
	}
	for i := range subs {
		subs[i].choose(planOf)
	}
	return nil
}

// choose makes the item whose plan has the highest tier the subscription's: the
// order of items says nothing, and a seat or an extra is no plan. Where no plan
// knows any of them, it stays the first.
func (s *Subscription) choose(planOf func(priceID, lookupKey string) store.PricedPlan) {
	var best store.PricedPlan
	for _, i := range s.Items {
		if p := planOf(i.PriceID, i.LookupKey); p.Name != "" && (best.Name == "" || p.Tier > best.Tier) {
			best, s.Item = p, i
		}
	}
}

// truth is what was read, in the words of the records.
func (d *desk) truth(r reading) store.CustomerTruth {
	truth := store.CustomerTruth{Prices: d.plansByPrice()}
	for i := range r.subscriptions {
		truth.Subscriptions = append(truth.Subscriptions, stored(&r.subscriptions[i], r.invoices))
	}
	for i := range r.invoices {
		truth.Invoices = append(truth.Invoices, storedInvoice(&r.invoices[i]))
	}
	return truth
}

// stored is a subscription in the words of the records. Since when a payment is
// due follows from its invoices: the provider does not say it of the subscription.
func stored(s *Subscription, invoices []Invoice) store.BilledSubscription {
	b := store.BilledSubscription{
		ID: s.ID, Status: s.Status, PriceID: s.PriceID, LookupKey: s.LookupKey, Quantity: s.Quantity,
		StartedAt: s.StartedAt, Anchor: s.Anchor, PeriodStart: s.PeriodStart, PeriodEnd: s.PeriodEnd, TrialEnd: s.TrialEnd,
		CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelAt: s.CancelAt, CancelledAt: s.CancelledAt, EndedAt: s.EndedAt,
		PendingPriceID: s.PendingPriceID, PendingLookupKey: s.PendingLookupKey, PendingAt: s.PendingAt,
	}
	if !b.CancelAt.IsZero() && b.CancelAt.Equal(b.PeriodEnd) {
		b.CancelAtPeriodEnd = true // another way to say it
	}
	if b.CancelAtPeriodEnd {
		b.CancelAt = time.Time{}
	}
	if s.Status == "past_due" {
		b.PastDueSince = dueSince(s.ID, invoices)
	}
	return b
}

// dueSince is when the oldest invoice that is still to be paid was finalized.
func dueSince(subscription string, invoices []Invoice) time.Time {
	var since time.Time
	for i := range invoices {
		in := &invoices[i]
		if in.Subscription != subscription || in.Status != "open" || in.AmountRemaining <= 0 {
			continue
		}
		at := in.FinalizedAt
		if at.IsZero() {
			at = in.CreatedAt
		}
		if since.IsZero() || at.Before(since) {
			since = at
		}
	}
	return since
}

func storedInvoice(in *Invoice) store.BilledInvoice {
	return store.BilledInvoice{
		ID: in.ID, Subscription: in.Subscription, Number: in.Number, Status: in.Status, Currency: in.Currency,
		AmountDue: in.AmountDue, AmountPaid: in.AmountPaid, AmountRemaining: in.AmountRemaining, Attempts: in.Attempts,
		PeriodStart: in.PeriodStart, PeriodEnd: in.PeriodEnd, CreatedAt: in.CreatedAt, PaidAt: in.PaidAt,
		HostedURL: in.HostedURL, PDFURL: in.PDFURL,
	}
}

// syncNow reads a customer at once, writes what it finds, and answers its
// subscriptions. What comes to nothing of that, the worker tries again.
func (d *desk) syncNow(ctx context.Context, customer, reason string) ([]Subscription, error) {
	st, err := d.store()
	if err != nil {
		return nil, err
	}
	job, err := st.BeginSync(ctx, customer, reason)
	if err != nil {
		return nil, err
	}
	defer d.nudge()
	found, err := d.fetch(ctx, customer)
	if err != nil {
		return nil, err
	}
	r, err := d.write(ctx, st, job, found)
	if err != nil {
		return nil, err
	}
	if err := d.endUnfinished(ctx, st, job, r, found.subscriptions); err != nil {
		// What was read is right all the same, and whoever asked for it is answered.
		d.log.Warn("something was not ended at the payment provider and is tried again", zap.String("customer", customer), zap.Error(err))
	}
	return found.subscriptions, nil
}

// apply writes what the read of a job found, and ends what is to be ended by it.
func (d *desk) apply(ctx context.Context, st *store.Companion, job store.SyncJob, found reading) error {
	r, err := d.write(ctx, st, job, found)
	if err != nil {
		return err
	}
	return d.endUnfinished(ctx, st, job, r, found.subscriptions)
}

// write writes what a read found, and says what came of it.
func (d *desk) write(ctx context.Context, st *store.Companion, job store.SyncJob, found reading) (*store.SyncResult, error) {
	r, err := st.ApplySync(ctx, job, d.truth(found))
	if err != nil {
		return nil, err
	}
	switch {
	case r.Stale:
		syncs.WithLabelValues("stale").Inc()
	case r.Account == "":
		syncs.WithLabelValues("foreign").Inc()
	default:
		syncs.WithLabelValues("written").Inc()
	}
	d.tellOf(r.Changes)
	for _, price := range r.UnknownPrices {
		d.log.Error("somebody pays a price that no plan knows: give a plan that price with caddy quota plans apply",
			zap.String("customer", job.Customer), zap.String("price", price))
	}
	return r, nil
}

// tellOf shows changes in the metrics and the log.
func (d *desk) tellOf(cs []store.BillingChange) {
	for _, c := range cs {
		changes.WithLabelValues(c.Kind).Inc()
		d.log.Info("a subscription has changed", zap.String("change", c.Kind), zap.String("subscription", c.Subscription),
			zap.String("status", string(c.Status)), zap.String("from", c.From), zap.String("to", c.To))
	}
}

// endUnfinished ends what nobody is to pay, or to go on paying, and has the
// customer read once more: the job is over when a read finds nothing of it, so
// that it matters nothing where this breaks off.
func (d *desk) endUnfinished(ctx context.Context, st *store.Companion, job store.SyncJob, r *store.SyncResult, subs []Subscription) error {
	if !r.Unfinished {
		return nil
	}
	var errs []error
	if r.Page != "" {
		if err := d.closePage(ctx, st, r.Page); !errors.Is(err, errPageOver) { // else it was paid, which the next read finds
			errs = append(errs, err)
		}
	}
	for i := range subs {
		if r.Deleted && store.GoesOn(subs[i].Status) {
			errs = append(errs, d.provider.End(ctx, Ending{Subscription: subs[i], When: AtOnce}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ending what nobody is to pay: %w", err)
	}
	return st.ReadAgain(ctx, job)
}

// failure is what becomes of a read that came to nothing.
func failure(err error, attempts int64) store.SyncFailure {
	f := store.SyncFailure{Reason: publicReason(err), Retry: backoff(attempts)}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused) {
		f.Dead = attempts+1 >= refusedAttempts
	} else {
		f.Dead = attempts+1 >= unavailableAttempts
	}
	return f
}

// After how many attempts in a row a customer is given up: a provider that is
// down for a day is waited for, an answer that will not change is not.
const (
	refusedAttempts     = 5
	unavailableAttempts = 100
	firstBackoff        = 5 * time.Second
	longestBackoff      = 15 * time.Minute
)

// backoff doubles with each attempt.
func backoff(attempts int64) time.Duration {
	if attempts > 8 {
		return longestBackoff
	}
	return min(firstBackoff<<attempts, longestBackoff)
}

// publicReason is what admins and clients may read of an error: its kind.
func publicReason(err error) string {
	for _, kind := range []error{ErrNotFound, ErrRefused, ErrDeclined, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "failed: see the log"
}
