package gatetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

func (s *suite) hostileSubjects() {
	var charges []quota.Charge
	for _, id := range []string{
		"a", "a:b", "a:b:c", "{a}", "a{b}", "*", "a*", "?", "[a]", "a\nb", "a\r\n", "a\x00", "", " ", "a ",
		"é", "\xff\xfe", "{0000}", "a|b", "a|jobs|month", "..", "/", "%2F", "'; --",
	} {
		for _, subject := range []quota.Subject{quota.UserSubject(id), quota.OrgSubject(id), quota.Subject(id + ":")} {
			charges = append(charges,
				rate(subject, "api", 1, time.Hour), rate(subject, "a", 1, time.Hour),
				s.spend(subject, "api", quota.PeriodMonth, 1, 1), s.spend(subject, "jobs", quota.PeriodNone, 1, 1))
		}
	}
	for _, c := range charges {
		s.admit(c)
	}
	for _, c := range charges {
		s.deny(0, c)
	}
	star := quota.UserSubject("*")
	if _, err := s.Engine.Reset(s.Context(), star, nil); err != nil {
		s.Fatalf("resetting: %v", err)
	}
	for _, c := range charges {
		if c.Key.Space == quota.SpaceRate && c.Key.Digest != star.Digest() {
			s.deny(0, c)
		}
	}
}

func (s *suite) refused() {
	good := func() []quota.Charge {
		return []quota.Charge{rate("user:refused", "api", 5, time.Hour), s.spend("user:refused", "jobs", quota.PeriodMonth, 5, 1)}
	}
	s.admit(good()...)
	for name, spoil := range map[string]func(cs []quota.Charge){
		"negative cost":        func(cs []quota.Charge) { cs[1].Cost = -1 },
		"negative rate cost":   func(cs []quota.Charge) { cs[0].Cost = -1 },
		"cost above 2^53":      func(cs []quota.Charge) { cs[1].Cost = quota.MaxAmount + 1 },
		"negative need":        func(cs []quota.Charge) { cs[1].Need = -1 },
		"negative limit":       func(cs []quota.Charge) { cs[1].Limit.Max = -1 },
		"limit above 2^53":     func(cs []quota.Charge) { cs[0].Limit.Max = quota.MaxAmount + 1 },
		"no window":            func(cs []quota.Charge) { cs[0].Limit.Window = 0 },
		"negative window":      func(cs []quota.Charge) { cs[0].Limit.Window = -time.Second },
		"short window":         func(cs []quota.Charge) { cs[0].Limit.Window = quota.MinWindow - time.Millisecond },
		"long window":          func(cs []quota.Charge) { cs[0].Limit.Window = quota.MaxWindow + time.Millisecond },
		"window in nanosecond": func(cs []quota.Charge) { cs[0].Limit.Window = time.Second + 1 },
	} {
		cs := good()
		spoil(cs)
		for what, f := range map[string]call{"reserve": s.Engine.Reserve, "peek": s.Engine.Peek} {
			var d quota.Decision
			err := f(s.Context(), cs, &d)
			var cold *quota.ColdError
			if err == nil || errors.As(err, &cold) {
				s.Errorf("%s: %s: %v, want a refusal", name, what, err)
			}
		}
	}
	for i, c := range good() {
		if got := s.used(c); got != 1 {
			s.Errorf("charge %d: used %d after refusals, want 1", i, got)
		}
	}
	if d := s.admit(); len(d.Outcomes) != 0 {
		s.Errorf("no charges: %+v", d)
	}
}

func (s *suite) cold() {
	user := s.subject()
	cs := []quota.Charge{
		rate(user, "api", 5, time.Hour),
		s.spend(user, "jobs", quota.PeriodMonth, 10, 1),
		unlimited(s.spend(user, "calls", quota.PeriodMonth, 0, 1)),
		s.spend(user, "calls", quota.PeriodDay, 10, 1),
	}
	var d quota.Decision
	cold := s.wantCold(cs, &d)
	if fmt.Sprint(cold.Charges) != "[1 3]" {
		s.Fatalf("cold charges %v, want [1 3]", cold.Charges)
	}
	s.wantUsed(cs[0], 0)
	s.fill(s, cold, map[quota.Key]int64{cs[1].Key: 9, cs[3].Key: 2}, func(i int) quota.Key { return cs[i].Key })
	s.admit(cs...)
	s.wantUsed(cs[1], 10)
	s.wantUsed(cs[3], 3)
	s.deny(1, cs...)

	if err := s.Engine.Forget(s.Context(), user); err != nil {
		s.Fatalf("forgetting: %v", err)
	}
	cold = s.wantCold(cs, &d)
	// An admin gave 5 back; what this process counted stays in its own ledger.
	s.fill(s, cold, map[quota.Key]int64{cs[1].Key: 4, cs[3].Key: 2}, func(i int) quota.Key { return cs[i].Key })
	s.wantUsed(cs[1], 5)
	s.wantUsed(cs[0], 1)
}

func (s *suite) wantCold(cs []quota.Charge, d *quota.Decision) *quota.ColdError {
	s.Helper()
	err := s.Engine.Reserve(s.Context(), cs, d)
	var cold *quota.ColdError
	if !errors.As(err, &cold) {
		s.Fatalf("reserving cold counters: %v, %+v", err, d)
	}
	return cold
}

// staleFill: a load that began before the account was changed is not true.
func (s *suite) staleFill() {
	user := s.subject()
	cs := []quota.Charge{s.spend(user, "jobs", quota.PeriodMonth, 10, 1)}
	key := func(int) quota.Key { return cs[0].Key }
	var d quota.Decision
	for i, change := range []func(){
		func() {
			if err := s.Engine.Forget(s.Context(), user); err != nil {
				s.Fatalf("forgetting: %v", err)
			}
		},
		func() { s.Engine.Rebase(currentEpoch(s.Engine), nil) },
	} {
		cold := s.wantCold(cs, &d)
		change()
		s.fill(s, cold, map[quota.Key]int64{cs[0].Key: 3}, key)
		if err := s.Engine.Reserve(s.Context(), cs, &d); err == nil {
			s.Fatalf("change %d: a stale fill was taken", i)
		}
	}
	s.fill(s, s.wantCold(cs, &d), map[quota.Key]int64{cs[0].Key: 4}, key)
	s.wantUsed(cs[0], 4)
}
