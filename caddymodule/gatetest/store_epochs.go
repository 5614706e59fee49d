package gatetest

import (
	"context"
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func epochTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"a flush twice counts once":                testFlushTwice,
		"a closed epoch is refused":                testClosedEpoch,
		"a final flush closes its epoch":           testFinalFlush,
		"concurrent flushes of 8 epochs are exact": testConcurrentFlushes,
		"dead epochs are closed":                   testReaper,
		"compaction keeps sums":                    testCompaction,
		"kept epochs are named until dropped":      testKeptEpochs,
		"many kept epochs are named":               testManyKeptEpochs,
		"a dropped epoch is found again":           testFoundEpoch,
		"usage tells what an epoch has":            testExceptedUsage,
		"a late flush of a kept epoch counts once": testLateFlush,
		"living processes are counted":             testGateways,
		"leases":                                   testLeases,
		"changes are pruned but the newest":        testPrune,
		"heartbeats are by the records' clock":     testRecordsClock,
	}
}

func (t *storeTest) jobs(epoch string, spent, refunded int64) quota.Flush {
	return quota.Flush{EpochTotals: quota.EpochTotals{
		Epoch: epoch, Rows: []quota.Total{total(alice, "jobs", quota.PeriodMonth, t.clock.Now(), spent, refunded)},
	}}
}

func (t *storeTest) usedJobs(except ...string) int64 {
	t.Helper()
	return t.usage(alice, key(total(alice, "jobs", quota.PeriodMonth, t.clock.Now(), 0, 0)), except...)
}

func testFlushTwice(t *storeTest) {
	for _, f := range []quota.Flush{t.jobs("e1", 10, 1), t.jobs("e1", 10, 1), t.jobs("e1", 12, 3), t.jobs("e1", 11, 2)} {
		t.ok(t.store.Flush(t.Context(), f)) // the last arrives late: totals only rise
	}
	t.ok(t.store.Flush(t.Context(), t.jobs("e2", 100, 0)))
	if n := t.usedJobs(); n != 109 {
		t.Errorf("used %d, want 109", n)
	}
	if n := t.usedJobs("e1"); n != 100 {
		t.Errorf("used but for e1: %d, want 100", n)
	}
	if n := t.usedJobs("e1", "e2", "e3"); n != 0 {
		t.Errorf("used but for all: %d", n)
	}
	rows, err := t.store.EpochTotals(t.Context(), "e1")
	if diff := cmp.Diff(t.jobs("e1", 12, 3).Rows, rows); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if rows, err := t.store.EpochTotals(t.Context(), "unheard of"); err != nil || len(rows) != 0 {
		t.Errorf("rows of an unknown epoch: %v, %v", rows, err)
	}
}

func testClosedEpoch(t *storeTest) {
	t.ok(t.store.Flush(t.Context(), t.jobs("e1", 10, 0)))
	t.exec("UPDATE gateway_epochs SET closed_at = last_seen_at")
	f := t.jobs("e1", 20, 0)
	f.Seq, f.Rollups = 1, []quota.Rollup{{Account: alice, Scope: "api", Decision: "admitted", Requests: 1}}
	f.Seen = []quota.Seen{{Account: "user:late", At: t.clock.Now()}}
	closed := asErr[*quota.EpochClosedError](t.store.Flush(t.Context(), f))
	if closed == nil || closed.Epoch != "e1" {
		t.Fatalf("flush to a closed epoch: %v", closed)
	}
	if n := t.usedJobs(); n != 10 {
		t.Errorf("used %d, want 10", n)
	}
	if n := t.number("SELECT COUNT(*) FROM usage_hourly") + t.number("SELECT COUNT(*) FROM accounts"); n != 0 {
		t.Errorf("%d rows were written all the same", n)
	}
}

func testFinalFlush(t *storeTest) {
	f := t.jobs("e1", 10, 0)
	f.Final = true
	t.ok(t.store.Flush(t.Context(), f))
	if err := t.store.Flush(t.Context(), f); asErr[*quota.EpochClosedError](err) == nil {
		t.Errorf("after the final flush: %v", err)
	}
	if n := t.usedJobs(); n != 10 {
		t.Errorf("used %d, want 10", n)
	}
}

