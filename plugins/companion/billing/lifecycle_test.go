package billing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"go.uber.org/zap"
	_ "modernc.org/sqlite"
	"pgregory.net/rapid"
)

// life is one generated lifecycle.
type life struct {
	*rapid.T
	ctx      context.Context
	w        *world
	account  quota.Subject
	orderly  follower // is told everything, once, at once
	chaotic  follower // is told badly, and killed
	late     follower // is told nothing, and reads at the end
	provider billing.Provider
	customer string
	seen     func(event string)
	pending  []stripefake.Message // of the chaotic one
	zombies  []func() error       // writes of processes that were killed, or thought so
	script   []string
}

func (l *life) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatalf("after %s: %v", strings.Join(l.script, ", "), err)
	}
}

// refused lets pass what the provider or we may well refuse.
func (l *life) refused(err error) {
	l.Helper()
	for _, kind := range []error{
		nil, billing.ErrDeclined, billing.ErrRefused, billing.ErrSubscribed, billing.ErrNothingPaid, billing.ErrSamePlan,
	} {
		if errors.Is(err, kind) {
			return
		}
	}
	if !strings.Contains(err.Error(), "never bought") {
		l.ok(err)
	}
}

// act is one thing that happens.
func (l *life) act() {
	acts := []struct {
		name string
		do   func()
	}{
		{"buy pro", func() { l.buy("pro", "month") }},
		{"buy enterprise", func() { l.buy("enterprise", "month") }},
		{"buy a year", func() { l.buy("pro", "year") }},
		{"subscribe once more", func() { l.subscribe(rapid.SampledFrom([]string{"pro_monthly", "enterprise_monthly"}).Draw(l.T, "key")) }},
		{"subscribe to an unknown price", func() { l.subscribe("mystery") }},
		{"begin a trial", func() { l.subscribe("pro_monthly", "trial_period_days", "7") }},
		{"a minute", func() { l.ok(l.w.fake.Advance(minute)) }},
		{"days", func() { l.ok(l.w.fake.Advance(time.Duration(rapid.IntRange(1, 12).Draw(l.T, "days")) * day)) }},
		{"a month", func() { l.ok(l.w.fake.Advance(31 * day)) }},
		{"payments fail", func() { l.fail("insufficient_funds") }},
		{"payments are well", func() { l.fail("") }},
		{"to enterprise", func() { l.refused(l.orderly.Change(l.ctx, l.account, "enterprise", "")) }},
		{"to pro", func() { l.refused(l.orderly.Change(l.ctx, l.account, "pro", "")) }},
		{"to an unknown price", func() { l.item("mystery") }},
		{"cancel at the end", func() { l.refused(l.orderly.End(l.ctx, l.account, billing.AtPeriodEnd)) }},
		{"cancel now", func() { l.refused(l.orderly.End(l.ctx, l.account, billing.AtOnce)) }},
		{"resume", func() { l.refused(l.orderly.End(l.ctx, l.account, billing.Never)) }},
		{"refund", func() { l.charge(func(id string) { l.try("/v1/refunds", url.Values{"charge": {id}}) }) }},
		{"dispute", func() { l.charge(func(id string) { _, _ = l.w.fake.OpenDispute(id, "fraudulent") }) }},
	}
	a := acts[rapid.IntRange(0, len(acts)-1).Draw(l.T, "act")]
	l.script = append(l.script, a.name)
	a.do()
}

// try calls the API; what it refuses has not happened.
func (l *life) try(path string, form url.Values) map[string]any {
	v, err := l.w.post(l.ctx, path, form)
	if err != nil && !strings.Contains(err.Error(), "answered 4") {
		l.ok(err)
	}
	return v
}

func (l *life) fail(code string) {
	if l.customer != "" {
		l.ok(l.w.fake.FailPayments(l.customer, code))
	}
}

