package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// BillingEvent is what a payment provider told: something changed for a customer.
type BillingEvent struct {
	ID, Type string
	// Customer is whom it concerns; empty: nobody, nothing is read for it.
	Customer string
	Livemode bool
	Occurred time.Time
	// Listed: it was found in the provider's list of events, not sent by it.
	Listed bool
}

// ReceiveEvent keeps the event and queues its customer, in one transaction. An
// event that is known already changes nothing and answers false.
func (s *Companion) ReceiveEvent(ctx context.Context, e BillingEvent) (fresh bool, err error) {
	if err := checkID(e.ID); err != nil {
		return false, fmt.Errorf("receiving a billing event: %w", err)
	}
	source := "webhook"
	if e.Listed {
		source = "list"
	}
	err = s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		n, err := q.InsertBillingEvent(ctx, sqlgen.InsertBillingEventParams{
			ID: e.ID, Type: e.Type, CustomerID: text(e.Customer), Livemode: e.Livemode, Source: source,
			OccurredAt: column.At(e.Occurred), ReceivedAt: now,
		})
		if fresh = n > 0; err != nil || !fresh || e.Customer == "" {
			return err
		}
		if err := s.tellTrialEnd(ctx, q, e); err != nil {
			return err
		}
		return enqueue(ctx, q, e.Customer, e.Type, now)
	})
	if err != nil {
		return false, fmt.Errorf("receiving a billing event: %w", err)
	}
	return fresh, nil
}

// tellTrialEnd tells others that a trial is about to end. Nothing changes at
// that moment, so that no read of the customer would find it.
func (s *Companion) tellTrialEnd(ctx context.Context, q *sqlgen.Queries, e BillingEvent) error {
	if e.Type != "customer.subscription.trial_will_end" {
		return nil
	}
	account, err := first(q.AccountByCustomer(ctx, text(e.Customer)))
	if err != nil || account == nil {
		return err
	}
	return s.putOutbox(ctx, q, []OutboxEvent{{
		Type: SubscriptionTrialWillEnd, Account: account.ID, Payload: map[string]any{account.Kind + "_id": account.ID},
	}})
}

// RequestSync queues the customer to be read from the provider.
func (s *Companion) RequestSync(ctx context.Context, customer, reason string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		return enqueue(ctx, q, customer, reason, now)
	})
	if err != nil {
		return fmt.Errorf("queueing a customer: %w", err)
	}
	return nil
}

func enqueue(ctx context.Context, q *sqlgen.Queries, customer, reason string, now column.Time) error {
	if err := checkID(customer); err != nil {
		return err
	}
	return q.EnqueueSync(ctx, sqlgen.EnqueueSyncParams{CustomerID: customer, Reason: reason, NextAttemptAt: now})
}

// SyncJob is one read of a customer from the provider, which has begun.
type SyncJob struct {
	Customer string
	// Generation is the newest reason that the read answers.
	Generation int64
	// Fetch numbers the read: of two, the one that began later has the larger.
	Fetch int64
	// Attempts is how often in a row the customer could not be read, or whoever was
	// to read it did not come to an end.
	Attempts int64
	holder   string
}

// LeaseSyncs begins reads of up to n customers that are due. Each is the
// holder's for ttl of the records' clock, which is told how often in a row the
// customer could not be read; whoever comes after that begins anew.
func (s *Companion) LeaseSyncs(ctx context.Context, holder string, n int, ttl func(attempts int64) time.Duration) ([]SyncJob, error) {
	var jobs []SyncJob
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		jobs = nil
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		due, err := q.DueSyncs(ctx, sqlgen.DueSyncsParams{NextAttemptAt: now, Limit: int32(n)}) // a handful
		if err != nil {
			return err
		}
		for _, d := range due {
			row, err := first(q.LeaseSync(ctx, sqlgen.LeaseSyncParams{
				CustomerID: d.CustomerID, Holder: text(holder), LeasedUntil: column.At(now.Add(ttl(d.Attempts))), LeasedUntil_2: now,
			}))
			if err != nil {
				return err
			}
			if row != nil {
				jobs = append(jobs, SyncJob{d.CustomerID, row.Generation, row.Fetches, row.Attempts, holder})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("leasing customers: %w", err)
	}
	return jobs, nil
}

// BeginSync begins a read of the customer at once, whoever else reads it. The
// customer is queued too: should this read come to nothing, the queue goes on.
func (s *Companion) BeginSync(ctx context.Context, customer, reason string) (SyncJob, error) {
	var job SyncJob
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		if err := enqueue(ctx, q, customer, reason, now); err != nil {
			return err
		}
		row, err := first(q.BeginFetch(ctx, customer))
		if err == nil && row != nil {
			job = SyncJob{Customer: customer, Generation: row.Generation, Fetch: row.Fetches}
		}
		return err
	})
	if err != nil {
		return SyncJob{}, fmt.Errorf("beginning to read a customer: %w", err)
	}
	return job, nil
}

