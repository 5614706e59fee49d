package gatetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func testEventOnce(t *storeTest) {
	e := store.BillingEvent{ID: "evt_1", Type: "customer.subscription.updated", Customer: "cus_1", Occurred: t.clock.Now()}
	results := make([]bool, 6)
	errs := concurrently(t.Context(), len(results), func(ctx context.Context, i int) (err error) {
		results[i], err = t.store.ReceiveEvent(ctx, e)
		return err
	})
	for _, err := range errs {
		t.ok(err)
	}
	fresh := slices.DeleteFunc(results, func(b bool) bool { return !b })
	if n := t.number("SELECT generation FROM stripe_sync_queue WHERE customer_id = 'cus_1'"); len(fresh) != 1 || n != 1 {
		t.Errorf("received %d times, generation %d", len(fresh), n)
	}
	if _, err := t.store.ReceiveEvent(t.Context(), store.BillingEvent{ID: "evt_2", Type: "payout.paid", Occurred: t.clock.Now()}); err != nil {
		t.Errorf("without a customer: %v", err)
	}
	if jobs := t.lease("a"); len(jobs) != 1 {
		t.Errorf("leased %v", jobs)
	}
}

func testEventReplay(t *storeTest) {
	if err := t.store.ReplayEvent(t.Context(), store.Actor{}, "evt_none"); !isErr(err, store.ErrEventNotFound) {
		t.Errorf("replaying nothing: %v", err)
	}
	_, err := t.store.ReceiveEvent(t.Context(), store.BillingEvent{ID: "evt_1", Type: "x", Customer: "cus_1", Occurred: t.clock.Now()})
	t.ok(err)
	job := t.lease("a")[0]
	t.ok(t.store.FailSync(t.Context(), job, store.SyncFailure{Reason: "gone", Dead: true}))
	if jobs := t.lease("a"); len(jobs) != 0 {
		t.Errorf("leased what was given up: %v", jobs)
	}
	t.ok(t.store.ReplayEvent(t.Context(), store.Actor{}, "evt_1"))
	if jobs := t.lease("a"); len(jobs) != 1 || jobs[0].Attempts != 0 {
		t.Errorf("after the replay: %v", jobs)
	}
}

func testSyncLease(t *storeTest) {
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	jobs := t.lease("a")
	if len(jobs) != 1 || len(t.lease("b")) != 0 {
		t.Fatalf("leased %v, and once more", jobs)
	}
	t.clock.Add(time.Minute) // the holder was killed
	again := t.lease("b")
	if len(again) != 1 || again[0].Fetch != jobs[0].Fetch+1 || again[0].Attempts != 1 {
		t.Fatalf("after the lease: %v", again)
	}
	t.ok(t.store.FailSync(t.Context(), jobs[0], store.SyncFailure{Retry: time.Hour}))
	if n := t.number("SELECT attempts FROM stripe_sync_queue"); n != 1 {
		t.Error("whose lease was over has put the customer off")
	}
	// What happens while it is read is read again.
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	r, err := t.store.ApplySync(t.Context(), again[0], store.CustomerTruth{})
	if err != nil || r.Account != "" {
		t.Fatalf("nobody's customer: %+v, %v", r, err)
	}
	last := t.lease("b")
	if len(last) != 1 {
		t.Fatal("what happened meanwhile was forgotten")
	}
	if _, err := t.store.ApplySync(t.Context(), last[0], store.CustomerTruth{}); err != nil || len(t.lease("b")) != 0 {
		t.Errorf("not done: %v", err)
	}
}

