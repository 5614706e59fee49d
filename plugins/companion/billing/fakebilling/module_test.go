package fakebilling

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCaddyfile(t *testing.T) {
	t.Setenv("BILLING_SITE", "https://app.example.com/")
	for name, tt := range map[string]struct {
		text, err string
		file      string
		want      billing.Settings
	}{
		"defaults": {text: "fake", file: "data/billing-fake.json", want: billing.Settings{
			SuccessURL: "/v1/billing/fake/thanks/{CHECKOUT_SESSION_ID}",
		}},
		"file": {text: "fake books.json", file: "books.json", want: billing.Settings{
			SuccessURL: "/v1/billing/fake/thanks/{CHECKOUT_SESSION_ID}",
		}},
		"all": {
			text: "fake {\nurl {env.BILLING_SITE}\nsuccess_url https://app/done?id={CHECKOUT_SESSION_ID}\ncancel_url /pricing\nreturn_url http://app/account\n}",
			file: "data/billing-fake.json",
			want: billing.Settings{SuccessURL: "https://app/done?id={CHECKOUT_SESSION_ID}", CancelURL: "/pricing", ReturnURL: "http://app/account"},
		},
		"url alone": {
			text: "fake {\nurl https://app.example.com\n}", file: "data/billing-fake.json",
			want: billing.Settings{SuccessURL: "https://app.example.com/v1/billing/fake/thanks/{CHECKOUT_SESSION_ID}"},
		},
		"two files":           {text: "fake a b", err: `unexpected argument "b"`},
		"unknown option":      {text: "fake {\nkey x\n}", err: `unknown option "key"`},
		"twice":               {text: "fake {\nurl http://a\nurl http://b\n}", err: `duplicate option "url" in billing fake: it stands in line 2 already`},
		"no value":            {text: "fake {\nurl\n}", err: "an argument is missing"},
		"two values":          {text: "fake {\nurl http://a http://b\n}", err: `unexpected argument "http://b"`},
		"unknown placeholder": {text: "fake {\nurl {env.BILLING_NOT_SET}\n}", err: "resolving url"},
		"url with a path":     {text: "fake {\nurl http://a/b\n}", err: "url: "},
		"url without scheme":  {text: "fake {\nurl app.example.com\n}", err: "url: "},
		"relative success":    {text: "fake {\nsuccess_url done\n}", err: "success_url: "},
		"script as success":   {text: "fake {\nsuccess_url javascript:alert(1)\n}", err: "success_url: "},
		"another's host":      {text: "fake {\ncancel_url //evil.example\n}", err: "cancel_url: "},
	} {
		t.Run(name, func(t *testing.T) {
			m := new(Module)
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			if err == nil {
				err = m.Provision(caddy.Context{})
			}
			if err == nil {
				err = m.Validate()
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, m.Settings()); d != "" {
				t.Error(d)
			}
			if !filepath.IsAbs(m.file) || !strings.HasSuffix(m.file, tt.file) {
				t.Errorf("file %q", m.file)
			}
		})
	}
}

// The prices are those of the plans that every installation begins with.
func TestCatalogueIsThatOfTheSeedPlans(t *testing.T) {
	t.Parallel()
	plans := map[string]bool{}
	for _, s := range catalogue() {
		name, interval, _ := strings.Cut(s.LookupKey, "_")
		plans[name] = true
		if interval != s.Interval+"ly" || s.Currency != "usd" {
			t.Errorf("%+v", s)
		}
	}
	for _, p := range quota.SeedPlans() {
		if p.Name != "free" && !plans[p.Name] {
			t.Errorf("nothing sells %s", p.Name)
		}
	}
}

// config is one config with the fake in it.
type config struct {
	*testing.T
	module   *Module
	provider billing.Provider
	stop     context.CancelFunc
	got      chan billing.Event
	status   int // answered to events
	mu       sync.Mutex
}

func open(t *testing.T, file string) *config {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &config{T: t, module: &Module{File: file}, stop: cancel, got: make(chan billing.Event, 1000), status: http.StatusOK}
	if err := c.module.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	var err error
	c.mu.Lock() // what is delivered at once waits for the provider that reads it
	c.provider, err = c.module.Open(ctx, billing.Env{Log: zap.NewNop(), Now: time.Now, Deliver: c.deliver})
	c.mu.Unlock()
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.closed()
	})
	return c
}

func (c *config) deliver(_ context.Context, body []byte, signature string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status != http.StatusOK {
		return c.status
	}
	e, err := c.provider.ReadEvent(body, signature, time.Now())
	if err != nil {
		c.Errorf("an event that is not believed: %v", err)
		return http.StatusBadRequest
	}
	c.got <- e
	return http.StatusOK
}

