package gatetest

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// mixed are charges of all kinds on several subjects, which a sharded engine
// keeps apart.
func (s *suite) mixed(user, org quota.Subject, api, jobs int64) []quota.Charge {
	return []quota.Charge{
		rate(user, "api", api, time.Hour),
		s.spend(org, "jobs", quota.PeriodMonth, jobs, 1),
		rate(org, "jobs", 1000, time.Hour),
		unlimited(s.spend(user, "calls", quota.PeriodDay, 0, 2)),
	}
}

func (s *suite) allOrNothing() {
	user, org := s.subject(), s.subject()
	for range 3 {
		s.admit(s.mixed(user, org, 100, 3)...)
	}
	for range 5 {
		s.deny(1, s.mixed(user, org, 100, 3)...) // by the quota
		s.deny(0, s.mixed(user, org, 3, 100)...) // by the rate
	}
	for i, want := range []int64{3, 3, 3, 6} {
		s.wantUsed(s.mixed(user, org, 100, 100)[i], want)
	}
}

// allOrNothingConcurrent lets requests of many pairs of subjects fight for
// common counters, locked in every order.
func (s *suite) allOrNothingConcurrent() {
	const subjects, workers, rounds, limit = 6, 12, 60, 25
	names := make([]quota.Subject, subjects)
	for i := range names {
		names[i] = s.subject()
	}
	var admitted [subjects]atomic.Int64
	together(workers, func(w int) {
		for i := range rounds {
			a, b := (w+i)%subjects, (w*3+i*5+1)%subjects
			if a == b {
				continue
			}
			d := s.try(s, nil,
				s.spend(names[a], "jobs", quota.PeriodMonth, limit, 1), rate(names[b], "api", 1000000, time.Hour),
				s.spend(names[b], "jobs", quota.PeriodMonth, limit, 1), rate(names[a], "api", 1000000, time.Hour))
			if d.Admitted() {
				admitted[a].Add(1)
				admitted[b].Add(1)
			}
		}
	})
	for i, name := range names {
		n := admitted[i].Load()
		if n > limit {
			s.Errorf("subject %d: %d admitted, limit %d", i, n, limit)
		}
		s.wantUsed(s.spend(name, "jobs", quota.PeriodMonth, limit, 1), n)
		s.wantUsed(rate(name, "api", 1000000, time.Hour), n)
	}
}

func (s *suite) denialOrder() {
	user := s.subject()
	full := func() []quota.Charge {
		return []quota.Charge{
			rate(user, "api", 1, time.Minute),
			rate(user, "jobs", 1, time.Hour),
			s.spend(user, "calls", quota.PeriodDay, 1, 1),
			s.spend(user, "jobs", quota.PeriodMonth, 1, 1),
		}
	}
	s.admit(full()...)
	d := s.deny(3, full()...)
	if end := time.Unix(full()[3].End, 0).Sub(s.Now()); d.RetryAfter < end-time.Second || d.RetryAfter > end+time.Minute {
		s.Fatalf("retry after %s, want the month's end in %s", d.RetryAfter, end)
	}
	d = s.deny(1, full()[:2]...)
	if d.RetryAfter != d.Outcomes[1].Wait || d.RetryAfter < time.Hour-time.Minute {
		s.Fatalf("retry after %s, want the hour's wait: %+v", d.RetryAfter, d.Outcomes)
	}
	level := s.spend(user, "storage", quota.PeriodNone, 1, 2)
	if d := s.deny(4, append(full(), level)...); d.RetryAfter >= 0 {
		s.Fatalf("retry after %s where waiting does not help", d.RetryAfter)
	}
}

func (s *suite) quotaConcurrent() {
	const limit = 500
	user := s.subject()
	c := s.spend(user, "jobs", quota.PeriodMonth, limit, 1)
	bases := map[quota.Key]int64{c.Key: 37}
	var admitted atomic.Int64
	together(64, func(int) {
		for range 20 {
			if d := s.try(s, bases, c); d.Admitted() {
				admitted.Add(1)
			}
		}
	})
	if n := admitted.Load(); n != limit-37 {
		s.Fatalf("admitted %d, want %d", n, limit-37)
	}
	s.wantUsed(c, limit)
}