// SkipSync ends a leased job without anything being written: nobody's account is
// that customer.
func (s *Companion) SkipSync(ctx context.Context, job SyncJob) error {
	if err := s.endRead(ctx, job); err != nil {
		return fmt.Errorf("leaving a customer out: %w", err)
	}
	return nil
}

// ReadAgain ends a read that was well and left its job unfinished: the customer is
// due at once, and what failures before it have put off waits no more.
func (s *Companion) ReadAgain(ctx context.Context, job SyncJob) error {
	job.Generation = 0 // it answers none of the reasons
	if err := s.endRead(ctx, job); err != nil {
		return fmt.Errorf("having a customer read again: %w", err)
	}
	return nil
}

func (s *Companion) endRead(ctx context.Context, job SyncJob) error {
	return s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		return finish(ctx, q, job, now)
	})
}

func finish(ctx context.Context, q *sqlgen.Queries, job SyncJob, now column.Time) error {
	return q.FinishSync(ctx, sqlgen.FinishSyncParams{
		CustomerID: job.Customer, SyncedGeneration: job.Generation, NextAttemptAt: now, Holder: text(job.holder),
	})
}

// ReturnSync gives a leased job back unread, so that the next one need not wait
// until the lease has run out.
func (s *Companion) ReturnSync(ctx context.Context, job SyncJob) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error { return giveBack(ctx, q, job) })
	if err != nil {
		return fmt.Errorf("giving a customer back: %w", err)
	}
	return nil
}

func giveBack(ctx context.Context, q *sqlgen.Queries, job SyncJob) error {
	return q.ReturnSync(ctx, sqlgen.ReturnSyncParams{CustomerID: job.Customer, Holder: text(job.holder)})
}

// ReadSince reports whether the customer waits to be read, or was read since.
func (s *Companion) ReadSince(ctx context.Context, customer string, since time.Time) (bool, error) {
	var n int64
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		n, err = q.CountRead(ctx, sqlgen.CountReadParams{CustomerID: customer, SyncedAt: column.At(since)})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking for a customer in the queue: %w", err)
	}
	return n > 0, nil
}

// SyncFailure is a read that came to nothing.
type SyncFailure struct {
	// Reason is shown to admins: it holds no secret.
	Reason string
	// Retry is how long to wait; Dead gives up until there is a new reason.
	Retry time.Duration
	Dead  bool
}

// FailSync puts the customer of a leased job off, or gives it up; one that another
// has read meanwhile is only given back. It does nothing where the lease has
// passed to another.
func (s *Companion) FailSync(ctx context.Context, job SyncJob, f SyncFailure) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		state := "pending"
		if f.Dead {
			state = "dead"
		}
		failed, err := q.FailSync(ctx, sqlgen.FailSyncParams{
			CustomerID: job.Customer, Holder: text(job.holder), State: state, SyncedGeneration: job.Generation,
			NextAttemptAt: column.At(now.Add(f.Retry)), LastError: text(f.Reason), UpdatedAt: now,
		})
		if err != nil || failed > 0 {
			return err
		}
		return giveBack(ctx, q, job)
	})
	if err != nil {
		return fmt.Errorf("putting a customer off: %w", err)
	}
	return nil
}

// BillingHealth is what an operator should look at.
type BillingHealth struct {
	// Pending customers wait to be read, the oldest since OldestDue, however often
	// that was tried; Dead ones were given up.
	Pending, Dead int64
	OldestDue     time.Time
	// UnknownPrices counts running subscriptions whose price no plan has.
	UnknownPrices int64
}

// BillingHealth reads it.
func (s *Companion) BillingHealth(ctx context.Context) (BillingHealth, error) {
	var h BillingHealth
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := q.QueueHealth(ctx)
		if err != nil {
			return err
		}
		oldest, err := first(q.OldestDue(ctx))
		if err != nil {
			return err
		}
		h = BillingHealth{Pending: row.Pending, Dead: row.Dead}
		if oldest != nil {
			h.OldestDue = oldest.Time
		}
		h.UnknownPrices, err = q.CountUnknownPrices(ctx)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("reading the state of billing: %w", err)
	}
	return h, nil
}
