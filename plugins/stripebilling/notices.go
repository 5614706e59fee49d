package stripebilling

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// tolerance is how far a webhook's time may be from ours, in either direction.
const tolerance = 5 * time.Minute

// ReadEvent implements billing.Notices.
func (c *client) ReadEvent(body []byte, signature string, now time.Time) (billing.Event, error) {
	if err := c.verify(body, signature, now); err != nil {
		return billing.Event{}, err
	}
	// Objects are not read further than their customer, so that an endpoint of
	// another API version does no harm.
	e, err := stripe.ConstructEventWithoutVerification(body, stripe.WithIgnoreAPIVersionMismatch())
	if err != nil {
		return billing.Event{}, billing.ErrBadEvent // the error may quote the body
	}
	out, err := eventOf(&e)
	if err != nil {
		return billing.Event{}, err
	}
	if out.Livemode != c.livemode {
		return billing.Event{}, fmt.Errorf("%w: event %s", billing.ErrWrongMode, out.ID)
	}
	return out, nil
}

// verify accepts the body if one of the secrets signed it, within tolerance of
// now. stripe-go would accept any time ahead, and goes by the process' clock.
func (c *client) verify(body []byte, signature string, now time.Time) error {
	at, err := signedAt(signature)
	if err != nil {
		return err
	}
	if age := now.Sub(at); age > tolerance || age < -tolerance {
		return fmt.Errorf("%w: it was signed at %s", billing.ErrBadSignature, at.UTC().Format(time.RFC3339))
	}
	for _, secret := range c.secrets {
		if stripe.ValidatePayload(body, signature, secret, stripe.WithIgnoreTolerance()) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: no configured secret has signed it", billing.ErrBadSignature)
}

// signedAt is the time that a Stripe-Signature header names, exactly once.
func signedAt(header string) (time.Time, error) {
	var at time.Time
	for pair := range strings.SplitSeq(header, ",") {
		value, ok := strings.CutPrefix(pair, "t=")
		if !ok {
			continue
		}
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds <= 0 || seconds > 1<<40 || !at.IsZero() {
			return time.Time{}, fmt.Errorf("%w: its time is not one", billing.ErrBadSignature)
		}
		at = time.Unix(seconds, 0)
	}
	if at.IsZero() {
		return time.Time{}, fmt.Errorf("%w: the header Stripe-Signature has no time", billing.ErrBadSignature)
	}
	return at, nil
}

// families are the events that operators are told to have sent to us.
func families() []string {
	return []string{"customer.subscription.*", "invoice.*", "checkout.session.*", "charge.dispute.*", "customer.deleted"}
}

func subscribed(kind string) bool {
	return slices.ContainsFunc(families(), func(family string) bool {
		ok, err := path.Match(family, kind)
		return ok && err == nil
	})
}

// eventOf is an event in the words of billing.
func eventOf(e *stripe.Event) (billing.Event, error) {
	if e.ID == "" || e.Type == "" || e.Data == nil {
		return billing.Event{}, billing.ErrBadEvent
	}
	out := billing.Event{
		ID: e.ID, Type: string(e.Type), Created: moment(e.Created), Livemode: e.Livemode, Subscribed: subscribed(string(e.Type)),
	}
	var err error
	if out.Customer, err = customerOf(e.Data.Raw); err != nil {
		return out, fmt.Errorf("%w: event %s", billing.ErrBadEvent, e.ID)
	}
	return out, nil
}

// customerOf is whom an object concerns: the customer itself, or the object's own,
// by id or expanded. Empty: nobody.
func customerOf(raw json.RawMessage) (string, error) {
	var object struct {
		ID       string          `json:"id"`
		Object   string          `json:"object"`
		Customer json.RawMessage `json:"customer"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", err
	}
	if object.Object == "customer" {
		return object.ID, nil
	}
	if len(object.Customer) == 0 || string(object.Customer) == "null" {
		return "", nil
	}
	var id string
	if err := json.Unmarshal(object.Customer, &id); err == nil {
		return id, nil
	}
	var expanded struct {
		ID string `json:"id"`
	}
	err := json.Unmarshal(object.Customer, &expanded)
	return expanded.ID, err
}

// Events implements billing.Notices.
func (c *client) Events(ctx context.Context, since time.Time, each func(billing.Event) error) error {
	p := &stripe.EventListParams{CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: since.Unix()}}
	p.Limit = stripe.Int64(pageSize)
	return all(ctx, c.api.V1Events.List(ctx, p), func(e *stripe.Event) error {
		out, err := eventOf(e)
		if err != nil && out.ID == "" {
			return nil // nothing that could be kept
		}
		// One whose customer cannot be read must not hide all others: the comparison
		// of all subscriptions finds what it has changed.
		return each(out)
	})
}
