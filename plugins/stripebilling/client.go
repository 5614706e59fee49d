package stripebilling

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
)

// client is billing.Provider over Stripe's API.
type client struct {
	api      *stripe.Client
	http     *http.Client
	secrets  []string // of webhooks
	livemode bool
}

// requestTimeout bounds one request; stripe-go's own default is 80 s.
const requestTimeout = 20 * time.Second

// pageSize is the largest that Stripe gives.
const pageSize = 100

func newClient(key, base string, secrets []string) *client {
	// A transport of its own: connections that are kept end with the config.
	web := &http.Client{Timeout: requestTimeout, CheckRedirect: refuseRedirects, Transport: http.DefaultTransport.(*http.Transport).Clone()}
	config := &stripe.BackendConfig{
		HTTPClient: web,
		// Its own log has the parameters of requests. Errors come back anyway.
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		EnableTelemetry:   stripe.Bool(false),
		MaxNetworkRetries: stripe.Int64(1),
	}
	if base != "" {
		config.URL = stripe.String(base)
	}
	return &client{
		http: web, api: stripe.NewClient(key, stripe.WithBackends(stripe.NewBackendsWithConfig(config))),
		secrets: secrets, livemode: live(key),
	}
}

// live reports whether a key is of the mode in which money moves.
func live(key string) bool { return strings.Contains(key, "_live_") }

// refuseRedirects keeps the key from whomever Stripe's address may point to.
func refuseRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// translate gives an error the kind that callers act on. Its text names what
// Stripe answered, without Stripe's message, which may quote what was sent.
func translate(err error) error {
	if err == nil {
		return nil
	}
	var e *stripe.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) {
			return err
		}
		// A *url.Error: the method, the address and what the network said.
		return fmt.Errorf("%w: %w", billing.ErrUnavailable, err)
	}
	what := string(e.Type)
	if e.Code != "" {
		what += " " + string(e.Code)
	}
	if e.DeclineCode != "" {
		what += " " + string(e.DeclineCode)
	}
	if e.Param != "" {
		what += ", parameter " + e.Param
	}
	if e.RequestID != "" {
		what += ", request " + e.RequestID
	}
	return fmt.Errorf("%w: stripe answered %d (%s)", kindOf(e), e.HTTPStatusCode, strings.TrimSpace(what))
}

func kindOf(e *stripe.Error) error {
	switch {
	case e.Type == stripe.ErrorTypeCard || e.HTTPStatusCode == http.StatusPaymentRequired:
		return billing.ErrDeclined
	case e.HTTPStatusCode == http.StatusNotFound || e.Code == stripe.ErrorCodeResourceMissing:
		return billing.ErrNotFound
	case e.HTTPStatusCode == http.StatusTooManyRequests || e.HTTPStatusCode >= http.StatusInternalServerError || e.Type == stripe.ErrorTypeAPI:
		return billing.ErrUnavailable
	case e.HTTPStatusCode == http.StatusUnauthorized || e.HTTPStatusCode == http.StatusConflict:
		// A key that is being exchanged, an object that is locked: another time.
		return billing.ErrUnavailable
	}
	return billing.ErrRefused
}

// moment is a time of Stripe's, seconds since 1970; 0 is none.
func moment(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// key is an idempotency key; empty: stripe-go makes one for each call, which
// covers its own repetitions.
func key(p *stripe.Params, k string) {
	if k != "" {
		p.IdempotencyKey = stripe.String(k)
	}
}

// all calls each with every item of a list, page by page.
func all[T any](ctx context.Context, list *stripe.V1List[T], each func(T) error) error {
	for item, err := range list.All(ctx) {
		if err != nil {
			return translate(err)
		}
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}
