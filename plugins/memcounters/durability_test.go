package memcounters

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

const roomy = 1 << 40

// TestReplayModel: after a kill at any time, rate windows, Onces and totals are
// what they were, whether they come from a log, a snapshot or both.
func TestReplayModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		clock := newFakeClock()
		var during func() error // what happens while a snapshot is written
		e, err := Open(Options{Dir: t.TempDir(), Now: clock.now, open: func(path string, at, segment int64) (logFile, error) {
			if strings.HasSuffix(path, ".tmp") {
				if err := during(); err != nil {
					return nil, err
				}
			}
			return openLogFile(path, at, segment)
		}})
		if err != nil {
			rt.Fatal(err)
		}
		defer e.Close() // the copy is what is looked at
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			replayStep(rt, e, clock, &during)
		}
		before := stateOf(e)
		again, err := Open(Options{Dir: crash(t, e), Now: clock.now})
		if err != nil {
			rt.Fatal(err)
		}
		defer again.Close() // nothing was written
		if diff := cmp.Diff(before, stateOf(again), cmpopts.EquateEmpty()); diff != "" {
			rt.Fatalf("after a kill (-before +after):\n%s", diff)
		}
	})
}

func replayStep(t *rapid.T, e *Engine, clock *fakeClock, during *func() error) {
	account := quota.UserSubject(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "account"))
	usage := usageCharge(account, "jobs", quota.PeriodMonth)
	usage.Cost = rapid.Int64Range(0, 5).Draw(t, "cost")
	window := rapid.SampledFrom([]time.Duration{time.Second, 50 * time.Millisecond}).Draw(t, "window")
	if rapid.Bool().Draw(t, "keyed") {
		usage.Once = quota.Subject(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "once")).Digest()
	}
	charge := func() error {
		var d quota.Decision
		return e.Reserve(context.Background(), []quota.Charge{rateCharge(account, "api", 9, window), usage}, &d)
	}
	var err error
	switch rapid.IntRange(0, 9).Draw(t, "op") {
	case 0:
		err = e.Refund(context.Background(), []quota.Receipt{usage.Receipt(usage.Cost)})
	case 1:
		_, err = e.Reset(context.Background(), account, nil)
	case 2:
		charges, fault := rapid.IntRange(0, 2).Draw(t, "charges"), rapid.SampledFrom([]error{nil, syscall.EIO}).Draw(t, "fault")
		*during = func() error {
			for range charges {
				if err := charge(); err != nil {
					return err
				}
			}
			return fault
		}
		if _, err = e.snapshot(shardIndex(account.Digest())); errors.Is(err, fault) {
			err = nil
		}
	case 3:
		e.rotate()
	case 4:
		e.Rebase(e.Totals()[0].Epoch, nil)
	case 5:
		e.Flushed(e.Totals()[0])
	case 6:
		clock.advance(time.Duration(rapid.Int64Range(0, 300).Draw(t, "gap")) * time.Millisecond)
	default:
		err = charge()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// state is what must survive a kill.
type state struct {
	Rates  map[string]int64
	Once   int
	Totals map[string][2]int64 // by account and epoch
}

func stateOf(e *Engine) state {
	st := state{Rates: map[string]int64{}, Totals: map[string][2]int64{}}
	now := e.now().UnixMilli()
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		s.sweep(now)
		for k, w := range s.windows {
			st.Rates[string(k.digest[:])+k.scope] = w.Sum(now, w.Width())
		}
		st.Once += len(s.once)
		for id, tallies := range s.retired {
			for _, t := range tallies {
				st.Totals[id+string(t.account)] = [2]int64{t.spent, t.refunded}
			}
		}
		for _, u := range s.usage {
			if u.spent != 0 || u.refunded != 0 {
				st.Totals[e.current+string(u.account)] = [2]int64{u.spent, u.refunded}
			}
		}
		s.mu.Unlock()
	}
	return st
}

