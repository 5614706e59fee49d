package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// ErrEventNotFound says that there is no billing event of that id (404).
var ErrEventNotFound = errors.New("billing event not found")

// Overdue queues the customers whose current period is over and who were not
// read since unread, at most limit, and says how many: what should have been
// renewed, and grants that ended over a paid subscription.
func (s *Companion) Overdue(ctx context.Context, unread time.Duration, limit int) (int, error) {
	n := 0
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		customers, err := q.OverdueCustomers(ctx, sqlgen.OverdueCustomersParams{
			CurrentPeriodEnd: now, SyncedAt: column.At(now.Add(-unread)), Limit: int32(limit), // a batch
		})
		if err != nil {
			return err
		}
		n = len(customers)
		for _, c := range customers {
			if err := enqueue(ctx, q, c.String, "overdue", now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("queueing what is overdue: %w", err)
	}
	return n, nil
}

// BillingMark is how far a job came, and what it found.
type BillingMark struct {
	At time.Time
	// Details are a JSON object.
	Details json.RawMessage
}

// BillingMark reads the mark of that name; nil: it was never set.
func (s *Companion) BillingMark(ctx context.Context, name string) (*BillingMark, error) {
	var mark *BillingMark
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.GetBillingMark(ctx, name))
		if err == nil && row != nil {
			mark = &BillingMark{row.At.Time, json.RawMessage(row.Details)}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the mark %s: %w", name, err)
	}
	return mark, nil
}

// SetBillingMark writes a mark; details are encoded as a JSON object, nil is an empty one.
func (s *Companion) SetBillingMark(ctx context.Context, name string, at time.Time, details any) error {
	body := "{}"
	if details != nil {
		var err error
		if body, err = encode(details); err != nil {
			return err
		}
	}
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.PutBillingMark(ctx, sqlgen.PutBillingMarkParams{Name: name, At: column.At(at), Details: body})
	})
	if err != nil {
		return fmt.Errorf("writing the mark %s: %w", name, err)
	}
	return nil
}

// Clock is the records' clock, by which leases and the jobs of billing go.
func (s *Companion) Clock(ctx context.Context) (time.Time, error) {
	var now column.Time
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		now, err = s.clock(ctx, q)
		return err
	})
	return now.Time, err
}

// StoredSubscription is a subscription of the provider's as it stands here, for
// comparing with what the provider has.
type StoredSubscription struct {
	ID, StripeID, Customer string
	Account                quota.Subject
	Plan                   string // the plan's name; empty: of a price that no plan knows
	StripeStatus           string
	Quantity               int64
	PeriodEnd, EndedAt     time.Time
	CancelAtPeriodEnd      bool
}

// StoredSubscriptions calls each with all of them, in the order of their ids.
func (s *Companion) StoredSubscriptions(ctx context.Context, each func(StoredSubscription) error) error {
	const page = 500
	after := ""
	for {
		var rows []sqlgen.BilledSubscriptionsRow
		var plans *catalogue
		err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
			if plans, err = s.loadCatalogue(ctx, q); err != nil {
				return err
			}
			rows, err = q.BilledSubscriptions(ctx, sqlgen.BilledSubscriptionsParams{ID: after, Limit: page})
			return err
		})
		if err != nil {
			return fmt.Errorf("listing subscriptions: %w", err)
		}
		for _, r := range rows {
			after = r.ID
			stored := StoredSubscription{
				ID: r.ID, StripeID: r.StripeSubscriptionID.String, Customer: r.StripeCustomerID.String,
				Account: subjectOf(r.Kind.String, r.AccountID), StripeStatus: r.StripeStatus.String, Quantity: r.Quantity,
				PeriodEnd: r.CurrentPeriodEnd.Time, EndedAt: r.EndedAt.Time, CancelAtPeriodEnd: r.CancelAtPeriodEnd,
			}
			if plan := plans.byID(r.PlanID.String); plan != nil {
				stored.Plan = plan.Name
			}
			if err := each(stored); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

// PricedPlan is the plan that a price means; the zero value: no plan knows it.
type PricedPlan struct {
	Name string
	Tier int64
}

// PlanOfPrice is the plan that a price of the provider's means, as ApplySync sees it.
func (s *Companion) PlanOfPrice(ctx context.Context, configured map[string]string) (func(priceID, lookupKey string) PricedPlan, error) {
	var plans *catalogue
	var book *priceBook
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		if plans, err = s.loadCatalogue(ctx, q); err != nil {
			return err
		}
		book, err = s.loadPriceBook(ctx, q, plans, configured)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading prices: %w", err)
	}
	return func(priceID, lookupKey string) PricedPlan {
		p, ok := book.plan(priceID, lookupKey)
		if plan := plans.byID(p.planID); ok && plan != nil {
			return PricedPlan{plan.Name, plan.Tier}
		}
		return PricedPlan{}
	}, nil
}

