package gatetest

import (
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// hit is an admitted request; it happened between before and after.
type hit struct {
	before, after time.Time
	cost          int64
}

// overAdmitted looks at every span of the window's length by brute force.
func overAdmitted(hits []hit, limit int64, window time.Duration) bool {
	for i := range hits {
		var sum int64
		for j := i; j < len(hits) && hits[j].after.Sub(hits[i].before) < window; j++ {
			sum += hits[j].cost
		}
		if sum > limit {
			return true
		}
	}
	return false
}

// trial is a client's behaviour: gaps in milliseconds, and what each request costs.
type trial struct {
	limit  int64
	window time.Duration
	gaps   []int64
	costs  []int64
}

// trials draws clients that know the window's boundaries: random gaps alone do
// not find a limit that admits twice as much.
func trials() *rapid.Generator[trial] {
	return rapid.Custom(func(t *rapid.T) trial {
		w := rapid.OneOf(rapid.Int64Range(10, 40), rapid.SampledFrom([]int64{10, 11, 19, 100, 101, 1000})).Draw(t, "window")
		tr := trial{limit: rapid.Int64Range(1, 12).Draw(t, "limit"), window: time.Duration(w) * time.Millisecond}
		gap := rapid.OneOf(
			rapid.SampledFrom([]int64{0, 0, 0, 1, w / 2, w - 1, w, w + 1, (w + 9) / 10}),
			rapid.Int64Range(0, 2*w),
		)
		n := rapid.IntRange(1, 60).Draw(t, "n")
		for range n {
			tr.gaps = append(tr.gaps, gap.Draw(t, "gap"))
			tr.costs = append(tr.costs, rapid.SampledFrom([]int64{1, 1, 1, 2, tr.limit}).Draw(t, "cost"))
		}
		return tr
	})
}

// each runs f with many drawn values; a real clock allows a few.
func each[T any](s *suite, g *rapid.Generator[T], f func(t tester, v T)) {
	if s.Real {
		for seed := range 3 {
			f(s, g.Example(seed))
		}
		return
	}
	rapid.Check(s.T, func(t *rapid.T) { f(t, g.Draw(t, "v")) })
}

func (s *suite) strictWindow() {
	each(s, trials(), func(t tester, tr trial) {
		subject := s.subject()
		var hits []hit
		for i, gap := range tr.gaps {
			s.Advance(time.Duration(gap) * time.Millisecond)
			c := rate(subject, "api", tr.limit, tr.window)
			c.Cost = tr.costs[i]
			before := s.Now()
			if d := s.try(t, nil, c); d.Admitted() {
				hits = append(hits, hit{before, s.Now(), c.Cost})
			}
		}
		if overAdmitted(hits, tr.limit, tr.window) {
			t.Fatalf("more than %d in a window of %s: %+v", tr.limit, tr.window, hits)
		}
	})
}

func (s *suite) strictConcurrent() {
	const limit = 100
	subject := s.subject()
	var admitted atomic.Int64
	together(16, func(int) {
		for range 20 {
			if d := s.try(s, nil, rate(subject, "api", limit, time.Hour)); d.Admitted() {
				admitted.Add(1)
			}
		}
	})
	if n := admitted.Load(); n != limit {
		s.Fatalf("admitted %d, want %d", n, limit)
	}
}

// denialsMoveNothing: a request that is denied consumes nothing, also where it
// looks at the window with another length than it was filled with.
func (s *suite) denialsMoveNothing() {
	const limit = 2
	short, long := 200*time.Millisecond, 400*time.Millisecond
	if s.Real { // so long that a busy machine does not make it pass meanwhile
		short, long = 10*short, 10*long
	}
	subject := s.subject()
	for range limit {
		if d := s.try(s, nil, rate(subject, "api", limit, short)); !d.Admitted() {
			s.Fatalf("denied below the limit: %+v", d)
		}
	}
	s.Advance(short / 2)
	if d := s.try(s, nil, rate(subject, "api", limit, long)); d.Admitted() {
		s.Fatalf("admitted above the limit of a longer window: %+v", d)
	}
	s.Advance(short/2 + short/10 + 5*time.Millisecond)
	if d := s.try(s, nil, rate(subject, "api", limit, short)); !d.Admitted() {
		s.Fatalf("a denied request has kept the window full: %+v", d)
	}
}

func (s *suite) idleGivesBack() {
	for _, w := range []time.Duration{10 * time.Millisecond, 33 * time.Millisecond, 100 * time.Millisecond} {
		const limit = 7
		c := rate(s.subject(), "api", limit, w)
		for range limit {
			s.try(s, nil, c)
		}
		s.Advance(2 * w)
		c.Cost = limit
		s.admit(c)
	}
}

func (s *suite) halfNeverRefused() {
	const limit, window = 20, 200 * time.Millisecond
	c := rate(s.subject(), "api", limit, window)
	rounds := 200
	if s.Real {
		rounds = 30
	}
	for range rounds {
		s.admit(c)
		s.Advance(window / (limit / 2))
	}
}

func (s *suite) retryAfterTrue() {
	each(s, trials(), func(t tester, tr trial) {
		subject := s.subject()
		for i, gap := range tr.gaps {
			s.Advance(time.Duration(gap) * time.Millisecond)
			c := rate(subject, "api", tr.limit, tr.window)
			c.Cost = tr.costs[i]
			if c.Cost > tr.limit {
				continue
			}
			if d := s.try(t, nil, c); !d.Admitted() {
				s.waitOut(t, c, d)
			}
		}
	})
}

// waitOut is a lone client that waits as long as it was told.
func (s *suite) waitOut(t tester, c quota.Charge, d quota.Decision) {
	wait := d.RetryAfter
	if wait <= 0 || wait != d.Outcomes[0].Wait {
		t.Fatalf("retry after %s, outcome %+v", wait, d.Outcomes[0])
	}
	if limit := time.Duration((quota.Buckets+1)*quota.BucketWidth(c.Limit.Window)) * time.Millisecond; wait > limit {
		t.Fatalf("retry after %s of a window of %s", wait, c.Limit.Window)
	}
	if s.Real {
		s.Advance(wait)
	} else {
		s.Advance(wait - time.Millisecond)
		if d := s.try(t, nil, c); d.Admitted() {
			t.Fatalf("admitted 1ms before the time that was told (%s)", wait)
		}
		s.Advance(time.Millisecond)
	}
	if d := s.try(t, nil, c); !d.Admitted() {
		t.Fatalf("denied after waiting %s as told: %+v", wait, d.Outcomes[0])
	}
}

func (s *suite) costAboveLimit() {
	c := rate(s.subject(), "api", 3, time.Second)
	c.Cost = 4
	if d := s.deny(0, c); d.RetryAfter >= 0 || d.Outcomes[0].Wait >= 0 {
		s.Fatalf("retry after %s, want never", d.RetryAfter)
	}
	none := rate(s.subject(), "api", 0, time.Second)
	if d := s.deny(0, none); d.RetryAfter >= 0 {
		s.Fatalf("a limit of 0: retry after %s, want never", d.RetryAfter)
	}
}

// windowChange: what was counted counts on when a plan has another window, and
// the time that is told stays true.
func (s *suite) windowChange() {
	unit := time.Millisecond
	if s.Real {
		unit = 20 * time.Millisecond // a busy machine has to fill the window before it moves on
	}
	for _, w := range [][2]time.Duration{{100 * unit, 30 * unit}, {30 * unit, 100 * unit}, {10_000 * unit, 20 * unit}} {
		subject := s.subject()
		for range 5 {
			s.admit(rate(subject, "api", 5, w[0]))
		}
		c := rate(subject, "api", 5, w[1])
		s.waitOut(s, c, s.deny(0, c))
	}
}

func (s *suite) reset() {
	subject, other := s.subject(), s.subject()
	for _, scope := range []string{"api", "jobs", "login"} {
		s.admit(rate(subject, scope, 1, time.Hour))
	}
	s.admit(rate(other, "api", 1, time.Hour))

	got, err := s.Engine.Reset(s.Context(), subject, []string{"jobs", "absent"})
	if err != nil {
		s.Fatalf("resetting: %v", err)
	}
	s.wantScopes(got, "jobs")
	s.admit(rate(subject, "jobs", 1, time.Hour))
	s.deny(0, rate(subject, "api", 1, time.Hour))

	got, err = s.Engine.Reset(s.Context(), subject, nil)
	if err != nil {
		s.Fatalf("resetting: %v", err)
	}
	s.wantScopes(got, "api", "jobs", "login")
	s.admit(rate(subject, "api", 1, time.Hour))
	s.deny(0, rate(other, "api", 1, time.Hour))
}

func (s *suite) wantScopes(got []string, want ...string) {
	s.Helper()
	set := make(map[string]bool)
	for _, scope := range got {
		set[scope] = true
	}
	if len(got) != len(want) || len(set) != len(want) {
		s.Fatalf("reset %q, want %q", got, want)
	}
	for _, scope := range want {
		if !set[scope] {
			s.Fatalf("reset %q, want %q", got, want)
		}
	}
}
