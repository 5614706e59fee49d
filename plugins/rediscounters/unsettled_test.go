package rediscounters

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// spoiled is an account's charge whose key holds something else, and that key.
func spoiled(t *testing.T, s *gatetest.RedisServer, o Options, account quota.Subject) (quota.Charge, string) {
	t.Helper()
	c := usageCharge(account, "jobs", quota.PeriodMonth)
	key := string(appendDigest(append(appendTag(nil, o.Prefix, bucketOf(c.Key.Digest)), kindUsage...), c.Key.Digest))
	s.Do(t, "SET", key, "x")
	return c, key
}

// unsettledFall waits until no more than n calls are in doubt, and probes meanwhile.
func unsettledFall(t *testing.T, e *Engine, n int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); e.unsettled.len() > n; time.Sleep(time.Millisecond) {
		if err := e.Probe(t.Context()); err != nil {
			t.Fatalf("Redis is well, and the probe fails: %v", err)
		}
		if time.Now().After(end) {
			t.Fatalf("%d calls are in doubt, want %d", e.unsettled.len(), n)
		}
	}
}

// A key that holds something else is a fault of the calls that need it: Redis can
// be used again after an outage, and what else is in doubt is settled. Once the key
// is as it should be, so are they.
func TestBadKeyConcernsItsOwnCalls(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	o := options(t, s.URL())
	e, l := openTest(t, o), newLedger()
	bad, badKey := spoiled(t, s, o, "user:1")
	mended, mendedKey := spoiled(t, s, o, "user:2")
	var d quota.Decision
	const calls = 2 * settlesAtOnce
	for range calls {
		if err := e.Reserve(t.Context(), []quota.Charge{bad}, &d); kindOf(err) != gate.FaultOther {
			t.Fatalf("charged where a key holds something else: %v", err)
		}
	}
	if err := e.Reserve(t.Context(), []quota.Charge{mended}, &d); kindOf(err) != gate.FaultOther {
		t.Fatalf("charged where a key holds something else: %v", err)
	}
	for range 10 {
		if err := e.Probe(t.Context()); err != nil {
			t.Fatalf("Redis is well, and the probe fails: %v", err)
		}
	}
	s.Do(t, "DEL", mendedKey)
	unsettledFall(t, e, calls)
	s.Do(t, "DEL", badKey)
	unsettledFall(t, e, 0)
	reserveWarm(t, e, l, bad)
	reserveWarm(t, e, l, mended)
	l.flush(e)
	if n := l.net("jobs"); n != 2 {
		t.Errorf("%d of what was admitted is counted, want 2", n)
	}
}

// What cannot be settled for long is given up, and told.
func TestBadKeyIsGivenUp(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	o := options(t, s.URL())
	e := openTest(t, o)
	bad, _ := spoiled(t, s, o, "user:1")
	var d quota.Decision
	if err := e.Reserve(t.Context(), []quota.Charge{bad}, &d); kindOf(err) != gate.FaultOther {
		t.Fatalf("charged where a key holds something else: %v", err)
	}
	e.unsettled.settling.Lock() // nobody settles meanwhile
	if n := e.unsettled.len(); n != 1 {
		t.Errorf("%d calls are in doubt, want 1", n)
	}
	for _, d := range e.unsettled.list {
		d.since, d.again = d.since.Add(-giveUp), time.Time{}
	}
	e.unsettled.settling.Unlock()
	unsettledFall(t, e, 0)
	if n := e.health.abandoned.Load(); n != 1 {
		t.Errorf("%d calls were given up, want 1", n)
	}
}

// What was to be freed by a call that never ran, of a level that Redis has lost since,
// is handed to who can load it: once, and not before.
func TestLostFreeIsOwed(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	e, l := openTest(t, faultOptions(t, s.URL())), newLedger()
	c := usageCharge("user:1", "storage", quota.PeriodNone)
	c.Cost = 30
	reserveWarm(t, e, l, c)
	l.flush(e)
	s.Freeze(t)
	r := c.Receipt(10)
	r.Free = true
	if err := e.Refund(t.Context(), []quota.Receipt{r}); kindOf(err) != gate.FaultTimeout {
		t.Fatalf("freeing without an answer: %v", err)
	}
	if owed := e.Owed(); owed != nil {
		t.Errorf("owed while it may yet run: %+v", owed)
	}
	s.Kill(t)
	s.Start(t)
	gatetest.Await(t, restartLimit, func() error { return e.Probe(t.Context()) })
	unsettledFall(t, e, 0)
	owed := e.Owed()
	if len(owed) != 1 || !slices.Equal(owed[0], []quota.Receipt{r}) {
		t.Fatalf("owed %+v, want %+v", owed, r)
	}
	if again := e.Owed(); again != nil || e.health.abandoned.Load() != 0 {
		t.Errorf("then %+v, and %d calls were given up", again, e.health.abandoned.Load())
	}
	var cold *quota.ColdError
	if err := e.Refund(t.Context(), owed[0]); !errors.As(err, &cold) {
		t.Fatalf("freeing a level that is not known: %v", err)
	}
	if err := e.Fill(t.Context(), []quota.Base{l.base(c.Key, cold)}); err != nil {
		t.Fatal(err)
	}
	if err := e.Refund(t.Context(), owed[0]); err != nil {
		t.Fatal(err)
	}
	l.flush(e)
	if n := l.net("storage"); n != 20 {
		t.Errorf("the level is %d, want 20", n)
	}
}
