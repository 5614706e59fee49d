package stripefake_test

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

// page is what a browser without scripts has of an answer.
type page struct {
	status             int
	location, text     string
	header             http.Header
	problem, note, doc string
}

func (w *world) browse(method, address string, form url.Values) page {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		w.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	p := page{status: res.StatusCode, location: res.Header.Get("Location"), header: res.Header, doc: string(body)}
	p.text = html.UnescapeString(string(body))
	p.problem = first(p.text, `role="alert">([^<]*)`)
	p.note = first(p.text, `role="status">([^<]*)`)
	return p
}

func first(text, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// site puts the addresses of pages on the test's server.
func (w *world) page(address string) string { return w.url + strings.TrimPrefix(address, "/fake") }

func mounted(o *stripefake.Options) { o.BaseURL = "/fake" }

func TestPaymentPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted)
	s := w.session(func(p *stripe.CheckoutSessionCreateParams) { p.SubscriptionData.Description = stripe.String("x") })
	address := w.page(s.URL)
	p := w.browse("GET", address, nil)
	for _, want := range []string{"Subscribe to Pro", "$19.99", "Pay $19.99", "4000 0000 0000 9995", `href="https://app.example/pricing"`} {
		if !strings.Contains(p.text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(p.doc, "<script") || !strings.Contains(p.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("scripts: %s", p.header.Get("Content-Security-Policy"))
	}
	if p := w.browse("GET", w.url+"/style.css", nil); p.status != 200 || p.header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("style: %d", p.status)
	}
	for card, want := range map[string]string{
		"4000 0000 0000 9995": "Your card has insufficient funds.",
		"4111111111111111":    "Your card number is not one of the test cards.",
		"":                    "Your card number is missing.",
		"<script>":            "Your card number is not one of the test cards.",
	} {
		if p := w.browse("POST", address, url.Values{"card": {card}}); p.status != 402 || p.problem != want || strings.Contains(p.doc, "<script") {
			t.Errorf("card %q: %d %q", card, p.status, p.problem)
		}
	}
	if p := w.browse("POST", address, url.Values{"card": {strings.Repeat("4", 20<<10)}}); p.status != 400 {
		t.Errorf("a large form: %d", p.status)
	}
	p = w.browse("POST", address, url.Values{"card": {"4242 4242 4242 4242"}})
	if p.status != 303 || p.location != "https://app.example/done?id="+s.ID {
		t.Fatalf("paid: %d %q", p.status, p.location)
	}
	if p := w.browse("POST", address, url.Values{"card": {"4242424242424242"}}); p.status != 409 || p.note != "This was paid. Thank you." {
		t.Errorf("paid twice: %d %q", p.status, p.note)
	}
	if p := w.browse("GET", w.url+"/thanks/"+s.ID, nil); p.status != 200 || !strings.Contains(p.text, "You have Pro") {
		t.Errorf("thanks: %d", p.status)
	}
	for _, path := range []string{"/pay/cs_test_x", "/thanks/cs_test_x", "/portal/x", "/invoice/in_x.y", "/"} {
		if p := w.browse("GET", w.url+path, nil); p.status != 404 {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	late := w.session()
	w.advance(day)
	if p := w.browse("GET", w.url+"/pay/"+late.ID, nil); !strings.HasPrefix(p.note, "The time to pay is over") {
		t.Errorf("late: %q", p.note)
	}
}

// portal opens the customer's portal and answers what its forms do.
func (w *world) portal(customer string) func(form ...string) page {
	w.Helper()
	p := must(w.client.V1BillingPortalSessions.Create(w.Context(), &stripe.BillingPortalSessionCreateParams{Customer: &customer}))(w)
	address := w.page(p.URL)
	return func(form ...string) page {
		w.Helper()
		if len(form) == 0 {
			return w.browse("GET", address, nil)
		}
		values := url.Values{}
		for i := 0; i < len(form); i += 2 {
			values.Set(form[i], form[i+1])
		}
		p := w.browse("POST", address, values)
		if p.status != 303 {
			return p
		}
		base, err := url.Parse(address)
		if err != nil {
			w.Fatal(err)
		}
		to, err := base.Parse(p.location)
		if err != nil || to.Path != base.Path {
			w.Fatalf("sent to %q, %v", p.location, err)
		}
		return w.browse("GET", to.String(), nil)
	}
}

func TestPortalPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	do := w.portal(c.ID)
	if p := do(); !strings.Contains(p.text, "renews on 28 February 2026") || !strings.Contains(p.text, "Visa that ends in 4242") || !strings.Contains(p.text, "a@example.com") {
		t.Errorf("portal %s", p.text)
	}
	act := func(name string, more ...string) page {
		return do(append([]string{"do", name, "subscription", s.ID}, more...)...)
	}
	if p := act("cancel_end"); p.note != "The subscription will end with its period." || !strings.Contains(p.text, "ends on 28 February 2026") {
		t.Errorf("cancelled: %q", p.note)
	}
	if p := act("resume"); p.note == "" || w.subscription(s.ID).CancelAtPeriodEnd {
		t.Errorf("resumed: %q", p.note)
	}
	if p := act("change", "price", w.prices["enterprise_monthly"].ID); p.note != "The plan was changed." {
		t.Errorf("changed: %q %q", p.note, p.problem)
	}
	if key := w.subscription(s.ID).Items.Data[0].Price.LookupKey; key != "enterprise_monthly" {
		t.Errorf("price %s", key)
	}
	if p := act("change", "price", w.prices["pro_monthly"].ID); !strings.Contains(p.text, "Changes to Pro, $19.99 each month, on 28 February 2026.") {
		t.Errorf("downgrade: %q %q", p.note, p.problem)
	}
	if p := act("cancel_end"); p.note == "" || w.subscription(s.ID).Schedule != nil {
		t.Errorf("cancelled with a change that waits: %q %q", p.note, p.problem)
	}
	act("resume")
	act("change", "price", w.prices["pro_monthly"].ID)
	if p := act("stay"); p.note != "The plan stays as it is." || w.subscription(s.ID).Schedule != nil {
		t.Errorf("stay: %q", p.note)
	}
	if p := act("cancel_now"); p.note != "The subscription has ended." {
		t.Errorf("ended: %q", p.note)
	}
	w.want(s.ID, stripe.SubscriptionStatusCanceled)
	for name, form := range map[string][]string{
		"after its end":      {"do", "resume", "subscription", s.ID},
		"another's":          {"do", "cancel_now", "subscription", w.subscribe(w.customer("pm_card_visa").ID, "pro_monthly").ID},
		"nonsense":           {"do", "dance", "subscription", w.subscribe(c.ID, "pro_monthly").ID},
		"a price unknown":    {"do", "change", "price", "price_x", "subscription", w.subscribe(c.ID, "pro_monthly").ID},
		"no invoice":         {"do", "collect", "invoice", s.LatestInvoice.ID},
		"a card unknown":     {"do", "card", "card", "4111111111111111"},
		"a card refused":     {"do", "card", "card", "4000000000000002"},
		"the clock back":     {"do", "clock", "days", "-1"},
		"the clock too far":  {"do", "clock", "days", "1000000000"},
		"the clock nonsense": {"do", "clock", "days", "x"},
	} {
		if p := do(form...); p.status/100 != 4 || p.problem == "" {
			t.Errorf("%s: %d %q", name, p.status, p.problem)
		}
	}
}

func TestPortalPaysAndMovesTheClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted, func(o *stripefake.Options) { o.Clock = func() time.Time { return start } })
	c := w.customer("pm_card_chargeCustomerFail")
	s := w.subscribe(c.ID, "pro_monthly", func(p *stripe.SubscriptionCreateParams) { p.TrialPeriodDays = stripe.Int64(7) })
	do := w.portal(c.ID)
	do("do", "clock", "days", "31")
	w.want(s.ID, stripe.SubscriptionStatusCanceled)
	s = w.subscribe(c.ID, "pro_monthly", func(p *stripe.SubscriptionCreateParams) { p.TrialPeriodDays = stripe.Int64(1) })
	if p := do("do", "clock", "days", "1"); p.note != "The clock was moved." {
		t.Errorf("clock: %q %q", p.note, p.problem)
	}
	do("do", "clock", "days", "1")
	s = w.want(s.ID, stripe.SubscriptionStatusPastDue)
	if p := do("do", "collect", "invoice", s.LatestInvoice.ID); p.status != 402 || p.problem != "Your card was declined." {
		t.Errorf("collected: %d %q", p.status, p.problem)
	}
	if p := do("do", "card", "card", "5555 5555 5555 4444"); p.note == "" || !strings.Contains(p.text, "Mastercard that ends in 4444") {
		t.Errorf("card: %q %q", p.note, p.problem)
	}
	p := do("do", "collect", "invoice", s.LatestInvoice.ID)
	if p.note != "The invoice was paid." {
		t.Errorf("collected: %q %q", p.note, p.problem)
	}
	w.want(s.ID, stripe.SubscriptionStatusActive)
	if link := first(p.text, `href="\.\./(invoice/[^"]+)"`); link == "" {
		t.Error("no link to an invoice")
	} else if p := w.browse("GET", w.url+"/"+link, nil); p.status != 200 || !strings.Contains(p.text, "1 × Pro (at $19.99 / month)") {
		t.Errorf("invoice: %d %s", p.status, p.text)
	}
}

