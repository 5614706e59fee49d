package stripefake_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

func create(w *world, client *stripe.Client, email, key string) (*stripe.Customer, error) {
	p := &stripe.CustomerCreateParams{Email: &email}
	if key != "" {
		p.SetIdempotencyKey(key)
	}
	return client.V1Customers.Create(w.Context(), p)
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := must(create(w, w.client, "a@example.com", "k"))(t)
	again := must(create(w, w.client, "a@example.com", "k"))(t)
	if again.ID != first.ID || again.LastResponse.Header.Get("Idempotent-Replayed") != "true" ||
		again.LastResponse.Header.Get("Original-Request") != first.LastResponse.RequestID {
		t.Errorf("%s, then %s: %v", first.ID, again.ID, again.LastResponse.Header)
	}
	_, err := create(w, w.client, "b@example.com", "k")
	refused(t, err, 400, stripe.ErrorTypeIdempotency, "")
	if live := must(create(w, w.clientFor("sk_live_stripefake", 0), "b@example.com", "k"))(t); live.ID == first.ID {
		t.Error("the other mode's key was taken for this one's")
	}
	w.advance(day + time.Second)
	if late := must(create(w, w.client, "b@example.com", "k"))(t); late.ID == first.ID {
		t.Error("a day later the key is remembered")
	}
	// A request with bad parameters never ran.
	p := &stripe.PriceCreateParams{Currency: stripe.String("usd"), UnitAmount: stripe.Int64(1), Product: stripe.String("prod_x")}
	p.SetIdempotencyKey("price")
	_, err = w.client.V1Prices.Create(t.Context(), p)
	refused(t, err, 400, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeResourceMissing)
	p.Product = stripe.String(w.prices["pro_monthly"].Product.ID)
	must(w.client.V1Prices.Create(t.Context(), p))(t)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	posts := stripefake.Fault{Method: http.MethodPost, Path: "/v1/customers"}
	with := func(change func(*stripefake.Fault)) stripefake.Fault {
		f := posts
		change(&f)
		return f
	}
	for name, tt := range map[string]struct {
		fault  stripefake.Fault
		status int
		kind   stripe.ErrorType
		code   stripe.ErrorCode
	}{
		"rate limit": {with(func(f *stripefake.Fault) { f.Status, f.RetryAfter = 429, 1500*time.Millisecond }), 429, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeRateLimit},
		"server":     {with(func(f *stripefake.Fault) { f.Status = 500 }), 500, stripe.ErrorTypeAPI, ""},
		"lock":       {with(func(f *stripefake.Fault) { f.Status = 409 }), 409, stripe.ErrorTypeInvalidRequest, stripe.ErrorCodeLockTimeout},
	} {
		w.fake.Inject(tt.fault)
		_, err := create(w, w.client, name, "")
		e := refused(t, err, tt.status, tt.kind, tt.code)
		if got := e.Header.Get("Retry-After"); (got == "2") != (tt.status == 429) {
			t.Errorf("%s: Retry-After %q", name, got)
		}
		must(create(w, w.client, name, ""))(t)
	}
	if n := w.customers(); n != 3 {
		t.Errorf("%d customers: a fault did what was asked", n)
	}
}

func (w *world) customers() int {
	w.Helper()
	n := 0
	for _, err := range w.client.V1Customers.List(w.Context(), nil).All(w.Context()) {
		if err != nil {
			w.Fatal(err)
		}
		n++
	}
	return n
}

