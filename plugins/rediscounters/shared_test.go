package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"pgregory.net/rapid"
)

// again is another engine over the same keys.
func again(t *testing.T, o Options) *Engine { t.Helper(); return openTest(t, o) }

// reserveWarm reserves, loading what is cold from the ledger.
func reserveWarm(t interface{ Fatalf(string, ...any) }, e *Engine, l *ledger, c quota.Charge) quota.Decision {
	var d quota.Decision
	for range 10 {
		err := e.Reserve(context.Background(), []quota.Charge{c}, &d)
		var cold *quota.ColdError
		if err == nil {
			return d
		}
		if !errors.As(err, &cold) {
			t.Fatalf("reserving: %v", err)
		}
		if err := e.Fill(context.Background(), []quota.Base{l.base(c.Key, cold)}); err != nil {
			t.Fatalf("filling: %v", err)
		}
	}
	t.Fatalf("the counter stays cold")
	return d
}

// TestEpochOutlivesItsProcess: what a process had not flushed is read from Redis
// by another, and dropped once; a process that comes back begins another epoch.
func TestEpochOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	o := options(t, gatetest.Redis(t).URL())
	dead, reaper, l := again(t, o), again(t, o), newLedger()
	c := usageCharge("org:a|b:{*}\n", "jobs", quota.PeriodMonth)
	c.Cost = quota.MaxAmount - 5
	level := usageCharge("user:1", "storage", quota.PeriodNone)
	var d quota.Decision
	if err := dead.Reserve(t.Context(), []quota.Charge{c, level}, &d); err != nil {
		t.Fatal(err)
	}
	if err := dead.Refund(t.Context(), []quota.Receipt{c.Receipt(7)}); err != nil {
		t.Fatal(err)
	}
	epoch := dead.current.Load().id
	rows, err := reaper.EpochTotals(t.Context(), epoch)
	if err != nil {
		t.Fatal(err)
	}
	l.apply(epoch, rows)
	want := quota.Total{Account: c.Account, Metric: "jobs", Period: quota.PeriodMonth, Start: c.Key.Start, End: c.End, Spent: c.Cost, Refunded: 7}
	if len(rows) != 2 || rows[0] != want || rows[1].Period != quota.PeriodNone || rows[1].Spent != 1 {
		t.Fatalf("rows %+v, want %+v and a level", rows, want)
	}
	if err := reaper.DropEpoch(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	if rows, err := reaper.EpochTotals(t.Context(), epoch); err != nil || len(rows) != 0 {
		t.Fatalf("after dropping: %v, %v", rows, err)
	}
	c.Cost = 3
	if err := dead.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil {
		t.Fatal(err)
	}
	if dead.current.Load().id == epoch {
		t.Fatal("a dropped epoch is charged on")
	}
	l.flush(dead)
	if got, want := l.net("jobs"), int64(quota.MaxAmount-5-7+3); got != want {
		t.Fatalf("the records have %d, want %d", got, want)
	}
}