// quotaModel compares a quota with a plain number.
func (s *suite) quotaModel() {
	type step struct {
		Refund bool
		Amount int64
	}
	g := rapid.Custom(func(t *rapid.T) []step {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{rapid.Bool().Draw(t, "refund"), rapid.Int64Range(0, 12).Draw(t, "amount")}
		}), 1, 40).Draw(t, "steps")
	})
	each(s, g, func(t tester, steps []step) {
		const limit = 40
		account, used := s.subject(), int64(0)
		var receipts []quota.Receipt
		for _, st := range steps {
			c := s.spend(account, "units", quota.PeriodMonth, limit, st.Amount)
			if st.Refund && len(receipts) > 0 {
				r := receipts[0]
				receipts = receipts[1:]
				s.giveBack(t, r)
				used -= r.Amount
				continue
			}
			d := s.try(t, nil, c)
			if d.Admitted() != (used+st.Amount <= limit) {
				t.Fatalf("cost %d beside %d of %d: admitted %v", st.Amount, used, limit, d.Admitted())
			}
			if d.Admitted() {
				used += st.Amount
				receipts = quota.AppendReceipts(receipts, []quota.Charge{c}, &d)
			}
			if d.Outcomes[0].Used != used {
				t.Fatalf("used %d, want %d", d.Outcomes[0].Used, used)
			}
		}
	})
}

func (s *suite) unlimited() {
	user := s.subject()
	c := unlimited(s.spend(user, "jobs", quota.PeriodMonth, 0, 1000))
	var d quota.Decision
	for i := range int64(3) { // without a base: it is not needed to count
		if err := s.Engine.Reserve(s.Context(), []quota.Charge{c}, &d); err != nil || !d.Admitted() {
			s.Fatalf("an unlimited charge: %v, %+v", err, d)
		}
		if o := d.Outcomes[0]; o.Charged != 1000 || o.Used != 1000*(i+1) || o.Exceeded {
			s.Fatalf("outcome %+v", o)
		}
	}
	limited := s.spend(user, "jobs", quota.PeriodMonth, 4000, 1000)
	s.admit(limited) // the next plan has a limit: what was used counts
	s.deny(0, limited)
}

func (s *suite) need() {
	c := s.spend(s.subject(), "seconds", quota.PeriodMonth, 5, 0)
	c.Need = 1
	if d := s.admit(c); d.Outcomes[0].Charged != 0 || d.Outcomes[0].Used != 0 {
		s.Fatalf("outcome %+v", d.Outcomes[0])
	}
	late := c
	late.Cost, late.Need, late.Force = 7, 0, true
	if d := s.admit(late); d.Outcomes[0].Charged != 7 || d.Outcomes[0].Used != 7 {
		s.Fatalf("outcome %+v", d.Outcomes[0])
	}
	s.deny(0, c)
}

func (s *suite) force() {
	user := s.subject()
	r, u := rate(user, "api", 2, time.Hour), s.spend(user, "jobs", quota.PeriodMonth, 2, 1)
	s.admit(r, u)
	s.admit(r, u)
	r.Force, u.Force = true, true
	for i := range int64(3) {
		d := s.admit(r, u)
		if o := d.Outcomes[0]; !o.Exceeded || o.Charged != 0 || o.Used != 2 || o.Wait <= 0 {
			s.Fatalf("a forced rate over its limit: %+v", o)
		}
		if o := d.Outcomes[1]; !o.Exceeded || o.Charged != 1 || o.Used != 3+i {
			s.Fatalf("forced usage over its limit: %+v", o)
		}
	}
	cold := s.spend(s.subject(), "jobs", quota.PeriodMonth, 2, 1)
	cold.Force = true
	var d quota.Decision
	if err := s.Engine.Reserve(s.Context(), []quota.Charge{cold}, &d); err != nil {
		s.Fatalf("a forced charge without a base: %v", err)
	}
}

