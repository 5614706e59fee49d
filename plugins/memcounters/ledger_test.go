package memcounters

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

const day = 24 * time.Hour

// TestRestart: what was not acknowledged comes again under its old epoch, as
// its last write, and cold counters know of it before the records do.
func TestRestart(t *testing.T) {
	t.Parallel()
	clock, records := newFakeClock(), make(ledger)
	first := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	c := limited(usageCharge("user:a", "jobs", quota.PeriodMonth), 10)
	reserve(t, first, records, c)
	records.flush(first)
	reserve(t, first, records, c)
	old := first.Totals()[0].Epoch

	e := openTest(t, Options{Dir: crash(t, first), Now: clock.now})
	totals := e.Totals()
	if len(totals) != 2 || totals[0].Epoch != old || !totals[0].Final || totals[1].Final || totals[0].Rows[0].Spent != 2 {
		t.Fatalf("totals after a restart: %+v", totals)
	}
	if d := reserve(t, e, records, c); d.Outcomes[0].Used != 3 {
		t.Fatalf("used %d, want 3", d.Outcomes[0].Used)
	}
	records.flush(e)
	if got := len(e.Totals()); got != 1 {
		t.Fatalf("%d epochs after the old one was acknowledged, want 1", got)
	}
	if err := e.Forget(t.Context(), "user:a"); err != nil {
		t.Fatal(err)
	}
	if d := reserve(t, e, records, c); d.Outcomes[0].Used != 4 {
		t.Fatalf("used %d, want 4", d.Outcomes[0].Used)
	}
	third := openTest(t, Options{Dir: crash(t, e), Now: clock.now})
	for _, tt := range third.Totals() {
		if tt.Epoch == old {
			t.Fatal("an acknowledged epoch came back")
		}
	}
	records.flush(third)
	if got := records.of(&c).Spent; got != 4 {
		t.Fatalf("the records have %d, want 4", got)
	}
}

func TestEpochIsUUIDv7(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	id, err := uuid.Parse(newEpoch(clock.now()))
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		t.Fatalf("%v, %v", id, err)
	}
	sec, ns := id.Time().UnixTime()
	if got := time.Unix(sec, ns); !got.Equal(clock.now()) {
		t.Fatalf("the id's time is %s, want %s", got, clock.now())
	}
}

// TestRotation: once a day the epoch ends, and memory is given back.
func TestRotation(t *testing.T) {
	t.Parallel()
	clock, records := newFakeClock(), make(ledger)
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	account := quota.Subject("user:a")
	daily := limited(usageCharge(account, "calls", quota.PeriodDay), 10)
	monthly := limited(usageCharge(account, "jobs", quota.PeriodMonth), 10)
	level := limited(usageCharge(account, "storage", quota.PeriodNone), 10)
	reserve(t, e, records, daily, monthly, level)
	first := e.current
	e.maintain()
	if e.current != first {
		t.Fatal("the epoch ended on its first day")
	}

	clock.advance(day)
	e.maintain()
	if totals := e.Totals(); len(totals) != 2 || totals[0].Epoch != first || len(totals[0].Rows) != 3 || len(totals[1].Rows) != 0 {
		t.Fatalf("totals after the first day: %+v", totals)
	}
	s := e.shard(account.Digest())
	if s.usage[daily.Key] != nil || !s.usage[monthly.Key].warm || !s.usage[level.Key].warm {
		t.Fatalf("counters after the first day: %+v", s.usage)
	}
	// A reservation settles into the period in which it was made, though that has ended.
	if err := e.Refund(t.Context(), []quota.Receipt{daily.Receipt(1), monthly.Receipt(1)}); err != nil {
		t.Fatal(err)
	}
	if d := reserve(t, e, records, monthly); d.Outcomes[0].Used != 1 {
		t.Fatalf("used %d, want 1", d.Outcomes[0].Used)
	}
	records.flush(e)
	for _, want := range []struct {
		c               quota.Charge
		spent, refunded int64
	}{{daily, 1, 1}, {monthly, 2, 1}, {level, 1, 0}} {
		if got := records.of(&want.c); got.Spent != want.spent || got.Refunded != want.refunded {
			t.Errorf("%s: the records have %+v, want %d, %d", want.c.Key.Name, got, want.spent, want.refunded)
		}
	}
	for range 2 { // nobody comes any more
		clock.advance(day)
		e.maintain()
		records.flush(e)
	}
	if len(s.usage) != 0 || len(e.retiring) != 0 {
		t.Fatalf("%d counters and %d epochs stay in memory", len(s.usage), len(e.retiring))
	}
	if d := reserve(t, e, records, monthly, level); d.Outcomes[0].Used != 2 || d.Outcomes[1].Used != 2 {
		t.Fatalf("after memory was given back: %+v", d.Outcomes)
	}
}

