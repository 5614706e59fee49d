package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// ledger is what the records hold: totals by epoch and counter, never falling.
type ledger struct {
	mu        sync.Mutex
	rows      map[string]quota.Total
	compacted map[string]bool // epochs
}

func newLedger() *ledger {
	return &ledger{rows: make(map[string]quota.Total), compacted: make(map[string]bool)}
}

func (l *ledger) apply(epoch string, rows []quota.Total) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range rows {
		k := fmt.Sprintf("%s|%s|%s|%d|%d", epoch, r.Account, r.Metric, r.Period, r.Start)
		old := l.rows[k]
		r.Spent, r.Refunded = max(r.Spent, old.Spent), max(r.Refunded, old.Refunded)
		l.rows[k] = r
	}
}

func (l *ledger) flush(e *Engine) {
	for _, t := range e.Totals() {
		l.apply(t.Epoch, t.Rows)
		e.Flushed(t)
	}
}

// net is what was admitted of a metric and not given back.
func (l *ledger) net(metric string) (sum int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		if r.Metric == metric {
			sum += r.Spent - r.Refunded
		}
	}
	return sum
}

// compact makes an epoch one that can no longer be told apart.
func (l *ledger) compact(epoch string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.compacted[epoch] = true
}

// base is quota's load: all epochs but those that the counters hold themselves,
// and what there is of these.
func (l *ledger) base(k quota.Key, cold *quota.ColdError) quota.Base {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := quota.Base{Key: k, Used: cold.Carry[0], Recorded: make([]quota.Total, len(cold.Except)), Generation: cold.Generation}
	for i, epoch := range cold.Except {
		if l.compacted[epoch] {
			b.Recorded[i] = quota.Total{Spent: quota.MaxAmount, Refunded: quota.MaxAmount}
		}
	}
	for id, r := range l.rows {
		epoch, _, _ := strings.Cut(id, "|")
		if i := slices.Index(cold.Except, epoch); r.Key() != k {
			continue
		} else if i < 0 || l.compacted[epoch] {
			b.Used += r.Spent - r.Refunded
		} else {
			b.Recorded[i] = r
		}
	}
	return b
}

// load is callers that charge and give back until stop; it counts what they
// were told.
type load struct {
	e        *Engine
	l        *ledger
	admitted atomic.Int64 // less what was given back
	errors   atomic.Int64
	stop     chan struct{}
	wg       sync.WaitGroup
}

const loadMetric = "calls"

func startLoad(t *testing.T, e *Engine, l *ledger, workers int) *load {
	t.Helper()
	ld := &load{e: e, l: l, stop: make(chan struct{})}
	for w := range workers {
		ld.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ld.stop:
					return
				default:
					ld.once(t, w, i)
				}
			}
		})
	}
	ld.wg.Go(func() { // as a gateway does each second, and faster
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ld.stop:
				return
			case <-tick.C:
				l.flush(e)
			}
		}
	})
	return ld
}

func (ld *load) once(t *testing.T, w, i int) {
	account := quota.UserSubject(fmt.Sprintf("%d", (w*7+i)%20))
	c := usageCharge(account, loadMetric, quota.PeriodMonth)
	cs := []quota.Charge{rateCharge(account, "api", 1<<40, time.Minute), c}
	var d quota.Decision
	if err := ld.e.Reserve(context.Background(), cs, &d); err != nil {
		var fault *gate.CounterError
		if !errors.As(err, &fault) {
			t.Errorf("reserving: %v", err)
		}
		ld.errors.Add(1)
		return
	}
	ld.admitted.Add(d.Outcomes[1].Charged)
	if i%3 != 0 {
		return
	}
	err := ld.e.Refund(context.Background(), []quota.Receipt{c.Receipt(1)})
	var fault *gate.CounterError
	switch {
	case err == nil:
		ld.admitted.Add(-1)
	case errors.As(err, &fault) && fault.NotRun: // it stays charged
	case fault != nil: // the counters complete it
		ld.admitted.Add(-1)
	default:
		t.Errorf("refunding: %v", err)
	}
}

// end stops the load and waits until nothing is in doubt.
func (ld *load) end(t *testing.T) {
	t.Helper()
	close(ld.stop)
	ld.wg.Wait()
	gatetest.Await(t, 20*time.Second, func() error {
		if err := ld.e.Probe(t.Context()); err != nil {
			return err
		}
		if n := ld.e.unsettled.len(); n > 0 {
			return fmt.Errorf("%d calls are in doubt", n)
		}
		return nil
	})
	ld.l.flush(ld.e)
	got, want := ld.l.net(loadMetric), ld.admitted.Load()
	t.Logf("%d admitted and kept, %d calls failed, LOST %d DOUBLED %d", want, ld.errors.Load(), max(0, want-got), max(0, got-want))
	if got != want {
		t.Errorf("the records have %d, want %d", got, want)
	}
	if want == 0 {
		t.Error("nothing was admitted")
	}
}

// served waits until another n requests were admitted or failed.
func (ld *load) served(t *testing.T, n int64) {
	t.Helper()
	until := ld.admitted.Load() + n
	gatetest.Await(t, 20*time.Second, func() error {
		if got := ld.admitted.Load(); got < until {
			return fmt.Errorf("%d of %d admitted, %d failed", got, until, ld.errors.Load())
		}
		return nil
	})
}

func (ld *load) failed(t *testing.T, n int64) {
	t.Helper()
	until := ld.errors.Load() + n
	gatetest.Await(t, 20*time.Second, func() error {
		if got := ld.errors.Load(); got < until {
			return fmt.Errorf("%d of %d failed", got, until)
		}
		return nil
	})
}