func testSyncReturned(t *storeTest) {
	read := func(want bool) {
		t.Helper()
		if got, err := t.store.ReadSince(t.Context(), "cus_1", t.clock.Now()); err != nil || got != want {
			t.Errorf("read, or waiting to be: %v, %v; want %v", got, err, want)
		}
	}
	read(false)
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	read(true)
	first := t.lease("a")[0]
	t.ok(t.store.ReturnSync(t.Context(), first))
	again := t.lease("b")
	if len(again) != 1 || again[0].Attempts != 0 {
		t.Fatalf("given back, and leased as %v", again)
	}
	t.ok(t.store.ReturnSync(t.Context(), first)) // which is b's by now
	if jobs := t.lease("c"); len(jobs) != 0 {
		t.Fatalf("another's lease was given back: %v", jobs)
	}
	t.ok(t.store.SkipSync(t.Context(), again[0]))
	if jobs := t.lease("c"); len(jobs) != 0 {
		t.Errorf("left out, and leased as %v", jobs)
	}
	read(true)
	t.clock.Add(time.Second)
	read(false)
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	t.ok(t.store.FailSync(t.Context(), t.lease("a")[0], store.SyncFailure{Dead: true}))
	read(false) // nobody is going to
	// Whoever reads it once more is told how often it came to nothing.
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	for want := range int64(3) {
		if jobs := t.lease("a"); len(jobs) != 1 || jobs[0].Attempts != want {
			t.Errorf("leased %v, want %d attempts", jobs, want)
		}
		t.clock.Add(time.Minute)
	}
}

func testSyncFailure(t *storeTest) {
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	t.ok(t.store.FailSync(t.Context(), t.lease("a")[0], store.SyncFailure{Reason: "payment provider is not available", Retry: time.Minute}))
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "another reason")) // does not hurry it
	if jobs := t.lease("a"); len(jobs) != 0 {
		t.Errorf("leased before its time: %v", jobs)
	}
	h, err := t.store.BillingHealth(t.Context())
	if err != nil || h.Pending != 1 || h.Dead != 0 || !h.OldestDue.Equal(t.clock.Now()) {
		t.Errorf("%+v, %v", h, err)
	}
	t.clock.Add(time.Minute)
	jobs := t.lease("a")
	if len(jobs) != 1 || jobs[0].Attempts != 1 {
		t.Fatalf("%v", jobs)
	}
	t.ok(t.store.FailSync(t.Context(), jobs[0], store.SyncFailure{Reason: "no such customer", Dead: true}))
	if h, err = t.store.BillingHealth(t.Context()); err != nil || h.Dead != 1 || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "news"))
	if jobs := t.lease("a"); len(jobs) != 1 {
		t.Errorf("news do not revive it: %v", jobs)
	}
}

// Since when somebody waits is told by the first news that was not read, whatever
// is tried meanwhile.
func testWaiting(t *storeTest) {
	wait := func(want time.Time) {
		t.Helper()
		h, err := t.store.BillingHealth(t.Context())
		if err != nil || !h.OldestDue.Equal(want) {
			t.Errorf("waits since %v, want %v, %v", h.OldestDue, want, err)
		}
	}
	first := t.clock.Now()
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	for range 3 {
		t.ok(t.store.FailSync(t.Context(), t.lease("a")[0], store.SyncFailure{Retry: time.Hour}))
		t.clock.Add(time.Hour)
		t.ok(t.store.RequestSync(t.Context(), "cus_1", "more"))
		wait(first)
	}
	job := t.lease("a")[0]
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "during the read"))
	t.clock.Add(time.Second)
	t.ok(t.store.SkipSync(t.Context(), job))
	wait(t.clock.Now())
	t.ok(t.store.SkipSync(t.Context(), t.lease("a")[0]))
	wait(time.Time{})
}

// What was read meanwhile is not put off by somebody who could not read it, and
// nobody holds it after that.
func testFailureThatIsOver(t *storeTest) {
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	job := t.lease("a")[0]
	t.sync("cus_1")
	t.ok(t.store.FailSync(t.Context(), job, store.SyncFailure{Reason: "refused", Dead: true}))
	if h, err := t.store.BillingHealth(t.Context()); err != nil || h.Dead != 0 || h.Pending != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "news"))
	if jobs := t.lease("b"); len(jobs) != 1 || jobs[0].Attempts != 0 {
		t.Errorf("leased %v", jobs)
	}
}