// asKnown: a limit is kept by what is known here, also where the records were not
// asked, and by all of it once they were.
func (s *suite) asKnown() {
	c := s.spend(s.subject(), "jobs", quota.PeriodMonth, 3, 1)
	c.AsKnown = true
	r := rate(s.subject(), "api", 100, time.Hour)
	var d quota.Decision
	for i := range int64(5) {
		if err := s.Engine.Reserve(s.Context(), []quota.Charge{r, c}, &d); err != nil {
			s.Fatalf("a charge that goes by what is known: %v", err)
		}
		if o := d.Outcomes[1]; d.Admitted() != (i < 3) || o.Used != min(i+1, 3) {
			s.Fatalf("request %d: %+v", i, d)
		}
	}
	if d := s.admit(r); d.Outcomes[0].Used != 4 {
		s.Fatalf("what was denied took of a rate: %+v", d.Outcomes[0])
	}
	if err := s.Engine.Peek(s.Context(), []quota.Charge{c}, &d); err != nil || d.Admitted() {
		s.Fatalf("looked at: %v, %+v", err, d)
	}
	c.Force = true
	if err := s.Engine.Peek(s.Context(), []quota.Charge{c}, &d); err != nil || !d.Admitted() || !d.Outcomes[0].Exceeded {
		s.Fatalf("looked at, where it denies nobody: %v, %+v", err, d)
	}
	c.AsKnown, c.Force = false, false
	if d = s.try(s, map[quota.Key]int64{c.Key: 7}, c); d.Admitted() || d.Outcomes[0].Used != 10 {
		s.Fatalf("with what the records know: %+v", d)
	}
	c.AsKnown, c.Limit.Max = true, 11
	s.admit(c)
	s.deny(0, c)
}

func (s *suite) once() {
	user := s.subject()
	// A cost of nothing is no charge: it must not make the later one free.
	none := s.spend(user, "jobs", quota.PeriodBilling, 1, 0)
	s.admit(once(none, "key"))

	c := s.spend(user, "jobs", quota.PeriodBilling, 1, 1)
	s.admit(once(c, "key"))
	d := s.admit(once(c, "key"))
	if o := d.Outcomes[0]; o.Charged != 0 || o.Exceeded || o.Used != 1 {
		s.Fatalf("a repeated Once: %+v", o)
	}
	s.deny(0, once(c, "other key"))
	s.deny(0, c)
	other := s.spend(s.subject(), "jobs", quota.PeriodBilling, 1, 1)
	s.admit(once(other, "key"))
	s.deny(0, other)

	keyed := once(c, "key")
	s.giveBack(s, keyed.Receipt(1))
	s.admit(once(c, "key"))
	s.wantUsed(c, 1)
	if s.Real {
		return
	}
	s.Advance(quota.OnceTTL - time.Millisecond)
	s.admit(once(c, "key"))
	s.Advance(time.Millisecond)
	s.deny(0, once(c, "key"))
}

func (s *suite) refund() {
	user := s.subject()
	c := s.spend(user, "jobs", quota.PeriodMonth, 3, 3)
	d := s.admit(c, rate(user, "api", 5, time.Hour))
	s.deny(0, c)
	rs := quota.AppendReceipts(nil, []quota.Charge{c}, &d)
	s.giveBack(s, rs...)
	s.admit(c)
	s.wantUsed(c, 3)
	s.wantUsed(rate(user, "api", 5, time.Hour), 1) // a rate window is never given back

	bad := c.Receipt(1)
	bad.Amount = -1
	if err := s.Engine.Refund(s.Context(), []quota.Receipt{c.Receipt(1), bad}); err == nil {
		s.Fatalf("a negative refund was taken")
	}
	s.wantUsed(c, 3)
}