// begin makes the account a customer, which all installations know.
func (l *life) begin() {
	if l.customer != "" {
		return
	}
	known, err := l.orderly.BillingAccount(l.ctx, l.account)
	l.ok(err)
	if l.customer = known.Customer; l.customer == "" {
		return
	}
	for _, f := range []follower{l.chaotic, l.late} {
		_, err := f.SetCustomer(l.ctx, l.account, l.customer)
		l.ok(err)
	}
	method := l.try("/v1/payment_methods/pm_card_visa/attach", url.Values{"customer": {l.customer}})
	if method != nil {
		l.try("/v1/customers/"+l.customer, url.Values{"invoice_settings[default_payment_method]": {method["id"].(string)}})
	}
}

func (l *life) buy(plan, interval string) {
	s, err := l.orderly.Checkout(l.ctx, l.account, plan, interval)
	l.begin()
	if err != nil {
		l.refused(err)
		return
	}
	if _, err := l.w.fake.Pay(s.ID, "pm_card_visa"); err != nil && !errors.As(err, new(*stripefake.Declined)) {
		l.ok(err)
	}
}

// price is the id of the price that a lookup key finds.
func (l *life) price(key string) string {
	v := l.try("/v1/prices?lookup_keys[]="+key, nil)
	return v["data"].([]any)[0].(map[string]any)["id"].(string)
}