// An answer that was lost is asked for again with the same key: what was done is
// not done twice.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// net/http itself repeats a request that has such a key, once.
	w.fake.Inject(stripefake.Fault{Method: http.MethodPost, Path: "/v1/customers", Lost: true, Times: -1})
	if _, err := create(w, w.client, "a@example.com", "k"); err == nil {
		t.Fatal("the answer arrived")
	}
	w.fake.Heal()
	must(create(w, w.client, "a@example.com", "k"))(t)
	w.fake.Inject(stripefake.Fault{Method: http.MethodPost, Path: "/v1/customers", Lost: true, Times: 3})
	must(create(w, w.clientFor(stripefake.DefaultKey, 2), "b@example.com", ""))(t)
	if n := w.customers(); n != 2 {
		t.Errorf("%d customers, want 2", n)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.Inject(stripefake.Fault{Path: "/v1/customers", Delay: time.Hour, Times: -1, Skip: 1})
	must(create(w, w.client, "a@example.com", ""))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.client.V1Customers.Create(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	w.fake.Heal()
	if n := w.customers(); n != 1 {
		t.Errorf("%d customers, want 1", n)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made []string
	for range 25 {
		made = append(made, must(create(w, w.client, "a@example.com", ""))(t).ID)
		w.advance(time.Second)
	}
	n := len(made)
	for c, err := range w.client.V1Customers.List(t.Context(), &stripe.CustomerListParams{ListParams: stripe.ListParams{Limit: stripe.Int64(10)}}).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if n--; c.ID != made[n] {
			t.Fatalf("%s in the place of %s", c.ID, made[n])
		}
	}
	if n != 0 {
		t.Errorf("%d are missing", n)
	}
	page := w.client.V1Customers.List(t.Context(), &stripe.CustomerListParams{ListParams: stripe.ListParams{
		Limit: stripe.Int64(3), EndingBefore: &made[10], Single: true,
	}})
	// Going backwards, the client turns pages round.
	if got := page.Data(); len(got) != 3 || got[0].ID != made[11] || got[2].ID != made[13] || !page.Meta().HasMore {
		t.Errorf("before the tenth: %d, more %v", len(got), page.Meta().HasMore)
	}
	since := w.client.V1Customers.List(t.Context(), &stripe.CustomerListParams{
		ListParams: stripe.ListParams{Single: true}, CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: unix(start.Add(20 * time.Second))},
	})
	if got := len(since.Data()); got != 5 {
		t.Errorf("since the twentieth second: %d", got)
	}
	for _, query := range []string{"limit=0", "limit=101", "starting_after=cus_x", "starting_after=a&ending_before=b"} {
		res, err := http.DefaultClient.Do(w.get("/v1/customers?" + query))
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != 400 {
			t.Errorf("%s: %d, %v", query, res.StatusCode, err)
		}
	}
}

func (w *world) get(path string) *http.Request {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.url+path, http.NoBody)
	if err != nil {
		w.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+stripefake.DefaultKey)
	return r
}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := must(create(w, w.client, "a@example.com", "the-key"))(t)
	at := w.fake.Now()
	w.advance(time.Minute)
	must(w.client.V1Customers.Update(t.Context(), c.ID, &stripe.CustomerUpdateParams{
		Email: stripe.String("b@example.com"), Metadata: map[string]string{"a": "1"},
	}))(t)
	events := func(p *stripe.EventListParams) []*stripe.Event {
		return w.client.V1Events.List(t.Context(), p).Data()
	}
	all := events(&stripe.EventListParams{Types: stripe.StringSlice([]string{"customer.created", "customer.updated"})})
	if len(all) != 2 || all[0].Type != "customer.updated" || all[1].Request.IdempotencyKey != "the-key" || all[1].Request.ID == "" {
		t.Fatalf("events %+v", all)
	}
	if was := all[0].Data.PreviousAttributes; was["email"] != "a@example.com" || was["metadata"].(map[string]any)["a"] != nil || len(was) != 2 {
		t.Errorf("previous attributes %v", was)
	}
	recent := &stripe.EventListParams{Type: stripe.String("customer.updated"), CreatedRange: &stripe.RangeQueryParams{GreaterThan: unix(at)}}
	if got := events(recent); len(got) != 1 || got[0].PendingWebhooks != 1 {
		t.Errorf("since the first: %v", got)
	}
	one := must(w.client.V1Events.Retrieve(t.Context(), all[0].ID, nil))(t)
	if !strings.Contains(string(one.Data.Raw), `"b@example.com"`) {
		t.Errorf("event %s", one.Data.Raw)
	}
	w.told()
	if got := events(recent); got[0].PendingWebhooks != 0 {
		t.Errorf("delivered, and %d are pending", got[0].PendingWebhooks)
	}
	w.advance(31 * day)
	if got := events(&stripe.EventListParams{}); len(got) != 0 {
		t.Errorf("after 31 days there are %d", len(got))
	}
}
