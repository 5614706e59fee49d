package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// A webhook may be lost for good. These jobs find what was missed; each is done
// by one of all processes, when its time has come.
const (
	tickEvery      = time.Minute
	jobsLease      = 2 * time.Minute // renewed meanwhile
	listEvery      = 10 * time.Minute
	listOverlap    = 5 * time.Minute     // events appear in the list a little late
	listUnheard    = time.Minute         // the webhook of a younger event may be on its way
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
	markGraces     = "graces_ended"
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

// tick does what is due, unless another process is at it. One job that fails does
// not keep the others from being done.
func (d *desk) tick(ctx context.Context) error {
	st, err := d.store()
	if err != nil {
		return err
	}
	errs := []error{d.observe(ctx, st)}
	err = d.underLease(ctx, st, func(ctx context.Context) error {
		ended, err := st.EndGraces(ctx, markGraces)
		d.tellOf(ended)
		errs = append(errs, err)
		for _, job := range []struct {
			mark  string
			every time.Duration
			do    func(context.Context, *store.Companion, *store.BillingMark, time.Time) (any, error)
		}{
			{markListed, listEvery, d.listEvents},
			{markOverdue, overdueEvery, d.queueOverdue},
			{markCompared, compareEvery, d.compareAll},
		} {
			errs = append(errs, d.ifDue(ctx, st, job.mark, job.every, job.do))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// observe shows in the metrics how billing stands. Every process does, whoever
// has done the jobs.
func (d *desk) observe(ctx context.Context, st *store.Companion) error {
	h, err := st.BillingHealth(ctx)
	if err != nil {
		return err
	}
	observeHealth(h, d.now())
	for _, name := range []string{markListed, markOverdue, markCompared} {
		mark, err := st.BillingMark(ctx, name)
		if err != nil {
			return err
		}
		if mark != nil {
			reconciled.WithLabelValues(name).Set(float64(mark.At.Unix()))
		}
	}
	_, c, err := LastComparison(ctx, st)
	if err != nil {
		return err
	}
	for _, kind := range driftKinds() {
		driftGauge.WithLabelValues(kind).Set(float64(c.ByKind[kind]))
	}
	return nil
}

// errLeaseLost ends the jobs of a process that others take for dead.
var errLeaseLost = errors.New("the lease of billing's jobs was lost")

// underLease runs f if no other process holds the lease, and for as long as this
// one does: a job may take longer than the lease.
func (d *desk) underLease(ctx context.Context, st *store.Companion, f func(context.Context) error) error {
	held, err := st.TakeLease(ctx, leaseOfJobs, d.holder, d.lease)
	if err != nil || !held {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	var renewal sync.WaitGroup
	renewal.Go(func() {
		ticker := time.NewTicker(d.lease / 4)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if held, err := st.TakeLease(ctx, leaseOfJobs, d.holder, d.lease); err != nil || !held {
				end(errors.Join(errLeaseLost, err))
				return
			}
		}
	})
	err = f(ctx)
	end(nil)
	renewal.Wait()
	if failed := st.ReleaseLease(context.WithoutCancel(ctx), leaseOfJobs, d.holder); failed != nil {
		d.log.Warn("a lease was not given back and will run out", zap.Error(failed))
	}
	return err
}

// ifDue does a job if its mark is old enough, and moves the mark to when it
// began: what happens while it runs is for the next time.
func (d *desk) ifDue(ctx context.Context, st *store.Companion, name string, every time.Duration,
	do func(context.Context, *store.Companion, *store.BillingMark, time.Time) (any, error)) error {
	now, err := st.Clock(ctx)
	if err != nil {
		return err
	}
	mark, err := st.BillingMark(ctx, name)
	if err != nil {
		return err
	}
	if mark != nil && mark.At.After(now) {
		mark = nil // the clock was wrong then, or is now
	}
	if mark != nil && now.Sub(mark.At) < every {
		return nil
	}
	details, err := do(ctx, st, mark, now)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return st.SetBillingMark(ctx, name, now, details)
}

// listed is what a listing of events has found.
type listed struct {
	// Missed are those that a webhook should have told of.
	Missed int `json:"missed"`
	// Newest is when the newest event that was ever listed happened, by the
	// provider's clock: how far ours is from it then matters nothing.
	Newest time.Time `json:"newest"`
}

// listEvents asks for the events since the newest that was listed before, whether
// they came or not. The first time says nothing of webhooks: there may have been
// no endpoint yet.
func (d *desk) listEvents(ctx context.Context, _ *store.Companion, mark *store.BillingMark, now time.Time) (any, error) {
	var l listed
	if mark != nil {
		if err := json.Unmarshal(mark.Details, &l); err != nil {
			return nil, fmt.Errorf("reading how far events were listed: %w", err)
		}
	}
	l.Missed = 0
	since := l.Newest.Add(-listOverlap)
	if oldest := now.Add(-listAtMost); since.Before(oldest) {
		since = oldest
	}
	err := d.provider.Events(ctx, since, func(e Event) error {
		if age := now.Sub(e.Created); age >= 0 && age < listUnheard {
			return nil // for the next time
		}
		fresh, err := d.keep(ctx, e, true)
		if fresh && e.Subscribed && mark != nil {
			l.Missed++
		}
		if e.Created.After(l.Newest) {
			l.Newest = e.Created
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing events: %w", err)
	}
	if l.Missed > 0 {
		webhooks.WithLabelValues("missed").Add(float64(l.Missed))
		d.log.Warn("events were found that no webhook had told of", zap.Int("events", l.Missed))
	}
	return l, nil
}

// queueOverdue queues whom a renewal should have been heard of.
func (d *desk) queueOverdue(ctx context.Context, st *store.Companion, _ *store.BillingMark, _ time.Time) (any, error) {
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