func (l *life) subscribe(key string, more ...string) {
	if l.customer == "" {
		return
	}
	form := url.Values{"customer": {l.customer}, "items[0][price]": {l.price(key)}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	l.try("/v1/subscriptions", form)
}

// item moves the first subscription to another price, as the dashboard can.
func (l *life) item(key string) {
	if l.customer == "" {
		return
	}
	subs, err := l.provider.Subscriptions(l.ctx, l.customer)
	l.ok(err)
	if len(subs) > 0 {
		l.try("/v1/subscriptions/"+subs[0].ID, url.Values{"items[0][id]": {subs[0].ItemID}, "items[0][price]": {l.price(key)}})
	}
}

func (l *life) charge(do func(id string)) {
	if l.customer == "" {
		return
	}
	list := l.try("/v1/charges?customer="+l.customer, nil)["data"].([]any)
	if len(list) > 0 {
		do(list[0].(map[string]any)["id"].(string))
	}
}

// tell delivers a message as it would come now: signed when it is sent.
func (l *life) tell(f follower, m stripefake.Message) {
	l.Helper()
	now := l.w.now()
	if status := f.Receive(l.ctx, m.Payload, stripefake.Signature(m.Payload, whsec, now)); status != http.StatusOK {
		l.Fatalf("%s was answered %d", m.Type, status)
	}
}

// drain reads all that is due.
func (l *life) drain(f follower) {
	for {
		n, err := f.Round(l.ctx)
		l.ok(err)
		if n == 0 {
			return
		}
	}
}

// spread tells of what happened: one in order, the other as it comes.
func (l *life) spread() {
	messages := l.w.fake.Take()
	for _, m := range messages {
		l.seen(m.Type)
		l.tell(l.orderly, m)
	}
	l.drain(l.orderly)
	l.pending = append(l.pending, messages...)
	for range rapid.IntRange(0, 6).Draw(l.T, "troubles") {
		l.trouble()
	}
}

func (l *life) trouble() {
	n := len(l.pending)
	switch rapid.IntRange(0, 8).Draw(l.T, "trouble") {
	case 0, 1: // any of them, and it may come again
		if n > 0 {
			l.tell(l.chaotic, l.pending[rapid.IntRange(0, n-1).Draw(l.T, "which")])
		}
	case 2: // the last comes first, and once
		if n > 0 {
			l.tell(l.chaotic, l.pending[n-1])
			l.pending = l.pending[:n-1]
		}
	case 3: // one is lost for good
		if n > 0 {
			i := rapid.IntRange(0, n-1).Draw(l.T, "lost")
			l.pending = append(l.pending[:i:i], l.pending[i+1:]...)
		}
	case 4: // the worker is killed; what it has read may be written yet
		late, err := l.chaotic.Killed(l.ctx)
		l.ok(err)
		l.zombies = append(l.zombies, late)
		l.chaotic.Desk = billing.NewDesk(l.chaotic.Companion, l.provider, settings(), l.w.now, zap.NewNop())
	case 5:
		if z := len(l.zombies); z > 0 {
			i := rapid.IntRange(0, z-1).Draw(l.T, "zombie")
			l.ok(l.zombies[i]())
		}
	case 6:
		_, err := l.chaotic.Round(l.ctx)
		l.ok(err)
	case 7:
		l.ok(l.chaotic.Tick(l.ctx))
	case 8: // killed before it has read anything
		_, err := l.chaotic.Die(l.ctx)
		l.ok(err)
		l.chaotic.Desk = billing.NewDesk(l.chaotic.Companion, l.provider, settings(), l.w.now, zap.NewNop())
	}
}

// end lets everybody come to rest.
func (l *life) end() {
	l.w.offset += 10 * minute // leases of the killed have run out
	l.ok(l.chaotic.Tick(l.ctx))
	l.drain(l.chaotic)
	for _, z := range l.zombies {
		l.ok(z())
	}
	l.w.offset += day // the nightly comparison
	l.ok(l.chaotic.Tick(l.ctx))
	l.drain(l.chaotic)
	if l.customer != "" {
		l.ok(l.late.Sync(l.ctx, l.customer))
	}
}

// wanted is the plan by the rule as it is written, from what the provider has.
func (l *life) wanted() string {
	if l.customer == "" {
		return "free"
	}
	subs, err := l.provider.Subscriptions(l.ctx, l.customer)
	l.ok(err)
	invoices, err := l.provider.Invoices(l.ctx, l.customer)
	l.ok(err)
	ranks := map[string]int{"active": 300, "trialing": 200, "past_due": 100}
	tiers := map[string]int{"pro_monthly": 10, "pro_yearly": 10, "enterprise_monthly": 20, "enterprise_yearly": 20}
	best, plan := 0, "free"
	for _, s := range subs {
		rank, tier := ranks[s.Status], tiers[s.LookupKey]
		if rank == 0 || tier == 0 || rank+tier <= best {
			continue
		}
		best, plan = rank+tier, strings.Split(s.LookupKey, "_")[0]
		now := l.w.now()
		switch {
		case s.CancelAtPeriodEnd && !now.Before(s.PeriodEnd), s.Status == "trialing" && !now.Before(s.TrialEnd):
			plan = "free"
		case s.Status == "past_due":
			var since time.Time
			for _, in := range invoices {
				if in.Subscription == s.ID && in.Status == "open" && (since.IsZero() || in.FinalizedAt.Before(since)) {
					since = in.FinalizedAt
				}
			}
			if now.Sub(since) >= store.DefaultGrace {
				plan = "free"
			}
		}
		if at := s.PendingAt; plan != "free" && !at.IsZero() && !now.Before(at) {
			plan = strings.Split(s.PendingLookupKey, "_")[0]
		}
	}
	return plan
}

func (l *life) compare() {
	want, err := l.late.history(l.ctx, l.account)
	l.ok(err)
	for name, f := range map[string]follower{"in order": l.orderly, "in disorder": l.chaotic} {
		got, err := f.history(l.ctx, l.account)
		l.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			l.Errorf("told %s, the state differs from the one that is read at the end:\n%s", name, diff)
		}
		e, err := f.Entitlement(l.ctx, l.account)
		l.ok(err)
		if plan := l.wanted(); e.Plan.Name != plan {
			l.Errorf("told %s, the plan is %s, want %s", name, e.Plan.Name, plan)
		}
	}
	if l.Failed() {
		l.Logf("the life: %s", strings.Join(l.script, ", "))
	}
}

// opener opens records of their own on a world's clock.
type opener func(t testing.TB, w *world) (*records, func())