func testConcurrentFlushes(t *storeTest) {
	const epochs, accounts, flushes = 8, 12, 6
	now := t.clock.Now()
	errs := concurrently(t.Context(), epochs, func(ctx context.Context, e int) error {
		for n := int64(1); n <= flushes; n++ {
			f := quota.Flush{EpochTotals: quota.EpochTotals{Epoch: fmt.Sprint("epoch-", e)}, Seq: n}
			for a := range accounts {
				who := quota.UserSubject(fmt.Sprint("u", (a*7+e)%accounts)) // each in an order of its own
				f.Rows = append(f.Rows, total(who, "api_calls", quota.PeriodDay, now, 3*n, n))
				f.Rollups = append(f.Rollups, quota.Rollup{Hour: now.Unix(), Account: who, Scope: "api", Decision: "admitted", StatusClass: 2, Requests: 1, Cost: 1})
				f.Seen = append(f.Seen, quota.Seen{Account: who, At: now})
			}
			for range 2 { // each is sent twice
				if err := t.store.Flush(ctx, f); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for e, err := range errs {
		if err != nil {
			t.Errorf("epoch %d: %v", e, err)
		}
	}
	for a := range accounts {
		who := quota.UserSubject(fmt.Sprint("u", a))
		if n := t.usage(who, key(total(who, "api_calls", quota.PeriodDay, now, 0, 0))); n != epochs*flushes*2 {
			t.Errorf("%s: %d, want %d", who, n, epochs*flushes*2)
		}
	}
	if n := t.number("SELECT SUM(requests) FROM usage_hourly"); n != epochs*accounts*flushes {
		t.Errorf("rollups: %d, want %d", n, epochs*accounts*flushes)
	}
}

func testReaper(t *storeTest) {
	t.ok(t.store.Flush(t.Context(), t.jobs("dead", 1, 0)))
	t.clock.Add(2 * time.Second)
	t.ok(t.store.Flush(t.Context(), t.jobs("alive", 1, 0)))
	reap := func(holder string) int {
		t.Helper()
		closed, _, err := t.store.Reap(t.Context(), holder, false)
		return must(t, closed, err)
	}
	t.clock.Add(time.Second)
	if closed := reap("a"); closed != 0 {
		t.Errorf("closed after exactly 3 s: %v", closed)
	}
	t.clock.Add(time.Millisecond)
	if closed := reap("b"); closed != 0 {
		t.Errorf("closed by one without the lease: %v", closed)
	}
	if closed := reap("a"); closed != 1 {
		t.Errorf("closed %d, want the dead one", closed)
	}
	t.clock.Add(2 * time.Second) // the lease of a has ended
	t.ok(t.store.Flush(t.Context(), t.jobs("alive", 2, 0)))
	t.clock.Add(2 * time.Second)
	if closed := reap("b"); closed != 0 {
		t.Errorf("closed although it flushed: %v", closed)
	}
	if err := t.store.Flush(t.Context(), t.jobs("dead", 2, 0)); asErr[*quota.EpochClosedError](err) == nil {
		t.Errorf("flush of the dead: %v", err)
	}
}

func testCompaction(t *storeTest) {
	now := t.clock.Now()
	rows := func(n int64) []quota.Total {
		return []quota.Total{
			total(alice, "jobs", quota.PeriodMonth, now, 3*n, n),
			total("org:acme", "storage_bytes", quota.PeriodNone, now, 10*n, 0),
		}
	}
	for _, epoch := range []string{"e1", "e2", "e3"} {
		t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch, Rows: rows(5), Final: epoch != "e3"}}))
	}
	t.ok(t.setLevel("org:acme", "storage_bytes", 7))
	sums := func() [2]int64 {
		return [2]int64{t.usage(alice, key(rows(0)[0])), t.usage("org:acme", key(rows(0)[1]))}
	}
	before := sums()
	compact := func() int {
		t.Helper()
		n, err := t.store.Compact(t.Context(), "holder")
		return must(t, n, err)
	}
	t.clock.Add(store.CompactAfter)
	if n := compact(); n != 0 {
		t.Errorf("compacted %d epochs too early", n)
	}
	t.clock.Add(time.Second)
	for _, err := range concurrently(t.Context(), 4, func(ctx context.Context, _ int) error {
		_, err := t.store.Compact(ctx, "holder")
		return err
	}) {
		t.ok(err)
	}
	if n := compact(); n != 0 {
		t.Errorf("compacted %d epochs again", n)
	}
	if diff := cmp.Diff(before, sums()); diff != "" || before != [2]int64{30, 7} {
		t.Errorf("sums before: %v\n%s", before, diff)
	}
	if n := t.number("SELECT COUNT(*) FROM usage_totals WHERE epoch IN ('e1', 'e2')"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	if n := t.number("SELECT COUNT(*) FROM gateway_epochs"); n != 3 {
		t.Errorf("%d epochs, want 3", n)
	}
	if _, err := t.store.EpochTotals(t.Context(), "e1"); asErr[*quota.EpochCompactedError](err) == nil {
		t.Errorf("totals of a compacted epoch: %v", err)
	}
	if err := t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e1", Rows: rows(9)}}); asErr[*quota.EpochClosedError](err) == nil {
		t.Errorf("flush to a compacted epoch: %v", err)
	}
}