func faultOptions(t *testing.T, url string) Options {
	t.Helper()
	o := options(t, url)
	o.Timeout = 100 * time.Millisecond
	return o
}

// TestExactThroughFaults: whatever becomes of Redis, the records end with what
// the callers were told was admitted and not given back.
func TestExactThroughFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		// patient calls do not time out on a busy machine: none may fail.
		patient bool
		harm    func(t *testing.T, s *gatetest.RedisServer, ld *load)
	}{
		"kill without AOF": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			s.Kill(t)
			ld.failed(t, 5)
			s.Start(t)
		}},
		"kill with AOF": {args: []string{"--appendonly", "yes", "--appendfsync", "always"},
			harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
				s.Kill(t)
				ld.failed(t, 5)
				s.Start(t)
			}},
		"frozen": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			s.Freeze(t)
			ld.failed(t, 20)
			s.Thaw(t)
		}},
		"data flushed": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) { s.Do(t, "FLUSHALL") }},
		"scripts flushed": {patient: true, harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			before := ld.errors.Load()
			s.Do(t, "SCRIPT", "FLUSH")
			ld.served(t, 50)
			if n := ld.errors.Load() - before; n > 0 {
				t.Errorf("%d calls failed", n)
			}
		}},
		"full memory": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			s.Do(t, "CONFIG", "SET", "maxmemory", "1")
			ld.failed(t, 20)
			s.Do(t, "CONFIG", "SET", "maxmemory", "0")
		}},
		"a replica": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			s.Do(t, "CONFIG", "SET", "replica-serve-stale-data", "yes")
			s.Do(t, "REPLICAOF", "127.0.0.1", "1")
			ld.failed(t, 20)
			s.Do(t, "REPLICAOF", "NO", "ONE")
		}},
		"a script that does not end": {args: []string{"--lua-time-limit", "20"},
			harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
				busy := make(chan struct{})
				go func() {
					defer close(busy)
					_ = s.TryDo(t, "EVAL", "while true do end", "0") // ends with SCRIPT KILL
				}()
				ld.failed(t, 20)
				gatetest.Await(t, 10*time.Second, func() error { return s.TryDo(t, "SCRIPT", "KILL") })
				<-busy
			}},
		"connections killed": {harm: func(t *testing.T, s *gatetest.RedisServer, ld *load) {
			for range 10 {
				s.Do(t, "CLIENT", "KILL", "TYPE", "normal")
				ld.served(t, 5)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := gatetest.Redis(t, test.args...)
			o := faultOptions(t, s.URL())
			if test.patient {
				o.Timeout = 10 * time.Second
			}
			e := openTest(t, o)
			ld := startLoad(t, e, newLedger(), 8)
			for range 3 {
				ld.served(t, 100)
				test.harm(t, s, ld)
			}
			ld.served(t, 100)
			ld.end(t)
		})
	}
}

// TestSlowNetwork: what concerns every bucket, or every call in doubt, does not
// take as many round trips after one another.
func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	const (
		delay = 20 * time.Millisecond
		long  = 10 * time.Second // one after the other, 1,024 buckets take 20 s and more
	)
	s := gatetest.Redis(t)
	p := gatetest.NewProxy(t, s.Addr())
	o := options(t, "redis://"+p.Addr())
	o.Timeout = time.Second
	e := openTest(t, o)
	c := usageCharge("user:1", loadMetric, quota.PeriodMonth)
	var d quota.Decision
	if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil {
		t.Fatal(err)
	}
	p.Delay(t, delay)
	within := func(what string, most time.Duration, do func() error) {
		t.Helper()
		began := time.Now()
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(began); took > most {
			t.Errorf("%s took %s", what, took)
		}
	}
	within("forgetting all", long, func() error { return e.Forget(t.Context(), quota.AllSubjects) })
	within("dropping an epoch", long, func() error { return e.DropEpoch(t.Context(), e.current.Load().id) })

	p.Hang(t)
	const calls = 300
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			var d quota.Decision
			if err := e.Reserve(context.Background(), []quota.Charge{c}, &d); kindOf(err) != gate.FaultTimeout {
				t.Errorf("while the network hangs: %v", err)
			}
		})
	}
	wg.Wait()
	p.Resume(t)
	gatetest.Await(t, long, func() error { return e.Probe(t.Context()) })
	within("settling", 3*time.Second, func() error { // one after the other: 6 s
		for e.unsettled.len() > 0 {
			if err := e.settleAll(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestReturnIsNoticed: whoever asks a server that has come back is answered, however
// often it could not be reached before.
func TestReturnIsNoticed(t *testing.T) {
	t.Parallel()
	p := gatetest.NewProxy(t, gatetest.Redis(t).Addr())
	o := options(t, "redis://"+p.Addr())
	o.Timeout = time.Second
	e := openTest(t, o)
	var d quota.Decision
	reserve := func() error {
		return e.Reserve(t.Context(), []quota.Charge{rateCharge("user:1", "api", 1<<40, time.Minute)}, &d)
	}
	if err := reserve(); err != nil {
		t.Fatal(err)
	}
	p.Down()
	for range 50 {
		if e.Probe(t.Context()) == nil || reserve() == nil {
			t.Fatal("a server that is away answers")
		}
	}
	p.Up(t)
	if err := errors.Join(e.Probe(t.Context()), reserve()); err != nil {
		t.Error(err)
	}
}
