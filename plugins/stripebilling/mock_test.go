package stripebilling

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/stripe/stripe-go/v86"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// builtMock is Stripe's own mock: it knows the API's description, and refuses
// requests that are not of that shape or version. It keeps no state.
var builtMock = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "stripe-mock")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "stripe-mock")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", bin, "github.com/stripe/stripe-mock")
	cmd.Dir = filepath.Join("testdata", "stripemock")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return bin, nil
})

// startMock starts it on a free port, and stops it with the test.
func startMock(t *testing.T) string {
	t.Helper()
	bin, err := builtMock()
	if err != nil {
		t.Fatalf("building stripe-mock: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-http-addr", "127.0.0.1:0", "-strict-version-check")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, addr, ok := strings.Cut(lines.Text(), "address: "); ok {
			var read sync.WaitGroup
			read.Go(func() {
				for lines.Scan() { // what it says of requests
					_ = lines.Text()
				}
			})
			t.Cleanup(func() {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				read.Wait()
				_ = cmd.Wait() // killed
			})
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			return "http://127.0.0.1:" + port
		}
	}
	t.Fatalf("stripe-mock did not start: %v", lines.Err())
	return ""
}

func TestRequestShapes(t *testing.T) {
	c := newClient("sk_test_123", startMock(t), []string{"whsec_1234567890"})
	defer closeIdle(c)
	ctx := t.Context()
	now := time.Now().UTC().Truncate(time.Second)
	item := billing.Item{ItemID: "si_1", PriceID: "price_1", Quantity: 1, PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0)}
	sub := billing.Subscription{
		ID: "sub_1", Customer: "cus_1", Status: "active", Item: item, Items: []billing.Item{item, {ItemID: "si_2", PriceID: "price_3"}},
		TrialEnd: now.AddDate(0, 1, 0),
	}
	trial, scheduled, ending := sub, sub, sub
	trial.Status, scheduled.Schedule, ending.CancelAtPeriodEnd = "trialing", "sub_sched_1", true
	change := func(s billing.Subscription, atEnd bool) billing.PlanChange {
		return billing.PlanChange{Subscription: s, Price: billing.Price{ID: "price_2"}, Quantity: 2, AtPeriodEnd: atEnd, Key: "key"}
	}
	for name, call := range map[string]func() error{
		"customer": func() error {
			id, err := c.CreateCustomer(ctx, billing.NewCustomer{Account: "user:a", Email: "a@example.com", Key: "k"})
			return orEmpty(id, err)
		},
		"checkout": func() error {
			page, err := c.CreateCheckout(ctx, billing.NewCheckout{
				Customer: "cus_1", Account: "user:a", Price: billing.Price{LookupKey: "pro_monthly"}, Quantity: 1, TrialDays: 14,
				SuccessURL: "https://a.example/ok?s={CHECKOUT_SESSION_ID}", CancelURL: "https://a.example/no", Key: "k",
			})
			return orEmpty(page.ID, err)
		},
		"closing a page": func() error { return c.CloseCheckout(ctx, "cs_1") },
		"portal":         func() error { url, err := c.CreatePortal(ctx, "cus_1", "https://a.example"); return orEmpty(url, err) },
		"items beyond the first": func() error {
			items, err := c.items(ctx, &stripe.Subscription{ID: "sub_1", Items: &stripe.SubscriptionItemList{ListMeta: stripe.ListMeta{HasMore: true}}})
			if err == nil && len(items) == 0 {
				err = errors.New("there are none")
			}
			return err
		},
		"subscriptions":              func() error { _, err := c.Subscriptions(ctx, "cus_1"); return err },
		"one subscription":           func() error { _, err := c.read(ctx, "sub_1"); return err },
		"all subscriptions":          func() error { return c.AllSubscriptions(ctx, func(billing.Subscription) error { return nil }) },
		"invoices":                   func() error { _, err := c.Invoices(ctx, "cus_1"); return err },
		"events":                     func() error { return c.Events(ctx, now, func(billing.Event) error { return nil }) },
		"preview":                    func() error { _, err := c.PreviewPlan(ctx, change(sub, false)); return err },
		"change at once":             func() error { return c.ChangePlan(ctx, change(scheduled, false)) },
		"change of one that ends":    func() error { return c.ChangePlan(ctx, change(ending, false)) },
		"change at the period's end": func() error { return c.ChangePlan(ctx, change(sub, true)) },
		"change of a trial":          func() error { return c.ChangePlan(ctx, change(trial, true)) },
		"change of a scheduled one":  func() error { return c.ChangePlan(ctx, change(scheduled, true)) },
		"cancel now":                 func() error { return c.End(ctx, billing.Ending{Subscription: sub, When: billing.AtOnce, Key: "k"}) },
		"cancel later": func() error {
			return c.End(ctx, billing.Ending{Subscription: scheduled, When: billing.AtPeriodEnd, Key: "k"})
		},
		"resume":     func() error { return c.End(ctx, billing.Ending{Subscription: ending, When: billing.Never}) },
		"a customer": func() error { return c.known(ctx, "cus_1") },
	} {
		t.Run(name, func(t *testing.T) {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
	}
	// The mock refuses what the API does not have: this test would notice.
	p := c.subscriptionList()
	p.Filters.AddFilter("no_such_parameter", "", "1")
	for _, err := range c.api.V1Subscriptions.List(ctx, p).All(ctx) {
		if err == nil {
			t.Error("the mock accepts whatever it is sent")
		}
		break
	}
}

func orEmpty(s string, err error) error {
	if err == nil && s == "" {
		return errors.New("nothing was answered")
	}
	return err
}