func onSQLite(t testing.TB) opener {
	t.Helper()
	empty := template(t)
	return func(t testing.TB, w *world) (*records, func()) { return w.open(t, empty) }
}

func onPostgres(t *testing.T) opener {
	t.Helper()
	server := gatetest.Postgres(t)
	return func(_ testing.TB, w *world) (*records, func()) {
		db := server.Open(t, store.Schema)
		if err := store.Migrate(t.Context(), db, store.Postgres, "up", io.Discard); err != nil {
			t.Fatal(err)
		}
		return &records{store.ForCompanion(store.New(db, store.Options{Engine: store.Postgres, Now: w.now})), db}, func() {}
	}
}

// lifecycle is the property: whatever becomes of the events, the state is the same.
func lifecycle(t *testing.T, open opener, seen func(event string)) func(*rapid.T) {
	return func(r *rapid.T) {
		w := newWorld(t)
		defer w.close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := &life{T: r, ctx: ctx, w: w, account: ann, provider: w.provider(ctx, t), seen: seen}
		for _, f := range []*follower{&l.orderly, &l.chaotic, &l.late} {
			opened, closeDB := open(t, w)
			defer closeDB()
			*f = follower{opened, billing.NewDesk(opened.Companion, l.provider, settings(), w.now, zap.NewNop())}
		}
		for range rapid.IntRange(3, 16).Draw(r, "length") {
			l.act()
			l.spread()
		}
		l.end()
		l.compare()
	}
}

// A hundred lives each, so that together there are at least five hundred. The
// race detector makes SQLite ten times slower: it watches a few, and the five
// hundred are lived in a process without it.
func TestAnyOrderOfEventsEndsInTheSameState(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^"+t.Name()+"$", ".")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	open := onSQLite(t)
	var mu sync.Mutex
	seen := map[string]int{}
	t.Run("lives", func(t *testing.T) {
		for i := range 5 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, lifecycle(t, open, func(event string) {
					mu.Lock()
					defer mu.Unlock()
					seen[event]++
				}))
			})
		}
	})
	// Lives in which nothing happens would agree as well.
	for _, event := range []string{
		"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
		"customer.subscription.trial_will_end", "invoice.paid", "invoice.payment_failed", "charge.refunded", "charge.dispute.created",
		"subscription_schedule.created", "checkout.session.completed",
	} {
		if seen[event] < 10 {
			t.Errorf("%s happened %d times", event, seen[event])
		}
	}
}

// A few lives on the other engine, whose transactions run beside each other.
func TestAnyOrderOnPostgres(t *testing.T) {
	t.Parallel()
	life := lifecycle(t, onPostgres(t), func(string) {})
	lived := rapid.Custom(func(r *rapid.T) bool {
		life(r)
		return true
	})
	for seed := range 5 {
		lived.Example(seed)
	}
}

// What several goroutines do at once in a life, under the race detector.
func TestALifeUnderTheRaceDetector(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := w.provider(ctx, t)
	opened, closeDB := w.open(t, template(t))
	defer closeDB()
	desk := func() billing.Desk { return billing.NewDesk(opened.Companion, p, settings(), w.now, zap.NewNop()) }
	s, err := desk().Checkout(ctx, ann, "pro", "month")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.fake.Pay(s.ID, "pm_card_visa"); err != nil {
		t.Fatal(err)
	}
	messages := w.fake.Take()
	var all sync.WaitGroup
	for range 4 { // four processes, to each of which everything is told
		d := desk()
		all.Go(func() {
			for _, m := range messages {
				if status := d.Receive(ctx, m.Payload, stripefake.Signature(m.Payload, whsec, w.now())); status != http.StatusOK {
					t.Errorf("answered %d", status)
				}
				if _, err := d.Round(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	e, err := opened.Entitlement(ctx, ann)
	if err != nil || e.Plan.Name != "pro" {
		t.Errorf("%+v, %v", e.Plan, err)
	}
}
