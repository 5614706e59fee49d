package integration

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
)

// ask posts to an operation of billing, and wants a status and what the answer contains.
func (s *shop) ask(path, body string, status int, want ...string) map[string]any {
	s.Helper()
	r, o := s.call("/v1/billing/"+path, json.RawMessage(body))
	if r.StatusCode != status {
		s.Errorf("%s %s: %d %s", path, body, r.StatusCode, r.body)
	}
	for _, w := range want {
		if !strings.Contains(string(r.body), w) {
			s.Errorf("%s %s lacks %s: %s", path, body, w, r.body)
		}
	}
	return o
}

// The operations of users answer what the contract says.
func TestBillingOperations(t *testing.T) {
	t.Parallel()
	s, fake := startStripe(t)
	stranger := &shop{t, s.g, "stranger"}

	// Before anything was bought.
	for _, path := range []string{"customer-portal", "sync", "cancel", "resume"} {
		s.ask(path, `{}`, 409, `"no_billing_account"`)
	}
	for _, path := range []string{"change-plan", "change-plan/preview"} {
		s.ask(path, `{"plan":"pro"}`, 409, `"no_billing_account"`)
	}
	for body, status := range map[string]int{
		`{}`: 422, `{"plan":"pro","interval":"week"}`: 422, `{"plan":"pro","quantity":0}`: 422, `{"plan":"pro","quantity":-1}`: 422,
		`{"plan":"nothing"}`: 404, `{"plan":"free"}`: 404, `{"plan":"pro","quantity":2}`: 404, `{"plan":"PRO"}`: 404,
	} {
		s.ask("create-checkout-session", body, status)
	}

	// Buying: by the query and by the body, of which one can be paid.
	year := s.ask("create-checkout-session", `{"plan":"pro","interval":"year"}`, 200, `"checkout_url":"https://pay.example/`, `"expires_at"`)
	page := s.ask("create-checkout-session?plan=pro", `{}`, 200)
	if again := s.ask("create-checkout-session?plan=free", `{"plan":"pro"}`, 200); again["session_id"] != page["session_id"] {
		t.Errorf("the body does not go before the query: %v", again)
	}
	if _, err := fake.Pay(year["session_id"].(string), "pm_card_visa"); err == nil {
		t.Error("a page that was replaced was paid")
	}
	if _, err := fake.Pay(page["session_id"].(string), "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	returned, err := json.Marshal(map[string]any{"session_id": page["session_id"]})
	if err != nil {
		t.Fatal(err)
	}
	stranger.ask("sync", string(returned), 404, `"session_not_found"`)
	s.ask("sync", `{"session_id":"cs_test_none"}`, 404, `"session_not_found"`)
	s.ask("sync", string(returned), 200, `"plan":"pro"`, `"status":"active"`)
	s.awaitLimit("300")
	s.ask("create-checkout-session", `{"plan":"enterprise"}`, 409, `"already_subscribed"`, `"portal_url":"https://pay.example/`)
	s.ask("customer-portal", `{}`, 200, `"portal_url":"https://pay.example/`)
	stranger.ask("cancel", `{}`, 409, `"no_billing_account"`)

	// More at once, less later.
	s.ask("change-plan/preview", `{"plan":"enterprise"}`, 200, `"amount_due_cents":8000`, `"currency":"usd"`, `"effective_at":"20`, `"proration":true`)
	s.ask("change-plan", `{"plan":"enterprise"}`, 200, `"plan":"enterprise"`)
	s.awaitLimit("1200")
	s.ask("change-plan", `{"plan":"enterprise"}`, 409, `"same_plan"`)
	s.ask("change-plan/preview?plan=pro", `{}`, 200, `"amount_due_cents":0`, `"currency":"usd"`, `"lines":[]`)
	s.ask("change-plan?plan=pro", `{}`, 200, `"plan":"enterprise"`, `"pending_plan":"pro"`)
	s.ask("resume", `{}`, 200, `"pending_plan":null`)
	events := s.g.do(http.MethodGet, "/v1/admin/billing/drift", access("root")).want(t, http.StatusOK)
	if !strings.Contains(string(events.body), `"by_kind"`) {
		t.Errorf("drift: %s", events.body)
	}
	if err := fake.FailPayments(customerIn(t, fake.Take()), "insufficient_funds"); err != nil {
		t.Fatal(err)
	}
	s.ask("change-plan", `{"plan":"enterprise","interval":"year"}`, 402, `"payment_declined"`)
	s.ask("sync", `{}`, 200, `"plan":"enterprise"`, `"status":"active"`)

	// The end, thought better of, and the end.
	s.ask("cancel", `{"at":"later"}`, 422)
	s.ask("cancel", `{}`, 200, `"cancel_at_period_end":true`, `"status":"active"`)
	s.ask("resume", `{}`, 200, `"cancel_at_period_end":false`)
	s.ask("cancel", `{"at":"now"}`, 200, `"status":"cancelled"`)
	s.awaitLimit("60")
	s.ask("cancel", `{"at":"now"}`, 409, `"no_subscription"`)

	r := s.send(http.MethodGet, "/v1/billing/invoices", access(s.user), "", "").want(t, http.StatusOK)
	for _, want := range []string{`"total":2`, `"amount_paid_cents":8000`, `"amount_paid_cents":1999`, `"status":"paid"`} {
		if !strings.Contains(string(r.body), want) {
			t.Errorf("invoices lack %s: %s", want, r.body)
		}
	}
	r = s.send(http.MethodGet, "/v1/billing/invoices?limit=1&skip=1", access(s.user), "", "").want(t, http.StatusOK)
	if n := strings.Count(string(r.body), `"id":"in_`); n != 1 || !strings.Contains(string(r.body), `"total":2`) {
		t.Errorf("one of two: %s", r.body)
	}
	r = s.send(http.MethodGet, "/v1/billing/invoices", access("stranger"), "", "").want(t, http.StatusOK)
	if !strings.Contains(string(r.body), `"invoices":[]`) {
		t.Errorf("a stranger sees %s", r.body)
	}
	s.send(http.MethodPost, "/v1/billing/cancel", "", "application/json", "{}").want(t, http.StatusUnauthorized)

	// The provider is told where receipts go.
	fake.Take()
	mailed := token(map[string]any{"sub": "mailed", "type": "access", "email": "mailed@example.com"})
	s.send(http.MethodPost, "/v1/billing/create-checkout-session", mailed, "application/json", `{"plan":"pro"}`).want(t, http.StatusOK)
	if m := fake.Take(); len(m) == 0 || !strings.Contains(string(m[0].Payload), `"email":"mailed@example.com"`) {
		t.Errorf("the provider was told %v", m)
	}
}

// customerIn is the customer of whom the provider tells.
func customerIn(t *testing.T, messages []stripefake.Message) string {
	t.Helper()
	for _, m := range messages {
		if id := regexp.MustCompile(`cus_[A-Za-z0-9]+`).Find(m.Payload); id != nil {
			return string(id)
		}
	}
	t.Fatal("the provider tells of no customer")
	return ""
}
