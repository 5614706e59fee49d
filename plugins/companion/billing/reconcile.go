package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// A webhook may be lost for good. These jobs find what was missed; each is done
// by one of all processes, when its time has come.
const (
	tickEvery      = time.Minute
	jobsLease      = 10 * time.Minute
	listEvery      = 10 * time.Minute
	listOverlap    = 5 * time.Minute     // events appear in the list a little late
	listAtMost     = 29 * 24 * time.Hour // the provider keeps them for 30 days
	overdueEvery   = 5 * time.Minute
	overdueUnread  = 5 * time.Minute
	overdueBatch   = 200
	compareEvery   = 24 * time.Hour
	keepEvents     = 90 * 24 * time.Hour
	leaseOfJobs    = "billing_jobs"
	markListed     = "events_listed"
	markOverdue    = "overdue_queued"
	markCompared   = "compared"
	driftsInReport = 100
)

// reconcile does the jobs that are due, until ctx ends.
func (d *desk) reconcile(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		if err := d.tick(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("billing was not compared with the payment provider and is tried again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tick does what is due, unless another process is at it.
func (d *desk) tick(ctx context.Context) error {
	st, err := d.store()
	if err != nil {
		return err
	}
	if h, err := st.BillingHealth(ctx); err == nil {
		observeHealth(h, d.now())
	}
	held, err := st.TakeLease(ctx, leaseOfJobs, d.holder, jobsLease)
	if err != nil || !held {
		return err
	}
	defer func() {
		if err := st.ReleaseLease(context.WithoutCancel(ctx), leaseOfJobs, d.holder); err != nil {
			d.log.Warn("a lease was not given back and will run out", zap.Error(err))
		}
	}()
	for _, job := range []struct {
		mark  string
		every time.Duration
		do    func(context.Context, *store.Store, time.Time, time.Time) (any, error)
	}{
		{markListed, listEvery, d.listEvents},
		{markOverdue, overdueEvery, d.queueOverdue},
		{markCompared, compareEvery, d.compareAll},
	} {
		if err := d.ifDue(ctx, st, job.mark, job.every, job.do); err != nil {
			return err
		}
	}
	return nil
}

// ifDue does a job if its mark is old enough, and moves the mark to when it
// began: what happens while it runs is for the next time.
func (d *desk) ifDue(ctx context.Context, st *store.Store, name string, every time.Duration,
	do func(context.Context, *store.Store, time.Time, time.Time) (any, error)) error {
	now, err := st.Clock(ctx)
	if err != nil {
		return err
	}
	mark, err := st.BillingMark(ctx, name)
	if err != nil {
		return err
	}
	var last time.Time
	if mark != nil {
		last = mark.At
	}
	if last.After(now) {
		last = time.Time{} // the clock was wrong then, or is now
	}
	if now.Sub(last) < every {
		return nil
	}
	details, err := do(ctx, st, last, now)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	reconciled.WithLabelValues(name).Set(float64(now.Unix()))
	return st.SetBillingMark(ctx, name, now, details)
}

// listEvents asks for the events since the last time, whether they came or not.
func (d *desk) listEvents(ctx context.Context, _ *store.Store, last, now time.Time) (any, error) {
	since := last.Add(-listOverlap)
	if oldest := now.Add(-listAtMost); since.Before(oldest) {
		since = oldest
	}
	missed := 0
	err := d.provider.Events(ctx, since, func(e Event) error {
		fresh, err := d.keep(ctx, e, true)
		if fresh {
			missed++
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing events: %w", err)
	}
	if missed > 0 {
		webhooks.WithLabelValues("missed").Add(float64(missed))
		d.log.Warn("events were found that no webhook had told of", zap.Int("events", missed))
	}
	return map[string]int{"missed": missed}, nil
}

// queueOverdue queues whom a renewal should have been heard of.
func (d *desk) queueOverdue(ctx context.Context, st *store.Store, _, _ time.Time) (any, error) {
	n, err := st.Overdue(ctx, overdueUnread, overdueBatch)
	if err != nil {
		return nil, err
	}
	if err := st.PruneBillingEvents(ctx, keepEvents); err != nil {
		return nil, err
	}
	if n > 0 {
		d.nudge()
	}
	return map[string]int{"queued": n}, nil
}

// The kinds of drift.
const (
	// DriftMissing: the provider has a subscription that is not here.
	DriftMissing = "missing"
	// DriftUnknown: here is one that the provider does not have.
	DriftUnknown = "unknown"
	// DriftDiffers: both have it, and it differs.
	DriftDiffers = "differs"
)

// Drift is one subscription in which the records and the provider differ.
type Drift struct {
	Kind         string   `json:"kind" enum:"missing,unknown,differs" doc:"missing: only the provider has it; unknown: only we have it; differs: see fields."`
	Subscription string   `json:"stripe_subscription_id"`
	Customer     string   `json:"stripe_customer_id"`
	Account      string   `json:"account_id"`
	Fields       []string `json:"fields,omitempty" nullable:"false" doc:"What differs."`
}

// Comparison is what a full comparison found.
type Comparison struct {
	// Compared counts the provider's subscriptions, without those of customers
	// that no account is; Drifts is the first hundred of Drifted.
	Compared int     `json:"compared"`
	Drifted  int     `json:"drifted"`
	Foreign  int     `json:"foreign" doc:"Subscriptions of customers that no account is."`
	Drifts   []Drift `json:"drifts" nullable:"false" doc:"At most 100."`
	kinds    map[string]int
}

func (c *Comparison) add(d Drift) {
	c.Drifted++
	c.kinds[d.Kind]++
	if len(c.Drifts) < driftsInReport {
		c.Drifts = append(c.Drifts, d)
	}
}

// compareAll compares everything, and has what differs read again.
func (d *desk) compareAll(ctx context.Context, st *store.Store, _, _ time.Time) (any, error) {
	c, err := d.compare(ctx, st, func(x Drift) error { return st.RequestSync(ctx, x.Customer, "drift") })
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{DriftMissing, DriftUnknown, DriftDiffers} {
		driftGauge.WithLabelValues(kind).Set(float64(c.kinds[kind]))
	}
	if c.Drifted > 0 {
		d.log.Error("the records differed from the payment provider: what differs is read again", zap.Int("subscriptions", c.Drifted))
		d.nudge()
	}
	return c, nil
}

// compare looks at every subscription here and there, and calls each for what
// differs.
func (d *desk) compare(ctx context.Context, st *store.Store, each func(Drift) error) (*Comparison, error) {
	planOf, err := st.PlanOfPrice(ctx, d.plansByPrice())
	if err != nil {
		return nil, err
	}
	here := map[string]store.StoredSubscription{}
	accounts := map[string]string{} // by customer; empty: none of ours
	err = st.StoredSubscriptions(ctx, func(s store.StoredSubscription) error {
		here[s.StripeID] = s
		accounts[s.Customer] = s.Account.ID()
		return nil
	})
	if err != nil {
		return nil, err
	}
	c := &Comparison{Drifts: []Drift{}, kinds: map[string]int{}}
	found := func(x Drift) error {
		c.add(x)
		return each(x)
	}
	err = d.provider.AllSubscriptions(ctx, func(s Subscription) error {
		ours, known := here[s.ID]
		delete(here, s.ID)
		account, asked := accounts[s.Customer]
		if !asked {
			subject, err := st.CustomerAccount(ctx, s.Customer)
			if err != nil {
				return err
			}
			if subject != "" {
				account = subject.ID()
			}
			accounts[s.Customer] = account
		}
		if account == "" {
			c.Foreign++
			return nil
		}
		c.Compared++
		x := Drift{Kind: DriftDiffers, Subscription: s.ID, Customer: s.Customer, Account: account}
		if !known {
			x.Kind = DriftMissing
			return found(x)
		}
		if x.Fields = differing(&s, &ours, planOf); len(x.Fields) == 0 {
			return nil
		}
		return found(x)
	})
	if err != nil {
		return nil, fmt.Errorf("listing subscriptions: %w", err)
	}
	for _, ours := range here {
		if ours.StripeStatus == "missing" || ours.Customer == "" {
			continue
		}
		x := Drift{Kind: DriftUnknown, Subscription: ours.StripeID, Customer: ours.Customer, Account: ours.Account.ID()}
		if err := found(x); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// differing are the fields in which a subscription differs.
func differing(there *Subscription, here *store.StoredSubscription, planOf func(string, string) string) []string {
	want := stored(there, nil)
	var fields []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"status", there.Status == here.StripeStatus},
		{"plan", planOf(there.PriceID, there.LookupKey) == here.Plan},
		{"quantity", max(there.Quantity, 1) == here.Quantity},
		{"current_period_end", there.PeriodEnd.Equal(here.PeriodEnd)},
		{"cancel_at_period_end", want.CancelAtPeriodEnd == here.CancelAtPeriodEnd},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// LastComparison is what the last full comparison found; at is zero if there was none.
func LastComparison(ctx context.Context, st *store.Store) (at time.Time, c Comparison, err error) {
	c.Drifts = []Drift{}
	mark, err := st.BillingMark(ctx, markCompared)
	if err != nil || mark == nil {
		return time.Time{}, c, err
	}
	if err := json.Unmarshal(mark.Details, &c); err != nil {
		return time.Time{}, c, fmt.Errorf("reading the last comparison: %w", err)
	}
	return mark.At, c, nil
}
