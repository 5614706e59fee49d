package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/billing"
)

// billingEvents is the answer of GET /v1/admin/billing/events.
type billingEvents struct {
	Events []billingEvent `json:"events" nullable:"false" doc:"The newest first."`
	Total  int64          `json:"total"`
	Skip   int64          `json:"skip"`
	Limit  int64          `json:"limit"`
}

type billingEvent struct {
	ID               string     `json:"id"`
	Type             string     `json:"type" example:"customer.subscription.updated"`
	Source           string     `json:"source" enum:"webhook,list" doc:"list: no webhook told of it, the comparison with the provider found it."`
	State            string     `json:"state" enum:"applied,pending,dead,ignored" doc:"Of its customer: dead is given up until there is news or a replay. ignored: it concerns no customer."`
	StripeCustomerID *string    `json:"stripe_customer_id"`
	AccountID        *string    `json:"account_id" doc:"null: no account is that customer."`
	Livemode         bool       `json:"livemode"`
	Attempts         int64      `json:"attempts" doc:"How often in a row the customer could not be read."`
	LastError        *string    `json:"last_error"`
	Replays          int64      `json:"replays"`
	OccurredAt       time.Time  `json:"occurred_at"`
	ReceivedAt       time.Time  `json:"received_at"`
	SyncedAt         *time.Time `json:"synced_at" doc:"When the customer was last read."`
}

// billingDrift is the answer of GET /v1/admin/billing/drift.
type billingDrift struct {
	ComparedAt    *time.Time `json:"compared_at" doc:"null: nothing was compared yet."`
	Pending       int64      `json:"pending" doc:"Customers that wait to be read."`
	Dead          int64      `json:"dead" doc:"Customers that were given up."`
	UnknownPrices int64      `json:"unknown_prices" doc:"Running subscriptions whose price no plan has."`
	billing.Comparison
}

func registerBilling(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "list-billing-events", Method: http.MethodGet, Path: "/v1/admin/billing/events",
		Summary: "What the payment provider told, and what came of it",
	}, func(ctx context.Context, st *store.Companion, in *struct{ api.Page }) (billingEvents, string, error) {
		list, total, err := st.BillingEvents(ctx, int(in.Skip), int(in.Limit))
		out := billingEvents{Events: make([]billingEvent, len(list)), Total: total, Skip: in.Skip, Limit: in.Limit}
		for i := range list {
			out.Events[i] = billingEventOf(&list[i])
		}
		return out, "", err
	})
	add(a, s, huma.Operation{
		OperationID: "replay-billing-event", Method: http.MethodPost, Path: "/v1/admin/billing/events/{id}/replay",
		Summary:     "Reads the event's customer once more",
		Description: "Also one that was given up. What the event says is not looked at: the provider is asked.",
		Errors:      []int{http.StatusNotFound}, DefaultStatus: http.StatusAccepted,
	}, s.replayBillingEvent)
	add(a, s, huma.Operation{
		OperationID: "get-billing-drift", Method: http.MethodGet, Path: "/v1/admin/billing/drift",
		Summary: "In what the records and the payment provider differed when they were last compared",
	}, func(ctx context.Context, st *store.Companion, _ *struct{}) (billingDrift, string, error) {
		at, found, err := billing.LastComparison(ctx, st)
		if err != nil {
			return billingDrift{}, "", err
		}
		h, err := st.BillingHealth(ctx)
		out := billingDrift{Pending: h.Pending, Dead: h.Dead, UnknownPrices: h.UnknownPrices, Comparison: found}
		if !at.IsZero() {
			at = at.UTC()
			out.ComparedAt = &at
		}
		return out, "", err
	})
}

func billingEventOf(e *store.ReceivedEvent) billingEvent {
	out := billingEvent{
		ID: e.ID, Type: e.Type, Source: e.Source, State: e.State, StripeCustomerID: orNull(e.Customer), AccountID: orNull(e.AccountID),
		Livemode: e.Livemode, Attempts: e.Attempts, LastError: orNull(e.LastError), Replays: e.Replays,
		OccurredAt: e.Occurred.UTC(), ReceivedAt: e.ReceivedAt.UTC(),
	}
	if !e.SyncedAt.IsZero() {
		at := e.SyncedAt.UTC()
		out.SyncedAt = &at
	}
	return out
}

type replayInput struct {
	ID string `path:"id" maxLength:"255"`
}

type replayAnswer struct {
	Message string `json:"message"`
}

func (s *service) replayBillingEvent(ctx context.Context, st *store.Companion, in *replayInput) (replayAnswer, string, error) {
	err := st.ReplayEvent(ctx, api.Actor(ctx), in.ID)
	if errors.Is(err, store.ErrEventNotFound) {
		err = api.NewError(http.StatusNotFound, "Event not found")
	}
	if err == nil && s.nudge != nil {
		s.nudge()
	}
	return replayAnswer{"The event's customer is read again"}, "", err
}
