package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// shop is a user at the gateway, who reaches it by a name of its own.
type shop struct {
	*testing.T
	g    *gateway
	user string
}

const shopHost = "app.example.test"

// call sends JSON and reads the answer's.
func (s *shop) call(path string, body any) (*reply, map[string]any) {
	s.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		s.Fatal(err)
	}
	r := s.send(http.MethodPost, path, access(s.user), "application/json", string(b))
	var o map[string]any
	if err := json.Unmarshal(r.body, &o); err != nil {
		s.Fatalf("%s: %s: %v: %s", path, r.Status, err, r.body)
	}
	return r, o
}

func (s *shop) send(method, path, token, kind, body string) *reply {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, "http://"+s.g.addr+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Host = shopHost
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
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

// page is the path of a page's address, which must be one that the browser reaches.
func (s *shop) page(address any) string {
	s.Helper()
	path, ok := strings.CutPrefix(address.(string), "http://"+shopHost)
	if !ok || !strings.HasPrefix(path, "/v1/billing/fake/") {
		s.Fatalf("address %v", address)
	}
	return path
}

// submit sends a page's form without a token, as a browser would.
func (s *shop) submit(path string, form ...string) *reply {
	s.Helper()
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return s.send(http.MethodPost, path, "", "application/x-www-form-urlencoded", values.Encode())
}

// open opens the payment page of a plan.
func (s *shop) open(plan string) string {
	s.Helper()
	r, o := s.call("/v1/billing/create-checkout-session", map[string]string{"plan": plan})
	r.want(s, http.StatusOK)
	return s.page(o["checkout_url"])
}

func (s *shop) portal() string {
	s.Helper()
	r, o := s.call("/v1/billing/customer-portal", map[string]string{})
	r.want(s, http.StatusOK)
	return s.page(o["portal_url"])
}

// awaitLimit waits until the gateway grants that many requests a minute.
func (s *shop) awaitLimit(limit string) {
	s.Helper()
	eventually(s, patience, "a limit of "+limit, func() bool { return s.limit() == limit })
}

// limit is how many requests a minute the gateway says that it grants, which it
// does whether or not it grants this one: whoever waits asks often.
func (s *shop) limit() string {
	s.Helper()
	policy := s.send(http.MethodGet, "/items", access(s.user), "", "").Header.Get("RateLimit-Policy")
	_, after, _ := strings.Cut(policy, `"api";q=`)
	limit, _, _ := strings.Cut(after, ";")
	return limit
}

// subscription is the id of the subscription that the portal shows first.
func (s *shop) subscription(portal string) string {
	s.Helper()
	r := s.send(http.MethodGet, portal, "", "", "").want(s, http.StatusOK)
	_, after, _ := strings.Cut(string(r.body), `name="subscription" value="`)
	id, _, _ := strings.Cut(after, `"`)
	if !strings.HasPrefix(id, "sub_") {
		s.Fatalf("no subscription in %s", r.body)
	}
	return id
}

// The embedded default shows a purchase from start to end: the limits of the
// running gateway rise when Pro is paid for, and fall when it is cancelled.
func TestBuyAndCancel(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g, _ := startRoot(t, b.Serve(t).URL, "QUOTA_BILLING=fake "+t.TempDir()+"/fake.json")
	s := &shop{t, g, "buyer"}
	if got := s.limit(); got != "60" {
		t.Fatalf("limit %s before the purchase", got)
	}
	page := s.open("pro")
	s.send(http.MethodGet, page, "", "", "").want(t, http.StatusOK)
	s.submit(page, "do", "pay", "card", "4000000000009995").want(t, http.StatusPaymentRequired)
	if got := s.limit(); got != "60" {
		t.Fatalf("limit %s after a card that was declined", got)
	}
	thanks := s.submit(page, "do", "pay", "card", "4242 4242 4242 4242").want(t, http.StatusSeeOther).Header.Get("Location")
	s.send(http.MethodGet, thanks, "", "", "").want(t, http.StatusOK)
	s.awaitLimit("300")
	r, o := s.call("/v1/billing/create-checkout-session", map[string]string{"plan": "pro"})
	if d, _ := o["detail"].(map[string]any); r.StatusCode != http.StatusConflict || d["error"] != "already_subscribed" {
		t.Errorf("a second purchase: %d %v", r.StatusCode, o)
	}

	// At the period's end: the plan stays until the provider's clock is there.
	portal := s.portal()
	s.submit(portal, "do", "cancel_end", "subscription", s.subscription(portal)).want(t, http.StatusSeeOther)
	eventually(t, patience, "the cancellation to be known", func() bool {
		me := s.send(http.MethodGet, "/v1/subscription/me", access(s.user), "", "").want(t, http.StatusOK)
		return strings.Contains(string(me.body), `"cancel_at_period_end":true`)
	})
	if got := s.limit(); got != "300" {
		t.Errorf("limit %s before the period's end", got)
	}
	s.submit(portal, "do", "clock", "days", "31").want(t, http.StatusSeeOther)
	s.awaitLimit("60")

	// At once, with a reload and a restart in between.
	s.submit(s.open("enterprise"), "do", "pay", "card", "4242424242424242").want(t, http.StatusSeeOther)
	s.awaitLimit("1200")
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.stop()
	g.run()
	s.awaitLimit("1200")
	portal = s.portal()
	s.submit(portal, "do", "cancel_now", "subscription", s.subscription(portal)).want(t, http.StatusSeeOther)
	// What the killed process was reading is leased to it for a minute and a half.
	eventually(s, 4*patience, "a limit of 60", func() bool { return s.limit() == "60" })
}
