package billing

import (
	"context"
	"errors"
	"net/http"

	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// MaxWebhook is the longest body of a webhook, in bytes.
const MaxWebhook = 1 << 20

// receive takes a webhook in and answers the status that tells the sender what
// became of it: what is not kept durably is not acknowledged, so that it is sent
// again. Nothing is read from the provider meanwhile.
func (d *desk) receive(ctx context.Context, body []byte, signature string) int {
	status, outcome := d.accept(ctx, body, signature)
	webhooks.WithLabelValues(outcome).Inc()
	return status
}

func (d *desk) accept(ctx context.Context, body []byte, signature string) (status int, outcome string) {
	if len(body) > MaxWebhook {
		return http.StatusRequestEntityTooLarge, "too_large"
	}
	e, err := d.provider.ReadEvent(body, signature, d.now())
	switch {
	case errors.Is(err, ErrWrongMode):
		d.log.Warn("a webhook was refused", zap.Error(err))
		return http.StatusBadRequest, "wrong_mode"
	case errors.Is(err, ErrBadEvent):
		d.log.Warn("a webhook was refused", zap.Error(err))
		return http.StatusBadRequest, "bad_event"
	case err != nil:
		d.log.Warn("a webhook was refused", zap.Error(err))
		return http.StatusBadRequest, "bad_signature"
	}
	fresh, err := d.keep(ctx, e, false)
	switch {
	case err != nil:
		d.log.Error("a webhook could not be kept: the sender will repeat it", zap.String("event", e.ID), zap.Error(err))
		return http.StatusServiceUnavailable, "unavailable"
	case !fresh:
		return http.StatusOK, "duplicate"
	}
	return http.StatusOK, "accepted"
}

// keep stores an event and queues its customer.
func (d *desk) keep(ctx context.Context, e Event, listed bool) (bool, error) {
	st, err := d.store()
	if err != nil {
		return false, err
	}
	fresh, err := st.ReceiveEvent(ctx, store.BillingEvent{
		ID: e.ID, Type: e.Type, Customer: e.Customer, Livemode: e.Livemode, Occurred: e.Created, Listed: listed,
	})
	if err != nil || !fresh {
		return false, err
	}
	if e.Type == "charge.dispute.created" {
		// What was bought goes on until the provider ends it: people decide this.
		d.log.Error("a payment was disputed", zap.String("event", e.ID))
	}
	if e.Customer != "" {
		d.nudge()
	}
	return true, nil
}