// TestKeptEpoch: an epoch that a process has counted by itself is held as if it had
// been counted in Redis: it is read, dropped, and counts where usage is loaded.
func TestKeptEpoch(t *testing.T) {
	t.Parallel()
	o := options(t, gatetest.Redis(t).URL())
	e, l := again(t, o), newLedger()
	c := usageCharge("user:1", "jobs", quota.PeriodMonth)
	c.Limit = quota.Limit{Max: 10}
	reserveWarm(t, e, l, c)
	rows := []quota.Total{
		{Account: "org:a|b:{*}\n", Metric: "storage", Period: quota.PeriodNone, Spent: quota.MaxAmount, Refunded: 1},
		{Account: c.Account, Metric: "jobs", Period: quota.PeriodMonth, Start: c.Key.Start, End: c.End, Spent: 9, Refunded: 2},
	}
	for i := range keepBatch {
		rows = append(rows, quota.Total{Account: c.Account, Metric: "other", Period: quota.PeriodDay, Start: int64(i), Spent: 1})
	}
	older := slices.Clone(rows)
	older[1].Spent, older[1].Refunded = 8, 1
	const epoch = "an epoch"
	for _, rows := range [][]quota.Total{older, rows, older} {
		if err := e.KeepEpoch(t.Context(), epoch, rows); err != nil {
			t.Fatal(err)
		}
	}
	quota.SortTotals(rows)
	held, err := e.EpochTotals(t.Context(), epoch)
	if diff := cmp.Diff(rows, held); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
	if epochs, err := e.Epochs(t.Context()); err != nil || !slices.Contains(epochs, epoch) {
		t.Errorf("%q, %v", epochs, err)
	}
	used := func(want int64) {
		t.Helper()
		if err := e.Forget(t.Context(), c.Account); err != nil {
			t.Fatal(err)
		}
		if d := reserveWarm(t, e, l, c); d.Outcomes[0].Used != want {
			t.Errorf("used %d, want %d", d.Outcomes[0].Used, want)
		}
	}
	used(9)
	l.apply(epoch, rows)
	used(10)
	c.Cost = 0
	if err := e.DropEpoch(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	used(10)
}

// TestRefillCountsOnce: whatever engines charge, forget, flush, die and are
// reaped, and Redis forgets of what the records have, a limited counter knows
// exactly what was used.
func TestRefillCountsOnce(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	o := options(t, s.URL())
	engines := []*Engine{again(t, o), again(t, o), again(t, o)}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		l := newLedger()
		c := usageCharge(quota.Subject(fmt.Sprintf("user:%d", n)), "jobs", quota.PeriodMonth)
		c.Limit = quota.Limit{Max: 1 << 40}
		saved := false
		var used int64
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			e := engines[rapid.IntRange(0, len(engines)-1).Draw(rt, "engine")]
			switch rapid.IntRange(0, 11).Draw(rt, "op") {
			case 0:
				l.flush(e)
			case 1:
				if err := e.Forget(t.Context(), c.Account); err != nil {
					rt.Fatalf("forgetting: %v", err)
				}
			case 2:
				if err := e.Forget(t.Context(), quota.AllSubjects); err != nil {
					rt.Fatalf("forgetting all: %v", err)
				}
			case 3: // its epoch ends, is copied and dropped
				ep := e.current.Load()
				e.Rebase(ep.id, nil)
				l.flush(e)
				reap(rt, engines[0], l, ep.id)
			case 4: // uncounted by a limit, and without a base
				free := c
				free.Limit, free.Cost = quota.Limit{Unlimited: true}, 2
				var d quota.Decision
				if err := e.Reserve(t.Context(), []quota.Charge{free}, &d); err != nil {
					rt.Fatalf("reserving: %v", err)
				}
				used += 2
			case 5:
				if used >= 3 {
					if err := e.Refund(t.Context(), []quota.Receipt{c.Receipt(3)}); err != nil {
						rt.Fatalf("refunding: %v", err)
					}
					used -= 3
				}
			case 6:
				copyBucket(t, s, o.Prefix, "saved", c.Key.Digest)
				saved = true
			case 7: // older data come back
				if saved {
					for _, e := range engines {
						l.flush(e)
					}
					copyBucket(t, s, "saved", o.Prefix, c.Key.Digest)
					if err := e.Forget(t.Context(), quota.AllSubjects); err != nil {
						rt.Fatalf("forgetting all: %v", err)
					}
				}
			default:
				c.Cost = rapid.Int64Range(0, 9).Draw(rt, "cost")
				used += c.Cost
				if d := reserveWarm(rt, e, l, c); d.Outcomes[0].Used != used {
					rt.Fatalf("used %d, want %d", d.Outcomes[0].Used, used)
				}
			}
		}
	})
}

// copyBucket replaces the keys of one prefix in a bucket by copies of another's.
func copyBucket(t *testing.T, s *gatetest.RedisServer, from, to string, d quota.Digest) {
	t.Helper()
	s.Do(t, "EVAL", "for _, k in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do redis.call('DEL', k) end "+
		"for _, k in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do redis.call('COPY', k, ARGV[2] .. k:sub(#ARGV[1] + 1)) end",
		"0", string(appendTag(nil, from, bucketOf(d))), string(appendTag(nil, to, bucketOf(d))))
}

func reap(t *rapid.T, e *Engine, l *ledger, epoch string) {
	rows, err := e.EpochTotals(context.Background(), epoch)
	if err != nil {
		t.Fatalf("reading an epoch: %v", err)
	}
	l.apply(epoch, rows)
	if err := e.DropEpoch(context.Background(), epoch); err != nil {
		t.Fatalf("dropping an epoch: %v", err)
	}
}