func TestTornTailIsOrdinary(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	c := rateCharge("user:a", "api", 9, time.Hour)
	log := &e.shard(c.Key.Digest).log
	reserve(t, e, nil, c)
	whole := log.size
	reserve(t, e, nil, c)
	b, err := os.ReadFile(log.path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut < log.size; cut++ {
		// A write(2) stops where the file then ends. A store leaves a payload in
		// part or whole, in whatever order it was copied, and no header.
		written := b[:cut]
		stored, backward := slices.Clone(b), slices.Clone(b)
		clear(stored[whole : whole+frameHeader])
		clear(stored[max(cut, whole+frameHeader):])
		clear(backward[whole:max(cut, whole+frameHeader)])
		ways := map[string][]byte{"written": written}
		if cut%5 == 0 {
			ways["stored"], ways["stored backward"] = stored, backward
		}
		for how, b := range ways {
			t.Run(fmt.Sprintf("%s to %d", how, cut), func(t *testing.T) {
				dir := crash(t, e)
				writeSparse(t, filepath.Join(dir, filepath.Base(log.path)), b)
				checkTorn(t, dir, clock, c)
			})
		}
	}
}

// checkTorn opens a log that ends with one good record of c and a torn one.
func checkTorn(t *testing.T, dir string, clock *fakeClock, c quota.Charge) {
	t.Helper()
	for used := int64(1); used <= 2; used++ {
		core, logs := observer.New(zapcore.DebugLevel)
		e, err := Open(Options{Dir: dir, Now: clock.now, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		if got := peekRate(t, e, c); got != used || logs.Len() != 0 {
			t.Fatalf("restart %d: used %d; logged %v", used, got, logs.All())
		}
		reserve(t, e, nil, c) // goes behind what is whole
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCorruptLogIsSetAside(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	c := rateCharge("user:a", "api", 9, time.Hour)
	name := filepath.Base(e.shard(c.Key.Digest).log.path)
	reserve(t, e, nil, c)
	whole := e.shard(c.Key.Digest).log.size
	reserve(t, e, nil, c)
	reserve(t, e, nil, c)

	for fault, damage := range map[string]func(b []byte){
		"a bit":              func(b []byte) { b[frameHeader+3] ^= 0x40 },
		"a length":           func(b []byte) { b[0] ^= 0x08 },
		"a length too large": func(b []byte) { b[3] = 0xff },
		"a hole":             func(b []byte) { clear(b[:frameHeader+16]) },
	} {
		t.Run(fault, func(t *testing.T) {
			dir := crash(t, e)
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damage(b[whole:])
			writeSparse(t, path, b)
			checkSetAside(t, path, clock, c)
		})
	}
}

// checkSetAside opens a log with one good record of c before a corrupt one.
func checkSetAside(t *testing.T, path string, clock *fakeClock, c quota.Charge) {
	t.Helper()
	dir := filepath.Dir(path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for restart, warnings := range []int{1, 0} {
		core, logs := observer.New(zapcore.WarnLevel)
		again, err := Open(Options{Dir: dir, Now: clock.now, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		if got := peekRate(t, again, c); got != 1 || logs.Len() != warnings {
			t.Fatalf("restart %d: used %d, want 1; logged %v", restart, got, logs.All())
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := os.ReadFile(path + ".corrupt")
	if err != nil || string(aside) != string(b) {
		t.Fatalf("the corrupt file was not kept: %v", err)
	}
}

// TestFullDisk: counting goes on, Ping says so, and what was counted meanwhile
// is in the log when there is room again, behind no torn record.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	clock, d := newFakeClock(), newDisk(roomy)
	core, logs := observer.New(zapcore.InfoLevel)
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now, Log: zap.New(core), open: d.open})
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	reserve(t, e, nil, c)
	d.left.Store(11) // within a record
	for range 3 {
		reserve(t, e, nil, c)
	}
	for range 2 {
		e.maintain()
		if err := e.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") {
			t.Fatalf("ping while the disk is full: %v", err)
		}
	}
	d.left.Store(roomy)
	reserve(t, e, nil, c)
	// A kill now finds the torn record at the end, not before others.
	tornCore, torn := observer.New(zapcore.WarnLevel)
	openTest(t, Options{Dir: crash(t, e), Now: clock.now, Log: zap.New(tornCore)})
	if torn.Len() != 0 {
		t.Errorf("records were written behind a torn one: %v", torn.All())
	}
	e.maintain()
	if err := e.Ping(t.Context()); err != nil {
		t.Fatalf("ping after there is room again: %v", err)
	}
	if logs.Len() != 2 {
		t.Errorf("logged %v, want the beginning and the end", logs.All())
	}
	reserve(t, e, nil, c)
	again, records := openTest(t, Options{Dir: crash(t, e), Now: clock.now}), make(ledger)
	records.flush(again)
	if got := records.of(&c).Spent; got != 6 {
		t.Fatalf("spent %d, want 6", got)
	}
}

func TestFailedSyncIsHealed(t *testing.T) {
	t.Parallel()
	d := newDisk(roomy)
	e := openTest(t, Options{Dir: t.TempDir(), open: d.open})
	reserve(t, e, nil, usageCharge("user:a", "jobs", quota.PeriodMonth))
	d.syncErr.Store(true)
	e.maintain()
	if err := e.Ping(t.Context()); err == nil {
		t.Fatal("ping after a failed fsync: nil")
	}
	d.syncErr.Store(false)
	e.maintain()
	if err := e.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestTicker: the log is brought to the disk each second, if there is anything new.
func TestTicker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(roomy)
		e := openTest(t, Options{Dir: dir, open: d.open})
		time.Sleep(tick + 1)
		synctest.Wait()
		opened := d.syncs.Load()
		time.Sleep(5 * tick)
		synctest.Wait()
		if got := d.syncs.Load(); got != opened {
			t.Errorf("%d fsyncs of unchanged files", got-opened)
		}
		reserve(t, e, nil, rateCharge("user:a", "api", 9, time.Hour))
		time.Sleep(tick)
		synctest.Wait()
		if got := d.syncs.Load(); got != opened+1 {
			t.Errorf("%d fsyncs after a change, want 1", got-opened)
		}
	})
}

func TestLogStaysShort(t *testing.T) {
	t.Parallel()
	e := openTest(t, Options{Dir: t.TempDir(), SnapshotBytes: 8 << 10})
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	for range 2000 {
		reserve(t, e, nil, c)
	}
	e.maintain()
	if got := e.shard(c.Key.Digest).log.size; got > 1<<10 {
		t.Fatalf("the log has %d bytes after a snapshot", got)
	}
	info, err := os.Stat(e.shard(c.Key.Digest).log.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 8<<10 {
		t.Fatalf("the log file has %d bytes after a snapshot", info.Size())
	}
	reserve(t, e, nil, c)
	again, records := openTest(t, Options{Dir: crash(t, e)}), make(ledger)
	records.flush(again)
	if got := records.of(&c).Spent; got != 2001 {
		t.Fatalf("spent %d, want 2001", got)
	}
}

func TestClockNeverFallsBehindTheLog(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	clock.advance(time.Hour)
	c := rateCharge("user:a", "api", 1, time.Minute)
	reserve(t, e, nil, c)
	back := newFakeClock() // the host's clock was set back by an hour
	again := openTest(t, Options{Dir: crash(t, e), Now: back.now})
	if d := reserve(t, again, nil, c); d.Admitted() {
		t.Fatal("the window was forgotten")
	}
	back.advance(2 * time.Minute)
	if d := reserve(t, again, nil, c); !d.Admitted() {
		t.Fatal("time stands still")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openTest(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	wantMessage(t, err, dir, "in use by another process", "stop that process", "log <dir>")

	for name, b := range map[string][]byte{
		"version 9": []byte("qgcnt\x09\x00\x20"),
		"version 1": []byte("qgcnt\x01\x00\x20"),
		"not a log": []byte("something else"),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00.log"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the lock was given back
			_, err := Open(Options{Dir: dir})
			wantMessage(t, err, filepath.Join(dir, "00.log"), name)
		}
	}
}

func wantMessage(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not hold %q", err, part)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	e, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var d quota.Decision
	c := usageCharge("user:a", "jobs", quota.PeriodMonth)
	_, resetErr := e.Reset(t.Context(), "user:a", nil)
	for name, err := range map[string]error{
		"ping":    e.Ping(t.Context()),
		"reserve": e.Reserve(t.Context(), []quota.Charge{c}, &d),
		"peek":    e.Peek(t.Context(), []quota.Charge{c}, &d),
		"refund":  e.Refund(t.Context(), []quota.Receipt{c.Receipt(1)}),
		"fill":    e.Fill(t.Context(), []quota.Base{{Key: c.Key}}),
		"forget":  e.Forget(t.Context(), "user:a"),
		"reset":   resetErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
}