// ReceivedEvent is a billing event as it stands here, and how far its customer came.
type ReceivedEvent struct {
	BillingEvent
	Source     string // "webhook" or "list"
	ReceivedAt time.Time
	ReplayedAt time.Time
	Replays    int64
	AccountID  string
	// State is applied, pending, dead, or ignored: it concerns no customer.
	State     string
	Attempts  int64
	LastError string
	SyncedAt  time.Time
}

// BillingEvents are the events that came, the newest first, and how many there are.
func (s *Companion) BillingEvents(ctx context.Context, skip, limit int) (list []ReceivedEvent, total int64, err error) {
	err = s.read(ctx, func(q *sqlgen.Queries) (err error) {
		list = nil
		if total, err = q.CountBillingEvents(ctx); err != nil {
			return err
		}
		rows, err := q.ListBillingEvents(ctx, sqlgen.ListBillingEventsParams{Limit: int32(limit), Offset: int32(skip)}) // bounded by the API
		for _, r := range rows {
			e := ReceivedEvent{
				BillingEvent: BillingEvent{
					ID: r.ID, Type: r.Type, Customer: r.CustomerID.String, Livemode: r.Livemode,
					Occurred: r.OccurredAt.Time, Listed: r.Source == "list",
				},
				Source: r.Source, ReceivedAt: r.ReceivedAt.Time, ReplayedAt: r.ReplayedAt.Time, Replays: r.Replays,
				AccountID: r.AccountID.String, State: "applied", Attempts: r.Attempts.Int64, LastError: r.LastError.String, SyncedAt: r.SyncedAt.Time,
			}
			switch {
			case e.Customer == "":
				e.State = "ignored"
			case r.State.String == "dead":
				e.State = "dead"
			case r.Behind > 0:
				e.State = "pending"
			}
			list = append(list, e)
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("listing billing events: %w", err)
	}
	return list, total, nil
}

// ReplayEvent queues the event's customer again, also one that was given up.
// It answers ErrEventNotFound.
func (s *Companion) ReplayEvent(ctx context.Context, by Actor, id string) error {
	err := s.audited(ctx, by, func(q *sqlgen.Queries, a *auditor) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		customers, err := q.ReplayBillingEvent(ctx, sqlgen.ReplayBillingEventParams{ID: id, ReplayedAt: now})
		switch {
		case err != nil:
			return err
		case len(customers) == 0:
			return ErrEventNotFound
		}
		a.add(AuditEvent{Action: "billing_event.replayed", ResourceType: "billing_event", ResourceID: id})
		if !customers[0].Valid {
			return nil
		}
		return enqueue(ctx, q, customers[0].String, "replay", now)
	})
	if err != nil {
		return fmt.Errorf("replaying a billing event: %w", err)
	}
	return nil
}

// PruneBillingEvents deletes events that came before keep ago.
func (s *Companion) PruneBillingEvents(ctx context.Context, keep time.Duration) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err == nil {
			_, err = q.PruneBillingEvents(ctx, column.At(now.Add(-keep)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pruning billing events: %w", err)
	}
	return nil
}