// TestKeys: keys hold digests only, a bucket as their tag, and all of them expire.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	account := quota.Subject("user:{secret}*\n")
	c := usageCharge(account, "jobs", quota.PeriodMonth)
	c.Limit, c.Once = quota.Limit{Max: 10}, quota.Subject("key").Digest()
	reserveWarm(t, e, newLedger(), c)
	var d quota.Decision
	if err := e.Reserve(t.Context(), []quota.Charge{rateCharge(account, "api", 5, time.Hour)}, &d); err != nil {
		t.Fatal(err)
	}
	if err := e.Forget(t.Context(), quota.AllSubjects); err != nil {
		t.Fatal(err)
	}
	keys := strings.Fields(s.Do(t, "KEYS", "*"))
	form := regexp.MustCompile(`^test\d+:\{(0\d{3}|10[01]\d|102[0-3])\}:(meta|(epoch:[0-9a-f-]{36})|([ruo]:[A-Za-z0-9_-]{22}))$`)
	for _, k := range keys {
		if !form.MatchString(k) {
			t.Errorf("key %q", k)
		}
	}
	eternal := s.Do(t, "EVAL", "local n = {} for _, k in ipairs(redis.call('KEYS', '*')) do "+
		"if redis.call('PTTL', k) <= 0 then n[#n + 1] = k end end return n", "0")
	if eternal != "" {
		t.Errorf("these keys do not expire: %s", eternal)
	}
	if len(keys) < 5 {
		t.Errorf("keys %q", keys)
	}
}

// TestDenialsAreRemembered: what a rate limit refused is refused without Redis
// until it may be admitted; what a quota refused is asked again.
func TestDenialsAreRemembered(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	calls := func() string { return s.Do(t, "INFO", "commandstats") }
	scripts := func() string {
		for _, line := range strings.Split(calls(), "\n") {
			if strings.HasPrefix(line, "cmdstat_evalsha:") {
				n, _, _ := strings.Cut(line, ",")
				return n
			}
		}
		return ""
	}
	decide := func(c quota.Charge, admitted bool) quota.Decision {
		t.Helper()
		var d quota.Decision
		if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil || d.Admitted() != admitted {
			t.Fatalf("%+v, %v; want admitted %v", d, err, admitted)
		}
		return d
	}
	c := rateCharge("user:1", "api", 1, 300*time.Millisecond)
	decide(c, true)
	first := decide(c, false)
	before := scripts()
	for range 10 {
		if d := decide(c, false); d.RetryAfter <= 0 || d.RetryAfter > first.RetryAfter || d.Denied != 0 {
			t.Fatalf("remembered as %+v, first %+v", d, first)
		}
	}
	if after := scripts(); after != before {
		t.Errorf("redis was asked: %s, then %s", before, after)
	}
	other := c
	other.Limit.Max = 2
	decide(other, true) // another plan
	if _, err := e.Reset(t.Context(), "user:1", nil); err != nil {
		t.Fatal(err)
	}
	decide(c, true)
	decide(c, false)
	if err := e.Forget(t.Context(), "user:1"); err != nil {
		t.Fatal(err)
	}
	if n := e.denials.count.Load(); n != 0 {
		t.Errorf("%d refusals are remembered of a forgotten account", n)
	}
	last := decide(c, false)
	time.Sleep(last.RetryAfter) // a lone client waits as it was told
	decide(c, true)

	q := usageCharge("user:2", "jobs", quota.PeriodMonth)
	q.Limit = quota.Limit{Max: 0}
	if d := reserveWarm(t, e, newLedger(), q); d.Admitted() {
		t.Fatal("a quota of nothing admits")
	}
	before = scripts()
	decide(q, false)
	if after := scripts(); after == before {
		t.Error("a quota's refusal was remembered")
	}
}

