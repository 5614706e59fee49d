package gatetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func billingTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"an event is received once":                   testEventOnce,
		"events replayed":                             testEventReplay,
		"a customer is leased to one":                 testSyncLease,
		"a failed read backs off and dies":            testSyncFailure,
		"a job goes on until nothing is left to end":  testUnfinished,
		"since when a customer waits":                 testWaiting,
		"a failure to read what was read":             testFailureThatIsOver,
		"of two reads the later one stays":            testStaleRead,
		"which subscription is current":               testChooseCurrent,
		"a grant over a paid subscription stays":      testGrantOverPaid,
		"a grant overrules what it was forced over":   testGrantForcedOver,
		"a grant in place of nothing paid":            testGrantWhileUnpaid,
		"a price keeps its plan":                      testLearnedPrices,
		"the truth once more changes nothing":         testApplyTwice,
		"what goes on again has recovered":            testRecovered,
		"the end of a grace is told once":             testGraceEnded,
		"what the provider no longer has is over":     testMissingSubscription,
		"a plan that is pending":                      testPendingFromTruth,
		"customers and invoices":                      testBillingAccounts,
		"checkout pages follow each other":            testCheckouts,
		"checkout pages opened at once":               testCheckoutRace,
		"checkout pages of deleted users":             testCheckoutOfDeletedUser,
		"customers that are left out or given back":   testSyncReturned,
		"overdue renewals are read again":             testOverdue,
		"grants that are over delay no renewals":      testOverdueGrants,
		"concurrent reads of one customer":            testConcurrentSyncs,
		"billing events are listed with their states": testEventStates,
	}
}

// billed is a subscription to a plan's month, as Stripe would have it.
func (t *storeTest) billed(id, status, key string) store.BilledSubscription {
	now := t.clock.Now()
	b := store.BilledSubscription{
		ID: id, Status: status, PriceID: "price_" + key, LookupKey: key, Quantity: 1,
		StartedAt: now, Anchor: now, PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0),
	}
	switch status {
	case "trialing":
		b.TrialEnd = b.PeriodEnd
	case "past_due":
		b.PastDueSince = now
	case "canceled":
		b.CancelledAt, b.EndedAt = now, now
	}
	return b
}

// customer makes the account a customer.
func (t *storeTest) customer(account quota.Subject, customer string) {
	t.Helper()
	got, err := t.store.SetCustomer(t.Context(), account, customer)
	if err != nil || got != customer {
		t.Fatalf("customer %s: %s, %v", customer, got, err)
	}
}

// sync reads the customer: found is what the provider has.
func (t *storeTest) sync(customer string, found ...store.BilledSubscription) *store.SyncResult {
	t.Helper()
	job, err := t.store.BeginSync(t.Context(), customer, "test")
	t.ok(err)
	r, err := t.store.ApplySync(t.Context(), job, store.CustomerTruth{Subscriptions: found})
	return must(t, r, err)
}

func aMinute(int64) time.Duration { return time.Minute }

func (t *storeTest) lease(holder string) []store.SyncJob {
	t.Helper()
	jobs, err := t.store.LeaseSyncs(t.Context(), holder, 10, aMinute)
	return must(t, jobs, err)
}

func testChooseCurrent(t *storeTest) {
	for i, c := range []struct {
		subs string // status:key, in the order in which they began
		want string
	}{
		{"active:pro_monthly", "pro active"},
		{"trialing:pro_monthly", "pro trial"},
		{"past_due:pro_yearly", "pro past_due"},
		{"active:pro_monthly active:enterprise_monthly", "enterprise active"},
		{"active:enterprise_monthly active:pro_monthly", "enterprise active"},
		{"active:pro_monthly trialing:enterprise_monthly", "pro active"},
		{"trialing:pro_monthly past_due:enterprise_monthly", "pro trial"},
		{"active:pro_monthly active:unknown", "pro active"},
		{"active:unknown", "free "},
		{"canceled:pro_monthly", "free cancelled"},
		{"canceled:enterprise_monthly active:pro_monthly", "pro active"},
		{"active:pro_monthly canceled:enterprise_monthly", "pro active"},
		{"unpaid:pro_monthly", "free expired"},
		{"paused:pro_monthly", "free expired"},
		{"incomplete:pro_monthly", "free "},
		{"incomplete_expired:pro_monthly", "free "},
		{"incomplete:enterprise_monthly active:pro_monthly", "pro active"},
	} {
		var subs []store.BilledSubscription
		for j, s := range strings.Fields(c.subs) {
			status, key, _ := strings.Cut(s, ":")
			b := t.billed(fmt.Sprintf("sub_%d_%d", i, j), status, key)
			b.StartedAt = b.StartedAt.Add(time.Duration(j) * time.Minute)
			subs = append(subs, b)
		}
		for k := range 2 { // in either order
			account, customer := quota.UserSubject(fmt.Sprintf("u%d-%d", i, k)), fmt.Sprintf("cus_%d_%d", i, k)
			for j := range subs {
				subs[j].ID = fmt.Sprintf("sub_%d_%d_%d", i, j, k)
			}
			t.customer(account, customer)
			t.sync(customer, subs...)
			t.wantPlan(account, c.want)
			slices.Reverse(subs)
		}
	}
	if h, err := t.store.BillingHealth(t.Context()); err != nil || h.UnknownPrices != 4 {
		t.Errorf("unknown prices: %+v, %v", h, err)
	}
}