// closed waits until the books that no config uses are closed, and written for
// the last time: the pool forgets them before that.
func (c *config) closed() {
	c.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if n, used := pool.References(c.module.file); !used || n == 0 {
			c.module.books.Load().work.Wait()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.Fatal("the books stay open")
		}
	}
}

// await answers when an event of the type has come.
func (c *config) await(kind string) billing.Event {
	c.Helper()
	for {
		select {
		case e := <-c.got:
			if e.Type == kind {
				return e
			}
		case <-time.After(10 * time.Second):
			c.Fatalf("no %s", kind)
		}
	}
}

func (c *config) browse(method, path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(c.Context(), method, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	c.module.Pages().ServeHTTP(w, r)
	return w
}

// buy buys a plan on the pages, and answers the customer.
func (c *config) buy(key string) string {
	c.Helper()
	ctx := c.Context()
	customer, err := c.provider.CreateCustomer(ctx, billing.NewCustomer{Account: "user:1", Email: "a@example.com", Key: c.Name()})
	if err != nil {
		c.Fatal(err)
	}
	page, err := c.provider.CreateCheckout(ctx, billing.NewCheckout{
		Customer: customer, Account: "user:1", Price: billing.Price{LookupKey: key}, Quantity: 1, SuccessURL: c.module.Settings().SuccessURL,
	})
	if err != nil {
		c.Fatal(err)
	}
	if !strings.HasPrefix(page.URL, billing.PagesPath+"pay/") {
		c.Fatalf("page %q", page.URL)
	}
	if w := c.browse("GET", page.URL, nil); w.Code != http.StatusOK {
		c.Fatalf("the page: %d %s", w.Code, w.Body)
	}
	w := c.browse("POST", page.URL, url.Values{"card": {"4242424242424242"}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != billing.PagesPath+"thanks/"+page.ID {
		c.Fatalf("paid: %d %v", w.Code, w.Header())
	}
	if w := c.browse("GET", w.Header().Get("Location"), nil); w.Code != http.StatusOK {
		c.Fatalf("thanks: %d", w.Code)
	}
	return customer
}

func TestPurchase(t *testing.T) {
	t.Parallel()
	c := open(t, filepath.Join(t.TempDir(), "fake.json"))
	customer := c.buy("pro_monthly")
	if e := c.await("checkout.session.completed"); e.Customer != customer {
		t.Errorf("event %+v", e)
	}
	subs, err := c.provider.Subscriptions(t.Context(), customer)
	if err != nil || len(subs) != 1 || subs[0].Status != "active" || subs[0].LookupKey != "pro_monthly" {
		t.Fatalf("subscriptions %+v, %v", subs, err)
	}
	if w := c.browse("GET", billing.PagesPath+"v1/customers", nil); w.Code != http.StatusNotFound {
		t.Errorf("the API is among the pages: %d", w.Code)
	}
}

func TestPagesBeforeTheStart(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	new(Module).Pages().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", billing.PagesPath+"pay/x", http.NoBody))
	if w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
}

// A new config is started before the old one is stopped: both have the same
// books, and events go to the new one.
func TestReloadAndRestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "fake.json")
	first := open(t, file)
	customer := first.buy("pro_monthly")
	first.await("checkout.session.completed")

	second := open(t, file)
	first.stop()
	subs, err := second.provider.Subscriptions(t.Context(), customer)
	if err != nil || len(subs) != 1 {
		t.Fatalf("after a reload: %+v, %v", subs, err)
	}
	if err := second.provider.End(t.Context(), billing.Ending{Subscription: subs[0], When: billing.AtPeriodEnd}); err != nil {
		t.Fatal(err)
	}
	second.await("customer.subscription.updated")

	// What is not taken is sent again, after a restart too.
	second.mu.Lock()
	second.status = http.StatusServiceUnavailable
	second.mu.Unlock()
	if err := second.provider.End(t.Context(), billing.Ending{Subscription: subs[0], When: billing.AtOnce}); err != nil {
		t.Fatal(err)
	}
	second.stop()
	second.closed()
	third := open(t, file)
	if e := third.await("customer.subscription.deleted"); e.Customer != customer {
		t.Errorf("event %+v", e)
	}
}

func TestBrokenBooks(t *testing.T) {
	t.Parallel()
	m := &Module{File: t.TempDir()} // a folder
	if err := m.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), billing.Env{Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), m.File) {
		t.Errorf("error %v", err)
	}
}
