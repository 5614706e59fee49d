package gatetest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func testKeptEpochs(t *storeTest) {
	kept := func(epoch string) quota.Flush {
		f := t.jobs(epoch, 5, 0)
		f.Kept = true
		return f
	}
	t.ok(t.store.Flush(t.Context(), kept("e1")))
	t.clock.Add(2 * time.Second)
	t.ok(t.store.Flush(t.Context(), kept("e2")))
	t.ok(t.store.Flush(t.Context(), t.jobs("own", 1, 0))) // kept by nobody else
	t.clock.Add(2 * time.Second)
	reap := func() []quota.ClosedEpoch {
		t.Helper()
		_, kept, err := t.store.Reap(t.Context(), "a", true)
		return must(t, kept, err)
	}
	if diff := cmp.Diff([]quota.ClosedEpoch{{Epoch: "e1"}}, reap()); diff != "" {
		t.Error(diff)
	}
	t.clock.Add(1500 * time.Millisecond)
	want := []quota.ClosedEpoch{{Epoch: "e1", For: 1500 * time.Millisecond}, {Epoch: "e2"}}
	if diff := cmp.Diff(want, reap()); diff != "" {
		t.Error(diff)
	}
	t.clock.Add(store.CompactAfter + time.Second)
	n, err := t.store.Compact(t.Context(), "a")
	if must(t, n, err) != 1 {
		t.Errorf("compacted %d epochs, want the one that is not kept", n)
	}
	t.ok(t.store.Dropped(t.Context(), "e1"))
	t.ok(t.store.Dropped(t.Context(), "e1"))
	t.ok(t.store.Dropped(t.Context(), "unheard of"))
	if kept := reap(); len(kept) != 1 || kept[0].Epoch != "e2" {
		t.Errorf("after e1 was dropped: %v", kept)
	}
	n, err = t.store.Compact(t.Context(), "a")
	if must(t, n, err) != 1 || t.usedJobs() != 11 {
		t.Errorf("compacted %d epochs, used %d", n, t.usedJobs())
	}
}

// A crowd of processes that die at once, as in a crash loop, hides none of them from
// whoever copies, also while those copied first wait to be dropped.
func testManyKeptEpochs(t *storeTest) {
	const epochs = 300
	for i := range epochs {
		t.ok(t.store.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: fmt.Sprint("e", i), Kept: true}}))
	}
	t.clock.Add(store.DeadAfter + time.Millisecond)
	closed, kept, err := t.store.Reap(t.Context(), "a", true)
	if must(t, closed, err) != epochs || len(kept) != epochs {
		t.Errorf("%d epochs are closed and %d named, want %d", closed, len(kept), epochs)
	}
}

// testFoundEpoch: what counters hold, though it was dropped, or was nobody's, is
// named again, unless it cannot be told apart any more.
func testFoundEpoch(t *storeTest) {
	reap := func() int {
		t.Helper()
		_, kept, err := t.store.Reap(t.Context(), "a", true)
		return len(must(t, kept, err))
	}
	found := func(epoch string) bool {
		t.Helper()
		again, err := t.store.Found(t.Context(), epoch)
		return must(t, again, err)
	}
	later := t.jobs("kept true", 4, 0) // counters take it only when it ends
	t.ok(t.store.Flush(t.Context(), later))
	for _, kept := range []bool{true, false} {
		f := t.jobs(fmt.Sprint("kept ", kept), 5, 0)
		f.Kept, f.Final = kept, true
		t.ok(t.store.Flush(t.Context(), f))
	}
	if found("kept true") || reap() != 1 {
		t.Error("one that was not dropped")
	}
	t.ok(t.store.Dropped(t.Context(), "kept true"))
	if n := reap(); n != 0 {
		t.Errorf("%d are named", n)
	}
	if !found("kept true") || !found("kept false") || found("kept false") || found("unheard of") || reap() != 2 {
		t.Error("they are not named again")
	}
	t.ok(t.store.Dropped(t.Context(), "kept true"))
	t.clock.Add(store.CompactAfter + time.Second)
	n, err := t.store.Compact(t.Context(), "a")
	if must(t, n, err) != 1 {
		t.Errorf("%d were compacted", n)
	}
	if _, err := t.store.Found(t.Context(), "kept true"); asErr[*quota.EpochCompactedError](err) == nil {
		t.Errorf("a compacted one: %v", err)
	}
	if n := reap(); n != 1 {
		t.Errorf("%d are named", n)
	}
}

// testExceptedUsage: what is left out of a sum is told for itself.
func testExceptedUsage(t *storeTest) {
	level := total(alice, "storage_bytes", quota.PeriodNone, t.clock.Now(), 9, 4)
	for _, epoch := range []string{"e1", "e2", "e3"} {
		f := t.jobs(epoch, 10, 1)
		f.Rows, f.Final = append(f.Rows, level), epoch == "e3"
		t.ok(t.store.Flush(t.Context(), f))
	}
	t.clock.Add(store.CompactAfter + time.Second)
	n, err := t.store.Compact(t.Context(), "a")
	if must(t, n, err) != 1 {
		t.Errorf("%d were compacted", n)
	}
	job := t.jobs("", 10, 1).Rows[0]
	gone := quota.Total{Spent: quota.MaxAmount, Refunded: quota.MaxAmount}
	want := []quota.Used{
		{Amount: 18, Excepted: []quota.Total{gone, {}, job}},
		{Amount: 10, Excepted: []quota.Total{gone, {}, level}},
		{Excepted: []quota.Total{gone, {}, {}}},
	}
	keys := []quota.UsageKey{key(job), key(level), {Metric: "jobs", Period: quota.PeriodNone}}
	used, err := t.store.Usage(t.Context(), alice, keys, []string{"e3", "unheard of", "e2"})
	if diff := cmp.Diff(want, used); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func testLateFlush(t *storeTest) {
	f := t.jobs("e1", 10, 0)
	f.Kept = true
	t.ok(t.store.Flush(t.Context(), f))
	t.exec("UPDATE gateway_epochs SET closed_at = last_seen_at")
	if err := t.store.Flush(t.Context(), f); asErr[*quota.EpochClosedError](err) == nil {
		t.Errorf("a flush that is not the last: %v", err)
	}
	f = t.jobs("e1", 12, 3)
	f.Kept, f.Final = true, true
	for range 2 { // the reaper, and the process that was only paused
		t.ok(t.store.Flush(t.Context(), f))
	}
	if n := t.usedJobs(); n != 9 {
		t.Errorf("used %d, want 9", n)
	}
	t.exec("UPDATE gateway_epochs SET compacted_at = closed_at")
	if err := t.store.Flush(t.Context(), f); asErr[*quota.EpochClosedError](err) == nil {
		t.Errorf("after the compaction: %v", err)
	}
}