// A job ends when a read finds nothing to be ended at the provider. Until then it
// is read again, also if a read that was overtaken comes to its end meanwhile.
func testUnfinished(t *storeTest) {
	t.customer(alice, "cus_1")
	active, over := t.billed("sub_1", "active", "pro_monthly"), t.billed("sub_1", "canceled", "pro_monthly")
	apply := func(job store.SyncJob, unfinished bool, page string, found store.BilledSubscription) {
		t.Helper()
		r, err := t.store.ApplySync(t.Context(), job, store.CustomerTruth{Subscriptions: []store.BilledSubscription{found}})
		if err != nil || r.Unfinished != unfinished || r.Page != page {
			t.Errorf("%+v, %v; want unfinished: %v, page %q", r, err, unfinished, page)
		}
	}
	t.ok(t.store.SaveCheckout(t.Context(), t.page("cs_1"), ""))
	t.ok(t.store.RequestSync(t.Context(), "cus_1", "test"))
	apply(t.lease("a")[0], true, "cs_1", active)
	t.wantPage("cs_1", true) // at the provider it still is
	if jobs := t.lease("b"); len(jobs) != 0 {
		t.Errorf("leased %v while it is being ended", jobs)
	}
	t.clock.Add(time.Minute) // killed
	job := t.lease("b")[0]
	t.ok(t.store.CloseCheckout(t.Context(), "cs_1"))
	t.ok(t.store.ReadAgain(t.Context(), job))
	last := t.lease("b")
	if len(last) != 1 || last[0].Attempts != 0 {
		t.Fatalf("leased %v", last)
	}
	apply(last[0], false, "", active)

	_, err := t.store.RemoveUser(t.Context(), store.Actor{Type: store.ActorCLI}, "alice", store.Removal{})
	t.ok(err)
	overtaken := t.lease("a")[0]
	t.clock.Add(time.Minute)
	apply(t.lease("b")[0], true, "", active)
	apply(overtaken, false, "", active) // nothing is written of it
	t.clock.Add(time.Minute)
	again := t.lease("a")
	if len(again) != 1 {
		t.Fatal("a deleted user goes on paying")
	}
	apply(again[0], false, "", over)
	t.clock.Add(time.Minute)
	if jobs := t.lease("a"); len(jobs) != 0 {
		t.Errorf("leased %v", jobs)
	}
}

func testStaleRead(t *storeTest) {
	t.customer(alice, "cus_1")
	early, err := t.store.BeginSync(t.Context(), "cus_1", "test")
	t.ok(err)
	old := t.billed("sub_1", "active", "pro_monthly")
	t.sync("cus_1", t.billed("sub_1", "canceled", "pro_monthly")) // began later, was faster
	r, err := t.store.ApplySync(t.Context(), early, store.CustomerTruth{Subscriptions: []store.BilledSubscription{old}})
	if err != nil || !r.Stale || len(r.Changes) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	t.wantPlan(alice, "free cancelled")
}

func testOverdue(t *storeTest) {
	overdue := func(want int) {
		t.Helper()
		if n, err := t.store.Overdue(t.Context(), 5*time.Minute, 10); err != nil || n != want {
			t.Errorf("%d overdue, want %d, %v", n, want, err)
		}
	}
	t.customer(alice, "cus_1")
	sub := t.billed("sub_1", "active", "pro_monthly")
	t.sync("cus_1", sub)
	overdue(0)
	t.clock.Set(sub.PeriodEnd)
	overdue(1)
	overdue(0) // it is queued
	t.sync("cus_1", sub)
	t.clock.Add(time.Minute)
	overdue(0) // it was just read
	t.clock.Add(5 * time.Minute)
	overdue(1)
	sub.PeriodStart, sub.PeriodEnd = sub.PeriodEnd, sub.PeriodEnd.AddDate(0, 1, 0)
	t.sync("cus_1", sub)
	t.clock.Add(day)
	overdue(0)
}