func testGrantOverPaid(t *storeTest) {
	t.customer(alice, "cus_1")
	paid := t.billed("sub_1", "active", "enterprise_monthly")
	t.sync("cus_1", paid)
	t.clock.Add(time.Hour)
	_, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Duration: 10 * day, Force: true})
	t.ok(err)
	t.sync("cus_1", paid)
	t.wantPlan(alice, "pro active")
	t.clock.Add(10 * day)
	t.sync("cus_1", paid)
	t.wantPlan(alice, "enterprise active")

	// The other way round, what is paid for goes first, unless it is less.
	t.customer("user:bob", "cus_2")
	_, err = t.store.Upgrade(t.Context(), "user:bob", store.Grant{Plan: "pro"})
	t.ok(err)
	t.clock.Add(time.Hour)
	t.sync("cus_2", t.billed("sub_2", "active", "enterprise_monthly"))
	t.wantPlan("user:bob", "enterprise active")
	t.sync("cus_2", t.billed("sub_2", "canceled", "enterprise_monthly"))
	t.wantPlan("user:bob", "pro active")
}

// A forced grant, and one that takes its place, overrules the subscription that it
// was forced over, and no other that is bought later.
func testGrantForcedOver(t *storeTest) {
	t.customer(alice, "cus_1")
	paid := t.billed("sub_1", "active", "enterprise_monthly")
	t.sync("cus_1", paid)
	t.clock.Add(time.Hour)
	for _, g := range []store.Grant{{Plan: "free", Force: true}, {Plan: "pro"}} {
		_, err := t.store.Upgrade(t.Context(), alice, g)
		t.ok(err)
		t.sync("cus_1", paid)
		t.wantPlan(alice, g.Plan+" active")
	}
	less := t.billed("sub_2", "active", "pro_monthly")
	t.sync("cus_1", paid, less)
	if s, err := t.store.CurrentSubscription(t.Context(), alice); err != nil || s.StripeSubscriptionID != "sub_2" {
		t.Errorf("of one plan what is paid goes before what is given: %+v, %v", s, err)
	}
	t.sync("cus_1", paid, t.billed("sub_2", "canceled", "pro_monthly"))
	if s, err := t.store.CurrentSubscription(t.Context(), alice); err != nil || s.Source != "manual" {
		t.Errorf("the grant was forgotten: %+v, %v", s, err)
	}
}

// A grant that had to be forced over nothing ends where something is paid that is
// worth more, whenever that began.
func testGrantWhileUnpaid(t *storeTest) {
	t.customer(alice, "cus_1")
	paid := t.billed("sub_1", "unpaid", "enterprise_monthly")
	t.sync("cus_1", paid)
	t.wantPlan(alice, "free expired")
	t.clock.Add(time.Hour)
	_, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro"})
	t.ok(err)
	t.wantPlan(alice, "pro active")
	paid.Status = "active"
	t.sync("cus_1", paid)
	t.wantPlan(alice, "enterprise active")
}

func testLearnedPrices(t *storeTest) {
	t.customer(alice, "cus_1")
	sub := t.billed("sub_1", "active", "pro_monthly")
	t.sync("cus_1", sub)
	sub.LookupKey = "" // moved on to the plan's next price
	t.sync("cus_1", sub)
	t.wantPlan(alice, "pro active")

	t.customer("user:bob", "cus_2")
	configured := t.billed("sub_2", "active", "enterprise_monthly")
	configured.PriceID = "price_of_the_config"
	for _, prices := range []map[string]string{{"price_of_the_config": "pro"}, nil} { // and when it has left the config
		job, err := t.store.BeginSync(t.Context(), "cus_2", "test")
		t.ok(err)
		_, err = t.store.ApplySync(t.Context(), job, store.CustomerTruth{Subscriptions: []store.BilledSubscription{configured}, Prices: prices})
		t.ok(err)
		t.wantPlan("user:bob", "pro active")
	}
	// What an operator has written goes before everything.
	t.exec("UPDATE plan_prices SET stripe_price_id = 'price_of_the_config' WHERE stripe_lookup_key = 'enterprise_yearly'")
	t.sync("cus_2", configured)
	t.wantPlan("user:bob", "enterprise active")
}

