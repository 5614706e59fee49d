package stripefake_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/stripe/stripe-go/v86"
)

func TestBooksSurviveARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "books", "fake.json")
	persisted := func(o *stripefake.Options) { o.File = file }
	w := newWorld(t, persisted)
	c := w.customer("pm_card_visa")
	s := w.subscribe(c.ID, "pro_monthly")
	w.advance(10 * day)
	must(create(w, w.client, "b@example.com", "key"))(t)

	again := newWorld(t, persisted)
	if !again.fake.Now().Equal(w.fake.Now()) {
		t.Errorf("the clock went from %s to %s", w.fake.Now(), again.fake.Now())
	}
	again.want(s.ID, stripe.SubscriptionStatusActive)
	if got := must(create(again, again.client, "b@example.com", "key"))(t); got.LastResponse.Header.Get("Idempotent-Replayed") != "true" {
		t.Error("the idempotency key is forgotten")
	}
	if got := len(again.fake.Take()); got == 0 {
		t.Error("messages that waited are gone")
	}
	again.advance(30 * day)
	again.want(s.ID, stripe.SubscriptionStatusActive)
	if left, err := filepath.Glob(file + "?*"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}

	for name, content := range map[string]string{"broken": `{"Seed":`, "not whole": `{"Seed":"x"}`, "another": `{"Seed":"x","Test":{"Customers":[{}]},"Live":{}}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := stripefake.New(stripefake.Options{File: file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBooksThatCannotBeKept(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "file")
	w := newWorld(t, func(o *stripefake.Options) { o.File = filepath.Join(blocked, "fake.json") })
	if err := os.RemoveAll(blocked); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := create(w, w.client, "a@example.com", "")
	refused(t, err, 500, stripe.ErrorTypeAPI, "")
	if err := w.fake.Advance(time.Hour); err == nil {
		t.Error("the clock moved, and is not kept")
	}
}

func TestDeliveryIsRepeated(t *testing.T) {
	t.Parallel()
	var calls, good atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		good.Add(1)
	}))
	defer receiver.Close()
	var now atomic.Int64
	now.Store(start.Unix())
	fake, err := stripefake.New(stripefake.Options{
		Clock:     func() time.Time { return time.Unix(now.Load(), 0) },
		Receivers: []stripefake.Receiver{{Name: "http", Secret: secret, Types: []string{"price.created"}, Send: stripefake.Post(http.DefaultClient, receiver.URL)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Seed([]stripefake.Seed{{"Pro", "pro_monthly", "usd", "month", 1999}}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ wait, calls, good int }{{0, 1, 0}, {0, 1, 0}, {1, 2, 0}, {1, 2, 0}, {1, 3, 1}, {100, 3, 1}} {
		now.Add(int64(step.wait))
		fake.Deliver(t.Context())
		if int(calls.Load()) != step.calls || int(good.Load()) != step.good {
			t.Fatalf("at %d: %d calls, %d of them good; want %+v", now.Load()-start.Unix(), calls.Load(), good.Load(), step)
		}
	}
}

func TestDeliveryIsGivenUp(t *testing.T) {
	t.Parallel()
	var now, calls atomic.Int64
	now.Store(start.Unix())
	fake, err := stripefake.New(stripefake.Options{
		Clock: func() time.Time { return time.Unix(now.Load(), 0) },
		Receivers: []stripefake.Receiver{{Name: "down", Types: []string{"price.created"}, Send: func(context.Context, []byte, string) error {
			calls.Add(1)
			return errors.New("down")
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Seed([]stripefake.Seed{{"Pro", "pro_monthly", "usd", "month", 1999}}); err != nil {
		t.Fatal(err)
	}
	for range 10 * 24 * 4 {
		fake.Deliver(t.Context())
		now.Add(900)
	}
	if n := calls.Load(); n < 15 || n > 40 {
		t.Errorf("%d attempts in three days", n)
	}
	before := calls.Load()
	now.Add(10 * 86400)
	fake.Deliver(t.Context())
	if calls.Load() != before {
		t.Error("after thirteen days it is still tried")
	}
}

func TestRunDoesWhatFallsDue(t *testing.T) {
	t.Parallel()
	got := make(chan string, 100)
	fake, err := stripefake.New(stripefake.Options{
		Receivers: []stripefake.Receiver{{Name: "here", Secret: secret, Send: func(_ context.Context, payload []byte, signature string) error {
			e, err := stripe.ConstructEvent(payload, signature, secret)
			got <- string(e.Type)
			return err
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		fake.Run(ctx)
	}()
	if err := fake.Seed([]stripefake.Seed{{"Pro", "pro_monthly", "usd", "month", 1999}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"product.created", "price.created"} {
		select {
		case kind := <-got:
			if kind != want {
				t.Errorf("got %s, want %s", kind, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	if err := fake.Advance(-time.Second); err == nil {
		t.Error("the clock went back")
	}
	cancel()
	<-done
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := stripefake.New(stripefake.Options{AfterRetries: "forgotten"}); err == nil {
		t.Error("an unknown end of the retries was taken")
	}
}