// TestLoadAcrossRotation: a load that is under way while the epoch ends is void,
// wherever the end falls.
func TestLoadAcrossRotation(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Engine, ledger){
		"rotated":     func(e *Engine, _ ledger) { e.rotate() },
		"retired row": func(e *Engine, l ledger) { l.flush(e) },
		"rebased":     func(e *Engine, l ledger) { e.Rebase(e.Totals()[0].Epoch, nil) },
	} {
		clock, records := newFakeClock(), make(ledger)
		e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
		c := limited(usageCharge("user:a", "jobs", quota.PeriodMonth), 100)
		reserve(t, e, records, c)
		e.rotate()
		reserve(t, e, records, c)
		if err := e.Forget(t.Context(), "user:a"); err != nil {
			t.Fatal(err)
		}
		var d quota.Decision
		var cold *quota.ColdError
		if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); !errors.As(err, &cold) {
			t.Fatal(err)
		}
		used := records.except(&c, cold.Except) + cold.Carry[0]
		end(e, records)
		base := quota.Base{Key: c.Key, Used: used, Generation: cold.Generation}
		if err := e.Fill(t.Context(), []quota.Base{base}); err != nil {
			t.Fatal(err)
		}
		if d := reserve(t, e, records, c); d.Outcomes[0].Used != 3 {
			t.Errorf("%s: used %d, want 3", name, d.Outcomes[0].Used)
		}
	}
}

// TestRebaseOfAnEndedEpoch: a killed process's epoch was closed before it came
// back. What its log has beyond the records is counted under the new epoch.
func TestRebaseOfAnEndedEpoch(t *testing.T) {
	t.Parallel()
	clock, records := newFakeClock(), make(ledger)
	first := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	a := limited(usageCharge("user:a", "jobs", quota.PeriodMonth), 100)
	b := limited(usageCharge("user:b", "jobs", quota.PeriodMonth), 100)
	for range 3 {
		reserve(t, first, records, a, b)
	}
	records.flush(first)
	reserve(t, first, records, a)
	if err := first.Refund(t.Context(), []quota.Receipt{b.Receipt(2)}); err != nil {
		t.Fatal(err)
	}

	e := openTest(t, Options{Dir: crash(t, first), Now: clock.now})
	reserve(t, e, records, a) // filled while the epoch is held
	closed := e.Totals()[0].Epoch
	e.Rebase(closed, records.rows(closed))
	if d := reserve(t, e, records, a, b); d.Outcomes[0].Used != 6 || d.Outcomes[1].Used != 2 {
		t.Fatalf("after the rebase: %+v", d.Outcomes)
	}
	again := openTest(t, Options{Dir: crash(t, e), Now: clock.now})
	if d := reserve(t, again, records, a, b); d.Outcomes[0].Used != 7 || d.Outcomes[1].Used != 3 {
		t.Fatalf("after the rebase and a kill: %+v", d.Outcomes)
	}
	records.flush(again)
	if got := records.of(&a); got.Spent != 7 {
		t.Errorf("user:a: the records have %+v, want 7 spent", got)
	}
	if got := records.of(&b); got.Spent != 5 || got.Refunded != 2 {
		t.Errorf("user:b: the records have %+v, want 5 spent, 2 refunded", got)
	}
}