// Grants that are over, which no reading renews, are read once and keep nobody
// waiting whose renewal is.
func testOverdueGrants(t *storeTest) {
	const grants = 5
	for i := range grants {
		account, customer := quota.UserSubject(fmt.Sprintf("granted%d", i)), fmt.Sprintf("cus_granted%d", i)
		t.customer(account, customer)
		t.sync(customer)
		_, err := t.store.Upgrade(t.Context(), account, store.Grant{Plan: "pro", Duration: day})
		t.ok(err)
	}
	t.clock.Add(time.Hour)
	t.customer(alice, "cus_1")
	paid := t.billed("sub_1", "active", "pro_monthly")
	paid.PeriodEnd = t.clock.Now().Add(30 * time.Hour)
	t.sync("cus_1", paid)
	t.clock.Set(paid.PeriodEnd)
	read := map[string]int{}
	for range grants { // far more than it takes
		_, err := t.store.Overdue(t.Context(), 5*time.Minute, 2)
		t.ok(err)
		for _, job := range t.lease("a") {
			read[job.Customer]++
			truth := store.CustomerTruth{}
			if job.Customer == "cus_1" {
				truth.Subscriptions = []store.BilledSubscription{paid}
			}
			_, err := t.store.ApplySync(t.Context(), job, truth)
			t.ok(err)
		}
		t.clock.Add(6 * time.Minute)
	}
	if len(read) != grants+1 || read["cus_1"] < 2 || read["cus_granted0"] != 1 {
		t.Errorf("read %v", read)
	}
}

func testConcurrentSyncs(t *storeTest) {
	t.customer(alice, "cus_1")
	const n = 8
	jobs := make([]store.SyncJob, n)
	for i := range jobs {
		job, err := t.store.BeginSync(t.Context(), "cus_1", "test")
		jobs[i] = must(t, job, err)
	}
	errs := concurrently(t.Context(), n, func(ctx context.Context, i int) error {
		status := "active"
		if i == n-1 {
			status = "canceled"
		}
		subs := []store.BilledSubscription{t.billed("sub_1", status, "pro_monthly"), t.billed("sub_2", "canceled", "enterprise_monthly")}
		_, err := t.store.ApplySync(ctx, jobs[i], store.CustomerTruth{Subscriptions: subs})
		return err
	})
	for _, err := range errs {
		t.ok(err)
	}
	t.wantPlan(alice, "free cancelled")
	if n := t.number("SELECT COUNT(*) FROM subscriptions WHERE is_current"); n != 1 {
		t.Errorf("%d current", n)
	}
}

func testEventStates(t *storeTest) {
	for _, e := range []store.BillingEvent{
		{ID: "evt_1", Type: "a", Customer: "cus_1"}, {ID: "evt_2", Type: "b", Customer: "cus_2"}, {ID: "evt_3", Type: "c", Listed: true},
		{ID: "evt_4", Type: "d", Customer: "cus_4"},
	} {
		t.clock.Add(time.Second)
		e.Occurred = t.clock.Now()
		_, err := t.store.ReceiveEvent(t.Context(), e)
		t.ok(err)
	}
	t.customer(alice, "cus_1")
	for _, job := range t.lease("a") {
		switch job.Customer {
		case "cus_1":
			_, err := t.store.ApplySync(t.Context(), job, store.CustomerTruth{})
			t.ok(err)
		case "cus_2":
			t.ok(t.store.FailSync(t.Context(), job, store.SyncFailure{Reason: "no such customer", Dead: true}))
		}
	}
	list, total, err := t.store.BillingEvents(t.Context(), 0, 10)
	t.ok(err)
	var got []string
	for _, e := range list {
		got = append(got, strings.TrimSpace(strings.Join([]string{e.ID, e.Source, e.State, e.AccountID, e.LastError}, " ")))
	}
	want := []string{
		"evt_4 webhook pending", "evt_3 list ignored", "evt_2 webhook dead  no such customer", "evt_1 webhook applied alice",
	}
	if diff := cmp.Diff(want, got); diff != "" || total != 4 {
		t.Errorf("%d (-want +got):\n%s", total, diff)
	}
	t.clock.Add(day)
	t.ok(t.store.PruneBillingEvents(t.Context(), time.Hour))
	if n := t.number("SELECT COUNT(*) FROM stripe_events"); n != 0 {
		t.Errorf("%d events kept", n)
	}
}