func (s *suite) level() {
	c := s.spend(s.subject(), "storage", quota.PeriodNone, 100, 40)
	s.admit(c)
	s.admit(c)
	s.deny(0, c)
	s.giveBack(s, free(c, 50))
	s.wantUsed(c, 30)
	s.giveBack(s, free(c, 1000), free(c, 1000))
	s.wantUsed(c, 0)
	records := make(book)
	records.flush(s.Engine)
	if got := records.net(); got != 0 {
		s.Fatalf("the ledger's level is %d, want 0", got)
	}
	c.Cost = 100
	s.admit(c)
	c.Cost = 1
	s.deny(0, c)
}

func free(c quota.Charge, amount int64) quota.Receipt {
	r := c.Receipt(amount)
	r.Free = true
	return r
}

// takenLevel: what was taken of a level is given back whole, also where it was
// taken elsewhere and is not known yet; what is freed waits for what is known.
func (s *suite) takenLevel() {
	c := s.spend(s.subject(), "storage", quota.PeriodNone, 100, 40)
	var cold *quota.ColdError
	if err := s.Engine.Refund(s.Context(), []quota.Receipt{free(c, 40)}); !errors.As(err, &cold) {
		s.Fatalf("freeing a cold level: %v", err)
	}
	want := int64(0)
	for _, known := range []bool{false, true} {
		if known {
			s.wantUsed(c, 0)
		}
		if err := s.Engine.Refund(s.Context(), []quota.Receipt{c.Receipt(40)}); err != nil {
			s.Fatalf("giving back, known %v: %v", known, err)
		}
		want -= 40
		records := make(book)
		for _, t := range s.Engine.Totals() {
			records.apply(t)
		}
		if got := records.net(); got != want {
			s.Fatalf("known %v: the ledger's level is %d, want %d", known, got, want)
		}
	}
	s.wantUsed(c, 0)
}

func (s *suite) periods() {
	user := s.subject()
	for _, p := range []quota.Period{quota.PeriodDay, quota.PeriodMonth, quota.PeriodNone} {
		c := s.spend(user, "jobs", p, 1, 1)
		s.admit(c)
		s.deny(0, c)
		if p == quota.PeriodNone {
			continue
		}
		next := c
		next.Key.Start, next.End = c.End, c.End+(c.End-c.Key.Start)
		s.admit(next)
		s.deny(0, next)
	}
	s.admit(rate(user, "jobs", 1, time.Hour)) // a scope and a metric of one name
}

func (s *suite) peek() {
	user := s.subject()
	r, u := rate(user, "api", 2, time.Hour), s.spend(user, "jobs", quota.PeriodMonth, 2, 1)
	cs := []quota.Charge{once(r, "x"), once(u, "x")}
	for range 5 {
		d := s.decide(s, s.Engine.Peek, nil, cs)
		if !d.Admitted() || d.Outcomes[0].Used != 1 || d.Outcomes[1].Used != 1 || d.Outcomes[1].Charged != 1 {
			s.Fatalf("peek: %+v", d)
		}
	}
	s.admit(r, u)
	s.admit(r, u)
	d := s.decide(s, s.Engine.Peek, nil, []quota.Charge{r, u})
	if d.Denied != 1 || !d.Outcomes[0].Exceeded || d.Outcomes[0].Wait <= 0 || d.Outcomes[1].Used != 2 {
		s.Fatalf("peek at full counters: %+v", d)
	}
	s.wantUsed(r, 2)
	s.wantUsed(u, 2)
	// Even an unlimited counter is loaded: the caller of Peek wants to know.
	cold := unlimited(s.spend(s.subject(), "jobs", quota.PeriodMonth, 0, 0))
	var missing *quota.ColdError
	if err := s.Engine.Peek(s.Context(), []quota.Charge{cold}, &d); !errors.As(err, &missing) {
		s.Fatalf("peek at a cold counter: %v", err)
	}
}