// TestRebasedCurrentSurvivesAKill rebases the current epoch and is killed.
func TestRebasedCurrentSurvivesAKill(t *testing.T) {
	t.Parallel()
	clock, records := newFakeClock(), make(ledger)
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	reserve(t, e, records, c)
	records.apply(e.Totals()[0])
	reserve(t, e, records, c)
	closed := e.current
	e.Rebase(closed, records.rows(closed))
	again := openTest(t, Options{Dir: crash(t, e), Now: clock.now})
	records.flush(again)
	if got := records.of(&c).Spent; got != 2 {
		t.Fatalf("the records have %d, want 2", got)
	}
}

// TestColdLevelRefund: a level that is freed falls by no more than is there, so that
// what is there must be known.
func TestColdLevelRefund(t *testing.T) {
	t.Parallel()
	e := openTest(t, Options{Dir: t.TempDir()})
	level := usageCharge("user:a", "storage", quota.PeriodNone)
	jobs := usageCharge("user:a", "jobs", quota.PeriodMonth)
	rs := []quota.Receipt{jobs.Receipt(1), level.Receipt(50)}
	rs[1].Free = true
	err := e.Refund(t.Context(), rs)
	var cold *quota.ColdError
	if !errors.As(err, &cold) || len(cold.Charges) != 1 || cold.Charges[0] != 1 {
		t.Fatalf("refund of a cold level: %v", err)
	}
	if rows := e.Totals()[0].Rows; len(rows) != 0 {
		t.Fatalf("something was given back: %+v", rows)
	}
	base := quota.Base{Key: level.Key, Used: 30, Generation: cold.Generation}
	if err := e.Fill(t.Context(), []quota.Base{base}); err != nil {
		t.Fatal(err)
	}
	if err := e.Refund(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	rows := e.Totals()[0].Rows
	if len(rows) != 2 || rows[0].Refunded != 1 || rows[1].Refunded != 30 {
		t.Fatalf("rows %+v", rows)
	}
}

func TestSweepBoundsMemory(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	keyed := usageCharge("user:a", "jobs", quota.PeriodMonth)
	keyed.Once = quota.Subject("key").Digest()
	reserve(t, e, nil, rateCharge("user:a", "api", 5, time.Second), rateCharge("user:a", "jobs", 5, 48*time.Hour), keyed)
	s := e.shard(keyed.Key.Digest)
	clock.advance(25 * time.Hour)
	for range shards {
		e.maintain()
	}
	if len(s.windows) != 1 || len(s.once) != 0 {
		t.Fatalf("%d windows and %d Onces, want 1 and 0", len(s.windows), len(s.once))
	}
}

func TestDuplicateChargesAreRefused(t *testing.T) {
	t.Parallel()
	e := openTest(t, Options{Dir: t.TempDir()})
	c := rateCharge("user:a", "api", 5, time.Second)
	var d quota.Decision
	wantMessage(t, e.Reserve(t.Context(), []quota.Charge{c, c}, &d), "same counter")
	nobody := usageCharge("", "jobs", quota.PeriodMonth)
	wantMessage(t, e.Reserve(t.Context(), []quota.Charge{nobody}, &d), "without an account")
	wantMessage(t, e.Refund(t.Context(), []quota.Receipt{c.Receipt(1)}), "never given back")
	much := usageCharge("user:a", "jobs", quota.PeriodMonth)
	much.Cost = quota.MaxAmount
	reserve(t, e, nil, much)
	wantMessage(t, e.Reserve(t.Context(), []quota.Charge{much}, &d), "2^53")
}
