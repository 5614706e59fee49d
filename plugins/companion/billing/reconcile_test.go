package billing_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"go.uber.org/zap"
)

func (s *shop) compare() billing.Comparison {
	s.Helper()
	c, err := s.Compare(s.Context())
	s.ok(err)
	return *c
}

// lose has the subscription end with its period, of which nothing is ever told.
func (s *shop) lose() billing.Subscription {
	s.Helper()
	sub := s.current()
	s.ok(s.provider.End(s.Context(), billing.Ending{Subscription: sub, When: billing.AtPeriodEnd}))
	s.fake.Take()
	return sub
}

// metric is the value of a gauge or counter, as it is scraped; -1: there is none.
func metric(t *testing.T, name, label string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := billing.RegisterMetrics(reg); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name && (label == "" || len(m.Label) > 0 && m.Label[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// A full comparison finds what differs in any way, though the list of events
// cannot be read, and has it mended. Not parallel: metrics are the process'.
func TestDriftIsFoundAndMended(t *testing.T) {
	s := newShop(t)
	s.buy("pro")
	_, err := s.post(t.Context(), "/v1/customers", url.Values{"email": {"stranger@example.com"}})
	s.ok(err)
	s.fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/events", Status: 500, Times: -1})
	compared := func() billing.Comparison {
		t.Helper()
		s.offset += 25 * time.Hour
		if err := s.Tick(t.Context()); err == nil || !strings.Contains(err.Error(), "listing events") {
			t.Errorf("without the list of events: %v", err)
		}
		_, c, err := billing.LastComparison(t.Context(), s.Companion)
		s.ok(err)
		return c
	}
	if c := compared(); c.Compared != 1 || c.Drifted != 0 {
		t.Errorf("%+v", c)
	}
	s.drain()
	sub := s.lose()
	c := compared()
	want := []billing.Drift{{
		Kind: billing.DriftDiffers, Subscription: sub.ID, Customer: s.customer(), Account: "ann", Fields: []string{"cancel_at_period_end"},
	}}
	if diff := cmp.Diff(want, c.Drifts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Another process shows it too, by its own next round.
	_ = s.beside(&hooked{}).Tick(t.Context()) // the list of events cannot be read
	if n := metric(t, "quotagate_billing_drift_subscriptions", billing.DriftDiffers); n != 1 {
		t.Errorf("the metric says %v", n)
	}
	s.drain()
	if c := compared(); c.Drifted != 0 {
		t.Errorf("not mended: %+v", c)
	}
	_ = s.beside(&hooked{}).Tick(t.Context())
	if n := metric(t, "quotagate_billing_drift_subscriptions", billing.DriftDiffers); n != 0 {
		t.Errorf("the metric still says %v", n)
	}
}

// What waits to be read, or was read during the comparison, is no drift.
func TestNewsAreNoDrift(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.offset = time.Minute
	s.lose()
	if c := s.compare(); c.Drifted != 1 || c.ByKind[billing.DriftDiffers] != 1 || c.ByKind[billing.DriftMissing] != 0 {
		t.Fatalf("%+v", c)
	}
	s.ok(s.RequestSync(t.Context(), s.customer(), "news"))
	if c := s.compare(); c.Drifted != 0 {
		t.Errorf("news were on their way: %+v", c)
	}
	s.drain()
	s.want("pro active")
}

// How far the provider's clock is from ours does not hide an event.
func TestListingGoesByTheProvidersClock(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.offset = 3 * time.Hour // ours is ahead
	s.buy("pro")
	s.ok(s.Tick(t.Context()))
	s.ok(s.fake.Advance(time.Hour))
	s.lose()
	s.ok(s.Tick(t.Context()))
	s.drain()
	if sub, err := s.CurrentSubscription(t.Context(), ann); err != nil || !sub.CancelAtPeriodEnd {
		t.Errorf("%+v, %v", sub, err)
	}
}

// Renewals of which nothing was told are read when they are over.
func TestOverdueRenewalIsRead(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.buy("pro")
	s.ok(s.Tick(t.Context()))
	s.drain()
	before, err := s.CurrentSubscription(t.Context(), ann)
	s.ok(err)
	s.ok(s.fake.Advance(28*day + 2*time.Hour))
	s.fake.Take() // lost
	s.fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/events", Status: 500, Times: -1})
	s.fake.Inject(stripefake.Fault{Method: http.MethodGet, Path: "/v1/subscriptions", Status: 500}) // the comparison fails as well
	if err := s.Tick(t.Context()); err == nil || !strings.Contains(err.Error(), "listing subscriptions") {
		t.Errorf("without its lists: %v", err)
	}
	s.drain()
	after, err := s.CurrentSubscription(t.Context(), ann)
	if err != nil || !after.CurrentPeriodStart.Equal(before.CurrentPeriodEnd) {
		t.Errorf("%+v, %v", after, err)
	}
}

// Missed are events that an endpoint which is set up as documented should have been
// sent, since we look: neither the other ones, nor those from before there was an
// endpoint, nor those that may yet be on their way. Not parallel: metrics are the
// process'.
func TestOnlyWhatShouldHaveComeIsMissed(t *testing.T) {
	s := newShop(t)
	before := max(0, metric(t, "quotagate_billing_webhooks_total", "missed"))
	missed := func(want float64) {
		t.Helper()
		if n := max(0, metric(t, "quotagate_billing_webhooks_total", "missed")) - before; n != want {
			t.Errorf("%v webhooks count as missed, want %v", n, want)
		}
	}
	list := func(after time.Duration) {
		t.Helper()
		s.ok(s.fake.Advance(after))
		s.ok(s.Tick(t.Context()))
		s.drain()
	}
	page, err := s.Checkout(t.Context(), ann, "enterprise", "")
	s.ok(err)
	_, err = s.fake.Pay(page.ID, "pm_card_visa")
	s.ok(err)
	s.fake.Take() // there was no endpoint yet
	list(2 * minute)
	s.want("enterprise active")
	missed(0)
	s.ok(s.fake.Advance(11 * minute))
	s.ok(s.Change(t.Context(), ann, "enterprise", "year"))
	list(0)
	for _, m := range s.fake.Take() {
		for _, asked := range []string{"customer.subscription.", "invoice.", "checkout.session.", "charge.dispute.", "customer.deleted"} {
			if strings.HasPrefix(m.Type, asked) {
				s.deliver(m)
			}
		}
	}
	list(11 * minute)
	missed(0)
	s.lose()
	list(11 * minute)
	missed(1)
	list(11 * minute)
	missed(1)
}

// One process does the jobs, however long they take it.
func TestOneProcessReconciles(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	held, err := s.TakeLease(t.Context(), "billing_jobs", "another", time.Minute)
	if err != nil || !held {
		t.Fatalf("%v, %v", held, err)
	}
	s.ok(s.Tick(t.Context()))
	if mark, err := s.BillingMark(t.Context(), "compared"); err != nil || mark != nil {
		t.Errorf("compared beside another: %+v, %v", mark, err)
	}
	s.offset = 2 * time.Minute // that one was killed
	s.ok(s.Tick(t.Context()))
	if mark, err := s.BillingMark(t.Context(), "compared"); err != nil || mark == nil {
		t.Errorf("not compared: %v", err)
	}
}

// hanging is a provider whose list of events does not end by itself.
type hanging struct {
	billing.Provider
	began chan struct{}
}

func (h *hanging) Events(ctx context.Context, _ time.Time, _ func(billing.Event) error) error {
	close(h.began)
	<-ctx.Done()
	return context.Cause(ctx)
}

// A job that takes long asks for its lease again and again. Where another process
// has it by then, this one ends.
func TestJobsEndWithTheirLease(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	p := &hanging{s.provider, make(chan struct{})}
	s.Desk = billing.NewDesk(s.Companion, p, settings(), s.now, zap.NewNop())
	s.LeaseFor(20 * time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- s.Tick(t.Context()) }()
	<-p.began
	for held := false; !held; { // it may take it back in between
		s.ok(s.ReleaseLease(t.Context(), "billing_jobs", s.Holder()))
		var err error
		held, err = s.TakeLease(t.Context(), "billing_jobs", "another", time.Hour)
		s.ok(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "lease of billing's jobs was lost") {
		t.Errorf("ended with %v", err)
	}
	if held, err := s.TakeLease(t.Context(), "billing_jobs", "a third", time.Hour); err != nil || held {
		t.Errorf("the lease of another was given back: %v", err)
	}
}
