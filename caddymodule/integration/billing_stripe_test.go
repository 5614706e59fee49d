package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
)

// The secrets of a config that sells through Stripe; nobody else may read them.
const (
	stripeKey    = "sk_test_of_the_integration"
	stripeSecret = "whsec_of_the_integration"
)

// startStripe runs a gateway that sells through a provider that speaks Stripe's
// API. Its events are not sent: the test does that.
func startStripe(t *testing.T) (*shop, *stripefake.Fake) {
	t.Helper()
	fake, err := stripefake.New(stripefake.Options{
		Key: stripeKey, Seed: t.Name(), BaseURL: "https://pay.example", Receivers: []stripefake.Receiver{{Name: "gateway", Secret: stripeSecret}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Seed([]stripefake.Seed{
		{Product: "Pro", LookupKey: "pro_monthly", Currency: "usd", Interval: "month", Amount: 1999},
		{Product: "Pro", LookupKey: "pro_yearly", Currency: "usd", Interval: "year", Amount: 19990},
		{Product: "Enterprise", LookupKey: "enterprise_monthly", Currency: "usd", Interval: "month", Amount: 9999},
		{Product: "Enterprise", LookupKey: "enterprise_yearly", Currency: "usd", Interval: "year", Amount: 99990},
	}); err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(fake)
	t.Cleanup(api.Close)
	backend := strings.TrimPrefix(gatetest.NewBackend(nil).Serve(t).URL, "http://")
	config := strings.TrimSuffix(preamble, "}\n") + `
	quota_companion {
		admins root
		billing stripe {
			api_key {env.STRIPE_API_KEY}
			webhook_secret {env.STRIPE_WEBHOOK_SECRET}
			api_base ` + api.URL + `
		}
	}
}
http://:{$PORT} {
	quota_account
	quota_admin
	quota_billing
	quota {
		rule api {
			match {
				path /items
			}
			limit api 60/1m
		}
	}
	reverse_proxy ` + backend + `
}
`
	dir := t.TempDir()
	g := &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: gatetest.FreeAddr(t), admin: gatetest.FreeAddr(t)}
	g.extra = []string{"STRIPE_API_KEY=" + stripeKey, "STRIPE_WEBHOOK_SECRET=" + stripeSecret}
	g.write(config)
	g.run()
	return &shop{t, g, "payer"}, fake
}

// webhook sends a body as the provider would, with that header.
func (s *shop) webhook(body, signature string) *reply {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://"+s.g.addr+"/v1/billing/webhook", strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Stripe-Signature", signature)
	res, err := client(s.T).Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return &reply{res, b}
}

// Of all that may be sent to the webhook only what the provider has signed, now
// and for this mode, changes anything; and no secret is to be read anywhere.
func TestWebhooksOfStrangers(t *testing.T) {
	t.Parallel()
	s, fake := startStripe(t)
	r, o := s.call("/v1/billing/create-checkout-session?plan=pro", map[string]string{})
	r.want(t, http.StatusOK)
	if url, _ := o["checkout_url"].(string); !strings.HasPrefix(url, "https://pay.example/") {
		t.Fatalf("%v", o)
	}
	if _, err := fake.Pay(o["session_id"].(string), "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	messages := fake.Take()
	if len(messages) == 0 {
		t.Fatal("the provider has nothing to tell")
	}
	now := time.Now()
	last := messages[len(messages)-1]
	event := string(last.Payload)
	signed := func(body string, at time.Time) string { return stripefake.Signature([]byte(body), stripeSecret, at) }
	live := strings.ReplaceAll(event, `"livemode":false`, `"livemode":true`)
	large := event + strings.Repeat(" ", 1<<20)
	for name, c := range map[string]struct {
		body, signature string
		status          int
	}{
		"forged":         {event, stripefake.Signature([]byte(event), "whsec_of_somebody", now), 400},
		"unsigned":       {event, "", 400},
		"old":            {event, signed(event, now.Add(-10*time.Minute)), 400},
		"future-dated":   {event, signed(event, now.Add(10*time.Minute)), 400},
		"truncated":      {event[:len(event)/2], signed(event, now), 400},
		"oversized":      {large, signed(large, now), 413},
		"the other mode": {live, signed(live, now), 400},
		"no event":       {`{"object":"charge"}`, signed(`{"object":"charge"}`, now), 400},
	} {
		if live == event && name == "the other mode" {
			t.Fatal("the event does not say its mode")
		}
		if got := s.webhook(c.body, c.signature); got.StatusCode != c.status || !strings.HasPrefix(string(got.body), `{"detail":`) {
			t.Errorf("%s: %d %s, want %d", name, got.StatusCode, got.body, c.status)
		}
	}
	if got := s.limit(); got != "60" {
		t.Fatalf("limit %s: a stranger has bought the plan", got)
	}
	for range 3 { // and once more, and again
		got := s.webhook(event, signed(event, now)).want(t, http.StatusOK)
		if body := strings.TrimSpace(string(got.body)); body != `{"status":"success"}` {
			t.Errorf("answered %s", body)
		}
	}
	s.awaitLimit("300")

	admin := s.g.do(http.MethodGet, "/v1/admin/billing/events", access("root")).want(t, http.StatusOK)
	if text := string(admin.body); strings.Count(text, last.Event) != 1 || !strings.Contains(text, `"account_id":"payer"`) {
		t.Errorf("events: %s", text)
	}
	const events = "/v1/admin/billing/events/"
	s.g.do(http.MethodPost, events+last.Event+"/replay", access("root")).want(t, http.StatusAccepted)
	s.g.do(http.MethodPost, events+"evt_none/replay", access("root")).want(t, http.StatusNotFound)
	s.g.do(http.MethodPost, events+last.Event+"/replay", access("payer")).want(t, http.StatusForbidden)
	eventually(t, patience, "the replayed event to be applied", func() bool {
		r := s.g.do(http.MethodGet, "/v1/admin/billing/events", access("root")).want(t, http.StatusOK)
		return strings.Contains(string(r.body), `"replays":1`) && !strings.Contains(string(r.body), `"state":"pending"`)
	})
	drift := s.g.do(http.MethodGet, "/v1/admin/billing/drift", access("root")).want(t, http.StatusOK)
	if !strings.Contains(string(drift.body), `"dead":0`) {
		t.Errorf("drift: %s", drift.body)
	}
	out := s.g.command("billing", "drift", "--now")
	if !strings.Contains(out, "1 subscriptions compared") || !strings.Contains(out, " 0 differ") {
		t.Errorf("drift: %s", out)
	}
	res, err := http.Get("http://" + s.g.admin + "/config/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	config, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"the log": s.g.logged(), "the admin API": string(config), "the events": string(admin.body)} {
		for _, private := range []string{stripeKey, stripeSecret} {
			if strings.Contains(text, private) {
				t.Errorf("%s shows %s", where, private)
			}
		}
	}
}

// A provider that is down, refuses, or is slow changes nothing, and what was paid
// meanwhile is known when it is back.
func TestProviderInTrouble(t *testing.T) {
	t.Parallel()
	s, fake := startStripe(t)
	for _, fault := range []stripefake.Fault{{Status: 500, Times: -1}, {Status: 429, RetryAfter: time.Second, Times: -1}, {Lost: true, Method: http.MethodGet, Times: -1}} {
		fake.Inject(fault)
		r, o := s.call("/v1/billing/create-checkout-session", map[string]string{"plan": "pro"})
		fake.Heal()
		if d, _ := o["detail"].(map[string]any); r.StatusCode != http.StatusBadGateway || d["error"] != "billing_unavailable" {
			t.Errorf("%+v: %d %v", fault, r.StatusCode, o)
		}
		if strings.Contains(fmt.Sprint(o), stripeKey) {
			t.Errorf("the answer shows the key: %v", o)
		}
	}
	r, o := s.call("/v1/billing/create-checkout-session", map[string]string{"plan": "pro"})
	r.want(t, http.StatusOK)
	if _, err := fake.Pay(o["session_id"].(string), "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/subscriptions", Status: 503, Times: 2})
	for _, m := range fake.Take() {
		s.webhook(string(m.Payload), stripefake.Signature(m.Payload, stripeSecret, time.Now())).want(t, http.StatusOK)
	}
	// The worker comes back after five seconds; a user who looks need not wait.
	eventually(t, patience, "the provider to be back", func() bool {
		r, _ := s.call("/v1/billing/sync", map[string]string{})
		return r.StatusCode == http.StatusOK
	})
	s.awaitLimit("300")
}