func testApplyTwice(t *storeTest) {
	t.customer(alice, "cus_1")
	sub := t.billed("sub_1", "active", "pro_monthly")
	if r := t.sync("cus_1", sub); len(r.Changes) == 0 || r.Account != alice {
		t.Errorf("%+v", r)
	}
	before := t.number("SELECT MAX(seq) FROM changes")
	version := t.number("SELECT entitlement_version FROM accounts WHERE id = 'alice'")
	t.clock.Add(time.Hour)
	if r := t.sync("cus_1", sub); len(r.Changes) != 0 {
		t.Errorf("%+v", r.Changes)
	}
	if after := t.number("SELECT MAX(seq) FROM changes"); after != before {
		t.Error("gateways are told of what has not changed")
	}
	sub.Status, sub.PastDueSince = "past_due", t.clock.Now()
	kinds := []string{}
	for _, s := range []string{"past_due", "active", "canceled"} {
		sub.Status = s
		for _, c := range t.sync("cus_1", sub).Changes {
			kinds = append(kinds, c.Kind)
		}
	}
	if diff := cmp.Diff([]string{store.SubscriptionPastDue, store.SubscriptionRecovered, store.SubscriptionCancelled}, kinds); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := t.number("SELECT entitlement_version FROM accounts WHERE id = 'alice'"); n != version+3 {
		t.Errorf("version %d, want %d", n, version+3)
	}
	// Audited and told once each: created, made current, and the three.
	if n := t.number("SELECT COUNT(*) FROM audit_events WHERE account_id = 'alice' AND resource_type = 'subscription'"); n != 5 {
		t.Errorf("%d audit events", n)
	}
	for _, kind := range []string{
		store.SubscriptionCreated, store.SubscriptionPastDue, store.SubscriptionRecovered, store.SubscriptionCancelled,
	} {
		if n := t.number("SELECT COUNT(*) FROM outbox_events WHERE account_id = 'alice' AND event_type = $1", kind); n != 1 {
			t.Errorf("%d events %s for others", n, kind)
		}
	}
}

// The end of a grace is told once, as soon as it is looked for: not of who has paid
// meanwhile, nor of what ended before it was looked for at all.
func testGraceEnded(t *storeTest) {
	look := func() (ended []string) {
		t.Helper()
		changes, err := t.store.EndGraces(t.Context(), "looked")
		for _, c := range must(t, changes, err) {
			ended = append(ended, c.StripeID+" "+c.From+" "+c.To)
		}
		return ended
	}
	want := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, look()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	fail := func(account quota.Subject, id string) store.BilledSubscription {
		t.Helper()
		sub := t.billed(id, "past_due", "pro_monthly")
		t.customer(account, "cus_"+id)
		t.sync("cus_"+id, sub)
		return sub
	}
	fail("user:early", "sub_early")
	t.clock.Add(store.DefaultGrace)
	want("the first time")
	fail(alice, "sub_alice")
	paid := fail("user:payer", "sub_payer")
	t.clock.Add(store.DefaultGrace - time.Second)
	want("within the grace")
	paid.Status = "active"
	t.sync("cus_sub_payer", paid)
	t.clock.Add(time.Second)
	want("at its end", "sub_alice pro free")
	want("again")
	t.clock.Add(time.Hour)
	want("later")
	if n := t.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = $1", store.SubscriptionGraceEnded); n != 1 {
		t.Errorf("%d events for others", n)
	}
	if n := t.number("SELECT COUNT(*) FROM audit_events WHERE account_id = 'alice' AND action = $1", store.SubscriptionGraceEnded); n != 1 {
		t.Errorf("%d events in the audit log", n)
	}
}

