package billing_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/quotagate/quotagate/plugins/stripebilling"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

// guest is Stripe's client before the fake, as a config would have it.
type guest struct{ *stripebilling.Module }

func (g guest) Settings() billing.Settings { return settings() }

func (s *shop) guest() guest {
	return guest{&stripebilling.Module{APIKey: stripefake.DefaultKey, WebhookSecrets: []string{whsec}, APIBase: s.server.URL}}
}

// The service works from Start to Stop, and leaves nothing behind (goleak).
func TestServiceWorksAndStops(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	sv := billing.NewService(s.guest(), "", func() (*store.Companion, error) { return s.Companion, nil }, zap.NewNop())
	s.ok(sv.Start())
	defer sv.Stop()
	page, err := sv.Checkout(t.Context(), billing.Buyer{Account: ann, User: "ann"}, billing.Order{Plan: "pro"})
	s.ok(err)
	if _, err := s.fake.Pay(page.ID, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.fake.Take() {
		if status := sv.Receive(t.Context(), m.Payload, stripefake.Signature(m.Payload, whsec, time.Now())); status != http.StatusOK {
			t.Fatalf("answered %d", status)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		e, err := s.Entitlement(t.Context(), ann)
		s.ok(err)
		if e.Plan.Name == "pro" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the worker did not read the customer")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := sv.End(t.Context(), ann, billing.AtOnce); err != nil {
		t.Error(err)
	}
	s.want("free cancelled")
}

// played is a provider that does nothing but open.
type played struct{}

func (played) Settings() billing.Settings { return settings() }

func (played) Open(context.Context, billing.Env) (billing.Provider, error) { return nil, nil }

func (played) Pages() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
}

// Caddy may serve before it starts us: requests wait, and not for ever.
func TestRequestsWaitForTheStart(t *testing.T) {
	t.Parallel()
	noRecords := errors.New("no records")
	ask := map[string]func(context.Context, *billing.Service) (early, begun bool){
		"a user": func(ctx context.Context, sv *billing.Service) (early, begun bool) {
			_, err := sv.Checkout(ctx, billing.Buyer{Account: ann, User: "ann"}, billing.Order{Plan: "pro"})
			return billing.RefusalOf(err) == billing.ProviderDown, errors.Is(err, noRecords)
		},
		"a webhook": func(ctx context.Context, sv *billing.Service) (early, begun bool) {
			status := sv.Receive(ctx, bytes.Repeat([]byte("x"), billing.MaxWebhook+1), "")
			return status == http.StatusServiceUnavailable, status == http.StatusRequestEntityTooLarge
		},
		"a browser": func(ctx context.Context, sv *billing.Service) (early, begun bool) {
			w := httptest.NewRecorder()
			sv.Pages().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, billing.PagesPath, http.NoBody))
			return w.Code == http.StatusServiceUnavailable, w.Code == http.StatusTeapot
		},
	}
	for name, asks := range ask {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				service := func() *billing.Service {
					return billing.NewService(played{}, "", func() (*store.Companion, error) { return nil, noRecords }, zap.NewNop())
				}
				sv := service()
				var begun bool
				var asked sync.WaitGroup
				asked.Go(func() { _, begun = asks(t.Context(), sv) })
				synctest.Wait()
				time.Sleep(time.Second)
				if err := sv.Start(); err != nil {
					t.Fatal(err)
				}
				asked.Wait()
				sv.Stop()
				if !begun {
					t.Error("a request before the start was not carried out after it")
				}
				if early, _ := asks(t.Context(), service()); !early {
					t.Error("a request that no start follows was not refused")
				}
			})
		})
	}
}

// The provider's periods are those in which quotas are counted: month ends are
// clamped alike, and one follows the other without a gap.
func TestPeriodsOfProviderAndQuotas(t *testing.T) {
	t.Parallel()
	empty := template(t)
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t)
		defer w.close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		opened, closeDB := w.open(t, empty)
		defer closeDB()
		p := w.provider(ctx, t)
		desk := billing.NewDesk(opened.Companion, p, settings(), w.now, zap.NewNop())
		must := func(err error) {
			if err != nil {
				r.Fatal(err)
			}
		}
		must(w.fake.Advance(time.Duration(rapid.IntRange(0, 4*366*24*60).Draw(r, "minutes")) * time.Minute))
		page, err := desk.Checkout(ctx, ann, "pro", "")
		must(err)
		_, err = w.fake.Pay(page.ID, "pm_card_visa")
		must(err)
		last := time.Time{}
		for range rapid.IntRange(1, 14).Draw(r, "months") {
			known, err := opened.BillingAccount(ctx, ann)
			must(err)
			must(desk.Sync(ctx, known.Customer))
			e, err := opened.Entitlement(ctx, ann)
			must(err)
			sub, err := opened.CurrentSubscription(ctx, ann)
			must(err)
			begin, end := quota.PeriodBilling.Span(w.now(), e.Anchor)
			if !begin.Equal(sub.CurrentPeriodStart) || !end.Equal(sub.CurrentPeriodEnd) {
				r.Fatalf("anchor %s, now %s: quotas count %s to %s, the provider %s to %s", e.Anchor, w.now(), begin, end, sub.CurrentPeriodStart, sub.CurrentPeriodEnd)
			}
			if !last.IsZero() && !begin.Equal(last) {
				r.Fatalf("a period ends at %s, the next begins at %s", last, begin)
			}
			last = end
			at := end.Add(time.Duration(rapid.IntRange(0, 20*24*60).Draw(r, "into the next")) * time.Minute)
			must(w.fake.AdvanceTo(at))
		}
	})
}

// Every metric of billing stands in its documentation, and nothing else does.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	if err := billing.RegisterMetrics(reg); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../../docs/reference/quota-billing.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(quotagate_[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, m[1])
	}
	have := billing.MetricNames()
	slices.Sort(have)
	slices.Sort(documented)
	if diff := cmp.Diff(have, documented); diff != "" {
		t.Errorf("(-registered +documented):\n%s", diff)
	}
}
