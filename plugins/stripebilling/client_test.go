package stripebilling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/plugins/companion/billing"
)

// closeIdle ends what the client keeps open, for goleak.
func closeIdle(c *client) { c.http.CloseIdleConnections() }

// What Stripe answers has a kind that callers act on, and no text of ours has a secret.
func TestErrors(t *testing.T) {
	t.Parallel()
	const secret = "sk_test_very_secret"
	echo := `{"error":{"type":%q,"code":%q,"message":"the key sk_test_very_secret of a@example.com"}}`
	for name, c := range map[string]struct {
		status     int
		kind, code string
		want       error
	}{
		"declined":             {402, "card_error", "card_declined", billing.ErrDeclined},
		"no such customer":     {404, "invalid_request_error", "resource_missing", billing.ErrNotFound},
		"missing, as a 400":    {400, "invalid_request_error", "resource_missing", billing.ErrNotFound},
		"a bad parameter":      {400, "invalid_request_error", "parameter_unknown", billing.ErrRefused},
		"too many":             {429, "invalid_request_error", "rate_limit", billing.ErrUnavailable},
		"a wrong key":          {401, "invalid_request_error", "", billing.ErrUnavailable},
		"a fault":              {500, "api_error", "", billing.ErrUnavailable},
		"in maintenance":       {503, "api_error", "", billing.ErrUnavailable},
		"a key reused":         {400, "idempotency_error", "", billing.ErrRefused},
		"locked":               {409, "invalid_request_error", "lock_timeout", billing.ErrUnavailable},
		"somebody else's 500":  {502, "", "", billing.ErrUnavailable},
		"a redirect elsewhere": {302, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "http://192.0.2.1/")
				w.Header().Set("Stripe-Should-Retry", "false")
				w.WriteHeader(c.status)
				fmt.Fprintf(w, echo, c.kind, c.code)
			}))
			defer s.Close()
			cl := newClient(secret, s.URL, nil)
			defer closeIdle(cl)
			_, err := cl.CreateCustomer(t.Context(), billing.NewCustomer{Account: "user:a", Email: "a@example.com"})
			if err == nil {
				err = errors.New("no error")
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			for _, private := range []string{secret, "a@example.com"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("the error says %s: %v", private, err)
				}
			}
		})
	}
}

func TestStripeDownOrSlow(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	c := newClient("sk_test_1", gone.URL, nil)
	if _, err := c.Subscriptions(t.Context(), "cus_1"); !errors.Is(err, billing.ErrUnavailable) {
		t.Errorf("down: %v", err)
	}
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	c = newClient("sk_test_1", slow.URL, nil)
	defer closeIdle(c)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Subscriptions(ctx, "cus_1"); !errors.Is(err, billing.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
}

// One event that cannot be read hides none of the others in the list.
func TestUnreadableEventInTheList(t *testing.T) {
	t.Parallel()
	list := `{"object":"list","has_more":false,"url":"/v1/events","data":[` +
		strings.Replace(eventBody(`{"id":"sub_1","customer":5}`, false), "evt_1", "evt_bad", 1) + "," +
		eventBody(`{"id":"sub_2","object":"subscription","customer":"cus_2"}`, false) + "]}"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, list) }))
	defer s.Close()
	c := newClient("sk_test_1", s.URL, nil)
	defer closeIdle(c)
	got := map[string]string{}
	err := c.Events(t.Context(), time.Unix(0, 0), func(e billing.Event) error { got[e.ID] = e.Customer; return nil })
	if diff := cmp.Diff(map[string]string{"evt_bad": "", "evt_1": "cus_2"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