// What goes on again after a payment that was given up has recovered; what was never
// paid has not.
func testRecovered(t *storeTest) {
	for i, c := range []struct{ from, want string }{
		{"past_due", store.SubscriptionRecovered},
		{"unpaid", store.SubscriptionRecovered},
		{"paused", store.SubscriptionRecovered},
		{"incomplete", store.SubscriptionUpdated},
		{"trialing", store.SubscriptionUpdated},
	} {
		customer := fmt.Sprintf("cus_%d", i)
		t.customer(quota.UserSubject(fmt.Sprintf("u%d", i)), customer)
		id := fmt.Sprintf("sub_%d", i)
		t.sync(customer, t.billed(id, c.from, "pro_monthly"))
		if r := t.sync(customer, t.billed(id, "active", "pro_monthly")); len(r.Changes) == 0 || r.Changes[0].Kind != c.want {
			t.Errorf("from %s: %+v, want %s", c.from, r.Changes, c.want)
		}
	}
}

func testMissingSubscription(t *storeTest) {
	t.customer(alice, "cus_1")
	t.sync("cus_1", t.billed("sub_1", "active", "pro_monthly"))
	t.clock.Add(time.Hour)
	t.sync("cus_1")
	t.wantPlan(alice, "free cancelled")
	if r := t.sync("cus_1"); len(r.Changes) != 0 {
		t.Errorf("%+v", r.Changes)
	}
	t.sync("cus_1", t.billed("sub_1", "active", "pro_monthly"))
	t.wantPlan(alice, "pro active")
}

func testPendingFromTruth(t *storeTest) {
	t.customer(alice, "cus_1")
	sub := t.billed("sub_1", "active", "enterprise_monthly")
	sub.PendingPriceID, sub.PendingLookupKey, sub.PendingAt = "price_pro", "pro_monthly", sub.PeriodEnd
	t.sync("cus_1", sub)
	t.wantPlan(alice, "enterprise active")
	s, err := t.store.CurrentSubscription(t.Context(), alice)
	if err != nil || s.PendingPlan != "pro" || !s.PendingAt.Equal(sub.PeriodEnd) {
		t.Errorf("%+v, %v", s, err)
	}
	t.clock.Set(sub.PeriodEnd)
	t.wantPlan(alice, "pro active")
}

func testBillingAccounts(t *storeTest) {
	ctx := t.Context()
	b, err := t.store.BillingAccount(ctx, alice)
	if err != nil || b.Customer != "" || b.HadTrial {
		t.Errorf("%+v, %v", b, err)
	}
	t.customer(alice, "cus_1")
	if got, err := t.store.SetCustomer(ctx, alice, "cus_late"); err != nil || got != "cus_1" {
		t.Errorf("a second customer: %s, %v", got, err)
	}
	trial := t.billed("sub_1", "trialing", "pro_monthly")
	t.sync("cus_1", trial)
	if b, err = t.store.BillingAccount(ctx, alice); err != nil || !b.HadTrial || b.Customer != "cus_1" || !b.SyncedAt.Equal(t.clock.Now()) {
		t.Errorf("%+v, %v", b, err)
	}
	if got, err := t.store.ReplaceCustomer(ctx, alice, "cus_gone", "cus_2"); err != nil || got != "cus_1" {
		t.Errorf("a customer was replaced that is not the account's: %s, %v", got, err)
	}
	if got, err := t.store.ReplaceCustomer(ctx, alice, "cus_1", "cus_2"); err != nil || got != "cus_2" {
		t.Errorf("replaced by %s, %v", got, err)
	}
	if got, err := t.store.ReplaceCustomer(ctx, alice, "cus_2", "cus_1"); err != nil || got != "cus_1" {
		t.Errorf("replaced by %s, %v", got, err)
	}
	invoice := store.BilledInvoice{ID: "in_1", Status: "open", Currency: "usd", AmountDue: 1999, AmountRemaining: 1999, Attempts: 1, CreatedAt: t.clock.Now()}
	for _, status := range []string{"open", "paid"} {
		invoice.Status = status
		if status == "paid" {
			invoice.AmountPaid, invoice.AmountRemaining, invoice.PaidAt = 1999, 0, t.clock.Now()
		}
		job, err := t.store.BeginSync(ctx, "cus_1", "test")
		t.ok(err)
		_, err = t.store.ApplySync(ctx, job, store.CustomerTruth{Subscriptions: []store.BilledSubscription{trial}, Invoices: []store.BilledInvoice{invoice}})
		t.ok(err)
	}
	for _, kind := range []string{store.InvoicePaymentFailed, store.InvoicePaid} {
		if n := t.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = $1", kind); n != 1 {
			t.Errorf("%d events %s for others", n, kind)
		}
	}
	list, total, err := t.store.Invoices(ctx, alice, 0, 10)
	if diff := cmp.Diff([]store.BilledInvoice{invoice}, list); diff != "" || err != nil || total != 1 {
		t.Errorf("%d invoices, %v (-want +got):\n%s", total, err, diff)
	}
}