// TestDenialsOnTheirWay: a refusal from before its caller was cleared, which
// arrives after, is not remembered.
func TestDenialsOnTheirWay(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	p := gatetest.NewProxy(t, s.Addr())
	o := options(t, "redis://"+p.Addr())
	e := openTest(t, o)
	o.Address, _ = address.Parse(s.URL())
	other := openTest(t, o)
	c := rateCharge("user:1", "api", 1, time.Hour)
	var d quota.Decision
	reserve := func(e *Engine) error { return e.Reserve(t.Context(), []quota.Charge{c}, &d) }
	if err := errors.Join(reserve(other), other.Peek(t.Context(), []quota.Charge{c}, &d), e.Peek(t.Context(), []quota.Charge{c}, &d)); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "CONFIG", "RESETSTAT")
	p.Delay(t, 500*time.Millisecond) // of the answer
	asked := make(chan error, 1)
	go func() { asked <- reserve(e) }()
	s.Await(t, "cmdstat_evalsha:calls=1,", "INFO", "commandstats") // it is refused
	if _, err := other.Reset(t.Context(), "user:1", nil); err != nil {
		t.Fatal(err)
	}
	e.denials.drop(quota.Subject("user:1").Digest()) // as every gateway does when it is told
	p.Delay(t, 0)
	if err := <-asked; err != nil || d.Admitted() {
		t.Fatalf("%+v, %v", d, err)
	}
	if n := e.denials.count.Load(); n != 0 {
		t.Errorf("%d refusals from before are remembered", n)
	}
	if err := reserve(e); err != nil || !d.Admitted() {
		t.Errorf("after it was cleared: %+v, %v", d, err)
	}
}

// TestClockGoesBack: what was counted while Redis's clock was ahead leaves within
// a window of the right time, and is counted until then.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	o := options(t, s.URL())
	e := openTest(t, o)
	const window = 500 * time.Millisecond
	for name, other := range map[string]time.Duration{"the same window": window, "another window": 2 * window} {
		account := quota.UserSubject(name)
		c := rateCharge(account, "api", 2, window)
		var d quota.Decision
		for range 2 {
			if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil || !d.Admitted() {
				t.Fatalf("%s: %+v, %v", name, d, err)
			}
		}
		digest := account.Digest()
		key := string(appendDigest(append(appendTag(nil, o.Prefix, bucketOf(digest)), kindRates...), digest))
		// As if both had been counted an hour from now.
		s.Do(t, "EVAL", "local w = { cmsgpack.unpack(redis.call('HGET', KEYS[1], 'api')) } w[2] = w[2] + 11 * math.floor(3600000 / w[1] / 11) "+
			"redis.call('HSET', KEYS[1], 'api', cmsgpack.pack(unpack(w)))", "1", key)
		c.Limit.Window = other
		if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil || d.Admitted() || d.RetryAfter > 3*window {
			t.Fatalf("%s: %+v, %v", name, d, err)
		}
		time.Sleep(d.RetryAfter)
		c.Cost = 2
		gatetest.Await(t, 3*window, func() error {
			if err := e.Reserve(t.Context(), []quota.Charge{c}, &d); err != nil || !d.Admitted() {
				return fmt.Errorf("%s: %+v, %w", name, d, err)
			}
			return nil
		})
	}
}

// TestPolicy: a Redis that may evict counters is reported.
func TestPolicy(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	for policy, wrong := range map[string]bool{"allkeys-lru": true, "volatile-ttl": true, "noeviction": false} {
		s.Do(t, "CONFIG", "SET", "maxmemory-policy", policy)
		e.checkPolicy(t.Context())
		err := e.Ping(t.Context())
		if (err != nil) != wrong || (wrong && !strings.Contains(err.Error(), "noeviction")) {
			t.Errorf("%s: %v", policy, err)
		}
		if e.MayEvict() != wrong {
			t.Errorf("%s: may evict: %t", policy, !wrong)
		}
	}
	s.Kill(t)
	if err := e.Ping(t.Context()); err == nil {
		t.Error("a killed server answers")
	}
}

// TestFailoverToALaggingReplica: the replica lacks the latest charges when
// Sentinels promote it.
func TestFailoverToALaggingReplica(t *testing.T) {
	t.Parallel()
	s := gatetest.Sentinels(t)
	e := openTest(t, faultOptions(t, s.URL()))
	ld := startLoad(t, e, newLedger(), 8)
	ld.served(t, 200)
	s.Servers[1].Freeze(t)
	ld.served(t, 200)
	s.Servers[0].Kill(t)
	s.Servers[1].Thaw(t)
	ld.failed(t, 1)
	ld.served(t, 200)
	ld.end(t)
	if role := s.Servers[1].Do(t, "ROLE"); !strings.HasPrefix(role, "master") {
		t.Errorf("the replica was not promoted: %s", role)
	}
}