func testGateways(t *storeTest) {
	gateways := func() int {
		t.Helper()
		n, err := t.store.Gateways(t.Context())
		return must(t, n, err)
	}
	if n := gateways(); n != 0 {
		t.Errorf("%d before the first flush", n)
	}
	flush := func(epoch, process string, final bool) {
		t.Helper()
		f := t.jobs(epoch, 1, 0)
		f.Process, f.Final = process, final
		t.ok(t.store.Flush(t.Context(), f))
	}
	flush("e1", "p1", false)
	flush("e2", "p1", false)
	flush("e3", "p2", false)
	flush("e4", "", false) // judges nobody
	flush("e5", "p3", true)
	if n := gateways(); n != 2 {
		t.Errorf("%d, want 2", n)
	}
	flush("e4", "p4", false) // does from now on
	if n := gateways(); n != 3 {
		t.Errorf("%d, want 3", n)
	}
	t.clock.Add(store.DeadAfter)
	flush("e3", "p2", false)
	t.clock.Add(time.Millisecond)
	if n := gateways(); n != 1 {
		t.Errorf("%d, want the one that has flushed", n)
	}
}

func testLeases(t *storeTest) {
	take := func(holder string) bool {
		t.Helper()
		held, err := t.store.TakeLease(t.Context(), "job", holder, time.Minute)
		return must(t, held, err)
	}
	if !take("a") || take("b") || !take("a") {
		t.Error("a lease has one holder, who may renew it")
	}
	t.clock.Add(time.Minute)
	if !take("b") || take("a") {
		t.Error("a lease ends")
	}
	t.ok(t.store.ReleaseLease(t.Context(), "job", "a"))
	if take("a") {
		t.Error("released by one who does not hold it")
	}
	t.ok(t.store.ReleaseLease(t.Context(), "job", "b"))
	if !take("a") {
		t.Error("not released")
	}
}

func testPrune(t *storeTest) {
	latest, err := t.store.Latest(t.Context())
	t.ok(err)
	t.clock.Set(time.Now().Add(72 * time.Hour))
	t.ok(t.store.Maintain(t.Context(), "holder"))
	if n := t.number("SELECT COUNT(*) FROM changes"); n != 1 {
		t.Errorf("%d changes are left", n)
	}
	if e := t.entitlement(alice); e.Version != latest {
		t.Errorf("version %d, want %d", e.Version, latest)
	}
	changes, err := t.store.Changes(t.Context(), 1)
	if diff := cmp.Diff([]quota.Change{{Seq: latest, Subject: quota.AllSubjects}}, changes); err != nil || diff != "" {
		t.Errorf("what was pruned: %v\n%s", err, diff)
	}
	changes, err = t.store.Changes(t.Context(), latest+1000) // the database was put back to an older state
	if diff := cmp.Diff([]quota.Change{{Seq: latest, Subject: quota.AllSubjects}}, changes); err != nil || diff != "" {
		t.Errorf("an older database: %v\n%s", err, diff)
	}
}

func testRecordsClock(t *storeTest) {
	s := store.New(t.db, store.Options{Engine: t.h.Engine})
	before := time.Now().Add(-time.Minute)
	t.ok(s.Flush(t.Context(), t.jobs("e1", 1, 0)))
	closed, _, err := s.Reap(t.Context(), "holder", false)
	if err != nil || closed != 0 {
		t.Errorf("closed %v, %v", closed, err)
	}
	if n := t.number("SELECT COUNT(*) FROM gateway_epochs WHERE last_seen_at > $1", before.UTC().Format("2006-01-02 15:04:05.000000Z")); n != 1 {
		t.Error("the heartbeat is not of now")
	}
}
