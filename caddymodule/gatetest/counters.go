package gatetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Counters is an open, empty engine with its clock.
type Counters struct {
	Engine gate.Engine
	// Now is the counters' own clock.
	Now func() time.Time
	// Advance lets time pass on it.
	Advance func(time.Duration)
	// Real says that the clock also runs by itself (Advance sleeps): instants are
	// then asserted within what is certain, and fewer cases are tried.
	Real bool
}

// RunCounters is the conformance suite of counters engines: what gate.Engine
// promises, whatever stands behind it. open is called once for each test and
// closes the engine in t.Cleanup.
func RunCounters(t *testing.T, open func(t *testing.T) *Counters) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"strict window", (*suite).strictWindow},
		{"strict under concurrency", (*suite).strictConcurrent},
		{"two idle windows give all back", (*suite).idleGivesBack},
		{"denials move nothing", (*suite).denialsMoveNothing},
		{"half the rate is never refused", (*suite).halfNeverRefused},
		{"retry after is true", (*suite).retryAfterTrue},
		{"a cost above the limit never fits", (*suite).costAboveLimit},
		{"a window changes its length", (*suite).windowChange},
		{"all or nothing", (*suite).allOrNothing},
		{"all or nothing under concurrency", (*suite).allOrNothingConcurrent},
		{"order of denials", (*suite).denialOrder},
		{"quota is exact under concurrency", (*suite).quotaConcurrent},
		{"quota against a model", (*suite).quotaModel},
		{"unlimited is counted", (*suite).unlimited},
		{"need", (*suite).need},
		{"force", (*suite).force},
		{"as known", (*suite).asKnown},
		{"once", (*suite).once},
		{"refund", (*suite).refund},
		{"a level falls to zero, not below", (*suite).level},
		{"a level that was taken is given back", (*suite).takenLevel},
		{"periods are apart", (*suite).periods},
		{"peek takes nothing", (*suite).peek},
		{"reset", (*suite).reset},
		{"cold, fill, forget", (*suite).cold},
		{"a stale fill is ignored", (*suite).staleFill},
		{"hostile subjects never meet", (*suite).hostileSubjects},
		{"what cannot be counted is refused", (*suite).refused},
		{"ledger equals what was admitted", (*suite).ledgerModel},
		{"acknowledging beside new charges", (*suite).ledgerConcurrent},
		{"an acknowledgement of old totals", (*suite).ledgerStaleAck},
		{"rebase", (*suite).rebase},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&suite{T: t, Counters: open(t)})
		})
	}
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

type suite struct {
	*testing.T
	*Counters
	subjects atomic.Int64
}

// subject is a user that no other case of the test knows.
func (s *suite) subject() quota.Subject {
	return quota.UserSubject(fmt.Sprintf("%d", s.subjects.Add(1)))
}

func rate(subject quota.Subject, scope string, limit int64, window time.Duration) quota.Charge {
	return quota.Charge{
		Key:   quota.Key{Digest: subject.Digest(), Name: scope, Space: quota.SpaceRate},
		Limit: quota.Limit{Max: limit, Window: window}, Cost: 1, Status: 429,
	}
}

func (s *suite) spend(account quota.Subject, metric string, p quota.Period, limit, cost int64) quota.Charge {
	start, end := p.Span(s.Now(), time.Time{})
	c := quota.Charge{
		Key:     quota.Key{Digest: account.Digest(), Name: metric, Space: quota.SpaceUsage, Period: p},
		Account: account, Limit: quota.Limit{Max: limit}, Cost: cost, Status: 402,
	}
	if p != quota.PeriodNone {
		c.Key.Start, c.End = start.Unix(), end.Unix()
	}
	return c
}

func unlimited(c quota.Charge) quota.Charge {
	c.Limit = quota.Limit{Unlimited: true, Window: c.Limit.Window}
	return c
}

func once(c quota.Charge, id string) quota.Charge {
	c.Once = quota.Subject(id).Digest()
	return c
}

// try reserves; cold counters are filled from bases, where a key is absent with 0.
func (s *suite) try(t tester, bases map[quota.Key]int64, cs ...quota.Charge) quota.Decision {
	t.Helper()
	return s.decide(t, s.Engine.Reserve, bases, cs)
}

type call func(ctx context.Context, cs []quota.Charge, d *quota.Decision) error

func (s *suite) decide(t tester, f call, bases map[quota.Key]int64, cs []quota.Charge) quota.Decision {
	t.Helper()
	var d quota.Decision
	for range 100 { // others may forget or rebase in between
		err := f(s.Context(), cs, &d)
		if err == nil {
			if len(d.Outcomes) != len(cs) {
				t.Fatalf("%d outcomes for %d charges", len(d.Outcomes), len(cs))
			}
			return d
		}
		var cold *quota.ColdError
		if !errors.As(err, &cold) {
			t.Fatalf("reserving: %v", err)
		}
		s.fill(t, cold, bases, func(i int) quota.Key { return cs[i].Key })
	}
	t.Fatalf("the counters stay cold")
	return d
}

func (s *suite) fill(t tester, cold *quota.ColdError, bases map[quota.Key]int64, key func(i int) quota.Key) {
	t.Helper()
	if len(cold.Carry) != len(cold.Charges) || len(cold.Charges) == 0 || len(cold.Except) == 0 {
		t.Fatalf("malformed %+v", cold)
	}
	var bs []quota.Base
	for n, i := range cold.Charges {
		k := key(i)
		bs = append(bs, quota.Base{Key: k, Used: bases[k] + cold.Carry[n], Generation: cold.Generation})
	}
	if err := s.Engine.Fill(s.Context(), bs); err != nil {
		t.Fatalf("filling: %v", err)
	}
}

// giveBack refunds, filling cold levels that are freed with 0.
func (s *suite) giveBack(t tester, rs ...quota.Receipt) {
	t.Helper()
	err := s.Engine.Refund(s.Context(), rs)
	var cold *quota.ColdError
	if errors.As(err, &cold) {
		s.fill(t, cold, nil, func(i int) quota.Key { return rs[i].Key })
		err = s.Engine.Refund(s.Context(), rs)
	}
	if err != nil {
		t.Fatalf("refunding: %v", err)
	}
}

// admit reserves what must be admitted.
func (s *suite) admit(cs ...quota.Charge) quota.Decision {
	s.Helper()
	d := s.try(s, nil, cs...)
	if !d.Admitted() {
		s.Fatalf("denied by charge %d, want admitted: %+v", d.Denied, d.Outcomes)
	}
	return d
}

// deny reserves what must be denied, reported by the given charge.
func (s *suite) deny(by int, cs ...quota.Charge) quota.Decision {
	s.Helper()
	d := s.try(s, nil, cs...)
	if d.Denied != by {
		s.Fatalf("denied by %d, want %d: %+v", d.Denied, by, d.Outcomes)
	}
	for i, o := range d.Outcomes {
		if o.Charged != 0 {
			s.Fatalf("charge %d took %d of a denied request", i, o.Charged)
		}
	}
	return d
}

// used is what a charge's counter holds.
func (s *suite) used(c quota.Charge) int64 {
	s.Helper()
	c.Cost, c.Need, c.Once = 0, 0, quota.Digest{}
	d := s.decide(s, s.Engine.Peek, nil, []quota.Charge{c})
	return d.Outcomes[0].Used
}

func (s *suite) wantUsed(c quota.Charge, want int64) {
	s.Helper()
	if got := s.used(c); got != want {
		s.Fatalf("%s: used %d, want %d", c.Key.Name, got, want)
	}
}

// together runs f in n goroutines at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}
