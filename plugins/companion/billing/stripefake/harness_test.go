package stripefake_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

// start is when the tests' clocks begin: a month end, so that clamping shows.
var start = time.Date(2026, time.January, 31, 10, 0, 0, 0, time.UTC)

const secret = "whsec_test"

// world is a fake with Stripe's own client before it. Every answer is compared
// with the published description.
type world struct {
	*testing.T
	fake   *stripefake.Fake
	client *stripe.Client
	url    string
	prices map[string]*stripe.Price // by lookup key
}

func newWorld(t *testing.T, with ...func(*stripefake.Options)) *world {
	t.Helper()
	o := stripefake.Options{
		Seed: t.Name(), Start: start, LiveKey: "sk_live_stripefake",
		Receivers: []stripefake.Receiver{{Name: "test", Secret: secret}},
	}
	for _, f := range with {
		f(&o)
	}
	fake, err := stripefake.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Seed([]stripefake.Seed{
		{"Pro", "pro_monthly", "usd", "month", 1999}, {"Pro", "pro_yearly", "usd", "year", 19990},
		{"Enterprise", "enterprise_monthly", "usd", "month", 9999},
	}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	w := &world{T: t, fake: fake, url: server.URL, prices: map[string]*stripe.Price{}}
	w.client = w.clientFor(stripefake.DefaultKey, 0)
	keys := []string{"pro_monthly", "pro_yearly", "enterprise_monthly"}
	for p, err := range w.client.V1Prices.List(t.Context(), &stripe.PriceListParams{LookupKeys: stripe.StringSlice(keys)}).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		w.prices[p.LookupKey] = p
	}
	if len(w.prices) != len(keys) {
		t.Fatalf("prices %v", w.prices)
	}
	return w
}

func (w *world) clientFor(key string, retries int64) *stripe.Client {
	return stripe.NewClient(key, stripe.WithBackends(stripe.NewBackendsWithConfig(&stripe.BackendConfig{
		URL: stripe.String(w.url), MaxNetworkRetries: stripe.Int64(retries), HTTPClient: &http.Client{Transport: checked{w.T}},
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull},
	})))
}

// checked compares all answers that pass with the description.
type checked struct{ *testing.T }

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	if err := published().checkAnswer(r.Method, r.URL.Path, res.StatusCode, body); err != nil {
		c.Errorf("%s %s: %v\n%s", r.Method, r.URL, err, body)
	}
	return res, nil
}

// must is the value of a call that has to succeed.
func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// customer is a new one, with a card of that name if there is one.
func (w *world) customer(card string) *stripe.Customer {
	w.Helper()
	c := must(w.client.V1Customers.Create(w.Context(), &stripe.CustomerCreateParams{Email: stripe.String("a@example.com")}))(w)
	if card != "" {
		w.giveCard(c.ID, card)
	}
	return c
}

func (w *world) giveCard(customer, card string) {
	w.Helper()
	p := must(w.client.V1PaymentMethods.Attach(w.Context(), card, &stripe.PaymentMethodAttachParams{Customer: &customer}))(w)
	must(w.client.V1Customers.Update(w.Context(), customer, &stripe.CustomerUpdateParams{
		InvoiceSettings: &stripe.CustomerUpdateInvoiceSettingsParams{DefaultPaymentMethod: &p.ID},
	}))(w)
}

// subscribe makes a subscription to a price.
func (w *world) subscribe(customer, key string, with ...func(*stripe.SubscriptionCreateParams)) *stripe.Subscription {
	w.Helper()
	p := &stripe.SubscriptionCreateParams{
		Customer: &customer, Items: []*stripe.SubscriptionCreateItemParams{{Price: &w.prices[key].ID}},
	}
	for _, f := range with {
		f(p)
	}
	return must(w.client.V1Subscriptions.Create(w.Context(), p))(w)
}

func (w *world) subscription(id string) *stripe.Subscription {
	w.Helper()
	return must(w.client.V1Subscriptions.Retrieve(w.Context(), id, nil))(w)
}

func (w *world) advance(d time.Duration) {
	w.Helper()
	if err := w.fake.Advance(d); err != nil {
		w.Fatal(err)
	}
}

func (w *world) advanceTo(t time.Time) {
	w.Helper()
	if err := w.fake.AdvanceTo(t); err != nil {
		w.Fatal(err)
	}
}

// want compares a subscription's status.
func (w *world) want(id string, status stripe.SubscriptionStatus) *stripe.Subscription {
	w.Helper()
	s := w.subscription(id)
	if s.Status != status {
		w.Fatalf("%s is %s at %s, want %s", id, s.Status, w.fake.Now(), status)
	}
	return s
}

// told are the types of the events since the last call; each message is verified
// as a receiver would, and its object compared with the description.
func (w *world) told() []string {
	w.Helper()
	var types []string
	for _, m := range w.fake.Take() {
		e, err := w.client.ConstructEvent(m.Payload, m.Signature, secret, stripe.WithIgnoreTolerance())
		if err != nil {
			w.Fatalf("%s: %v", m.Type, err)
		}
		var o map[string]any
		if err := json.Unmarshal(e.Data.Raw, &o); err != nil {
			w.Fatal(err)
		}
		kind := o["object"].(string)
		if err := published().check(published().Components.Schemas[kind], o, kind); err != nil {
			w.Errorf("%s: %v", m.Type, err)
		}
		types = append(types, string(e.Type))
	}
	return types
}

// refusal is what an error of the API says beside its type and code.
type refusal struct {
	Msg, Param, ChargeID string
	DeclineCode          stripe.DeclineCode
	Header               http.Header
}

// refused is the refusal of a call that must fail in that way.
func refused(t testing.TB, err error, status int, kind stripe.ErrorType, code stripe.ErrorCode) refusal {
	t.Helper()
	var e *stripe.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is none of the API", err)
	}
	if e.HTTPStatusCode != status || e.Type != kind || e.Code != code || e.RequestID == "" {
		t.Errorf("%d %s %q (request %q): %s\nwant %d %s %q", e.HTTPStatusCode, e.Type, e.Code, e.RequestID, e.Msg, status, kind, code)
	}
	return refusal{e.Msg, e.Param, e.ChargeID, e.DeclineCode, e.LastResponse.Header}
}

// post sends a form without a client library.
func (w *world) post(path, form string, header ...string) (*http.Response, map[string]any) {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.url+path, strings.NewReader(form))
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+stripefake.DefaultKey)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var o map[string]any
	if err := json.NewDecoder(res.Body).Decode(&o); err != nil {
		w.Fatal(err)
	}
	return res, o
}