// A form that another site sends is not carried out, whatever it knows.
func TestFormsOfOtherSites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted)
	s := w.session()
	for from, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 303} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.page(s.URL), strings.NewReader("card=4242424242424242"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", from)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", from, res.StatusCode, want)
		}
		if from == "same-origin" {
			s = w.session() // that one was paid
		}
	}
}

// What people call things is text on a page, and leads nowhere.
func TestPagesEscape(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted)
	const evil = `"><script>alert(1)</script>`
	c := must(w.client.V1Customers.Create(t.Context(), &stripe.CustomerCreateParams{Email: stripe.String(evil), Name: stripe.String(evil)}))(w)
	p := must(w.client.V1BillingPortalSessions.Create(t.Context(), &stripe.BillingPortalSessionCreateParams{
		Customer: &c.ID, ReturnURL: stripe.String("javascript:alert(1)"),
	}))(w)
	page := w.browse("GET", w.page(p.URL)+"?done="+url.QueryEscape(evil), nil)
	if page.status != 200 || strings.Contains(page.doc, "<script") || strings.Contains(page.doc, "href=\"javascript") || page.note != "" {
		t.Errorf("%d %q: %s", page.status, page.note, page.doc)
	}
	if !strings.Contains(page.text, evil) {
		t.Error("the page does not say who it is")
	}
}

func TestPortalAddressExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mounted)
	do := w.portal(w.customer("pm_card_visa").ID)
	w.advance(time.Hour - time.Second)
	if p := do(); p.status != 200 {
		t.Errorf("within the hour: %d", p.status)
	}
	w.advance(time.Second)
	for _, p := range []page{do(), do("do", "clock", "days", "1"), do("do", "card", "card", "4242424242424242")} {
		if p.status != 404 {
			t.Errorf("after an hour: %d", p.status)
		}
	}
}
