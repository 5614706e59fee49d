package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// What the records say in the end is what was admitted and not given back,
// whatever rules, fates, cold counters, changes, epochs and failing flushes come
// between; and who is admitted is who fits.
func TestAdmitSettleModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawModel(rt)
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 60).Draw(rt, "steps")
		var failed error
		synctest.Test(t, func(t *testing.T) { failed = m.run(t, steps) })
		if failed != nil {
			rt.Fatal(failed)
		}
	})
}

type metered struct {
	metric string
	once   quota.Digest
}

// model is what should have been counted of one account, in the one period that
// a run lasts.
type model struct {
	h     *harness
	plan  *quota.Plan
	rules []quota.Rule
	used  map[string]int64
	once  map[metered]bool
	rate  quota.Window
	open  []modelTicket
}

type modelTicket struct {
	*Ticket
	rules   []quota.Applied
	charged map[string]int64
	began   time.Time
}

// step is one event; what does not apply is left out.
type step struct {
	what   int
	rules  int // a set
	amount int64
	late   bool
	once   byte
	pick   int
	result Result
	pause  time.Duration
}

func drawStep(rt *rapid.T) step {
	return step{
		what: rapid.IntRange(0, 15).Draw(rt, "what"), rules: rapid.IntRange(1, 31).Draw(rt, "rules"),
		amount: rapid.Int64Range(0, 30).Draw(rt, "amount"), late: rapid.Bool().Draw(rt, "late"),
		once: rapid.ByteRange(0, 2).Draw(rt, "once"), pick: rapid.IntRange(0, 100).Draw(rt, "pick"),
		result: Result{
			Status:    rapid.SampledFrom([]int{0, 101, 200, 204, 304, 404, 500}).Draw(rt, "status"),
			Fate:      rapid.SampledFrom([]Fate{Answered, Answered, Unreached, Unknown}).Draw(rt, "fate"),
			BodyBytes: rapid.Int64Range(0, 30).Draw(rt, "body"),
		},
		pause: time.Duration(rapid.SampledFrom([]int{0, 1, 400, 1000, 3100}).Draw(rt, "pause")) * time.Millisecond,
	}
}

const (
	modelRate = iota
	modelJobs
	modelStorage
	modelCompute
	modelFree
)

func drawModel(rt *rapid.T) *model {
	limit := func(metric string, p quota.Period, status int) quota.Quota {
		n := rapid.SampledFrom([]int64{-1, 0, 1, 3, 20, 100}).Draw(rt, metric)
		return quota.Quota{Limit: max(0, n), Unlimited: n < 0, Period: p, Status: status}
	}
	m := &model{
		plan: &quota.Plan{Name: "model", MultiplierPct: 100, Quotas: map[string]quota.Quota{
			"jobs":    limit("jobs", quota.PeriodDay, 402),
			"storage": limit("storage", quota.PeriodNone, 413),
			"compute": limit("compute", quota.PeriodMonth, 429),
		}},
		rules: []quota.Rule{
			modelRate:    {Name: "rate", Limits: []quota.ScopeLimit{{Scope: "api", Base: quota.Rate{Requests: 5, Window: time.Second}}}},
			modelJobs:    {Name: "jobs", Spends: spend("jobs", 1)},
			modelStorage: {Name: "storage", Spends: []quota.Metered{{Metric: "storage", Kind: quota.AmountRequestBytes}}},
			modelCompute: {Name: "compute", Spends: []quota.Metered{{Metric: "compute", Kind: quota.AmountResponseSeconds}}},
			modelFree:    {Name: "free", Frees: []quota.Metered{{Metric: "storage", Kind: quota.AmountPlaceholder}}},
		},
		used: map[string]int64{}, once: map[metered]bool{},
	}
	for i := range m.rules {
		m.rules[i].Shadow = rapid.IntRange(0, 3).Draw(rt, "shadow") == 0
		if rapid.Bool().Draw(rt, "refunds") {
			m.rules[i].RefundUnless = []int{2, 3}
		}
	}
	return m
}

func (m *model) run(t *testing.T, steps []step) error {
	m.h = newHarness(t)
	m.h.records.plan = m.plan
	m.h.records.counted = map[string]quota.Periods{"jobs": quota.Periods(0).With(quota.PeriodDay).With(quota.PeriodBilling)}
	stop := m.h.start(t)
	defer stop()
	for i, s := range steps {
		if err := m.step(t, s); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		time.Sleep(s.pause)
		synctest.Wait()
	}
	for len(m.open) > 0 {
		m.settle(t, step{result: Result{Fate: Unknown}})
	}
	m.h.records.onFlush, m.h.records.onFlushed = nil, nil
	m.h.rt.Flush(t.Context())
	for metric, q := range m.plan.Quotas {
		periods := m.h.records.counted[metric].With(q.Period)
		for p := quota.PeriodDay; p <= quota.PeriodNone; p++ {
			if got := m.h.records.used(alice, metric, p); periods.Has(p) && got != m.used[metric] {
				return fmt.Errorf("%s/%s: the records say %d, the model %d", metric, p, got, m.used[metric])
			}
		}
	}
	return nil
}

func (m *model) step(t *testing.T, s step) error {
	r := m.h.records
	switch s.what {
	case 0:
		m.h.rt.apply([]quota.Change{{Seq: r.change(alice, nil), Subject: alice}})
	case 1:
		m.h.engine.rotate()
		if s.pick%2 == 0 { // what the ended epoch holds is carried into the load
			return m.h.engine.Forget(t.Context(), alice)
		}
	case 2:
		m.h.rt.Flush(t.Context())
	case 3:
		m.h.engine.mu.Lock()
		epoch := m.h.engine.epoch
		m.h.engine.mu.Unlock()
		r.reap(epoch)
	case 4: // flushes fail before or after they were applied, or no more
		fail := func(context.Context, quota.Flush) error { return errDown }
		m.h.rt.recorder.mu.Lock()
		r.onFlush, r.onFlushed = nil, nil
		switch s.pick % 3 {
		case 0:
			r.onFlush = fail
		case 1:
			r.onFlushed = fail
		}
		m.h.rt.recorder.mu.Unlock()
	case 5: // epochs end while cold counters are loaded
		left := s.pick % coldRetries
		m.h.engine.onRefill = func() {
			if left > 0 {
				left--
				m.h.engine.rotate()
			}
		}
	case 6, 7, 8, 9, 10:
		if len(m.open) > 0 {
			m.settle(t, s)
		}
	default:
		return m.admit(t, s)
	}
	return nil
}

func (m *model) admit(t *testing.T, s step) error {
	var rules []quota.Applied
	once := quota.Digest{s.once}
	for i := range m.rules {
		if s.rules&(1<<i) == 0 {
			continue
		}
		a := applied(m.rules[i])
		a.Once = once
		if i == modelStorage && !s.late {
			a.SpendAmounts = []int64{s.amount}
		}
		rules = append(rules, a)
	}
	caller := m.h.caller(t, alice)
	ticket, err := m.h.gate.Admit(t.Context(), caller, rules, Policy{})
	fits, now := true, time.Now().UnixMilli()
	open := modelTicket{Ticket: ticket, rules: rules, charged: map[string]int64{}, began: time.Now()}
	for _, a := range rules {
		for j, sp := range a.Spends {
			cost, need := a.SpendAmounts[j], int64(0)
			if cost == quota.AmountLate {
				cost, need = 0, 1
			}
			q, known := m.plan.Quotas[sp.Metric], m.once[metered{sp.Metric, once}]
			fits = fits && (a.Shadow || known || q.Unlimited || m.used[sp.Metric]+max(cost, need) <= q.Limit)
			if !known {
				open.charged[sp.Metric] = cost
			}
		}
		for range a.Limits {
			fits = fits && (a.Shadow || m.rate.Sum(now, 100) < 5)
		}
	}
	if !fits {
		d := (*quota.Denial)(nil)
		if !errors.As(err, &d) {
			return fmt.Errorf("admitted beyond a limit: %+v", m.used)
		}
		ticket.Discard()
		return nil
	}
	if err != nil {
		return fmt.Errorf("denied though it fits: %w", err)
	}
	for metric, n := range open.charged {
		m.charge(metric, once, n)
	}
	for _, a := range rules {
		if len(a.Limits) > 0 && m.rate.Sum(now, 100) < 5 {
			m.rate.Add(now, 100, 1)
		}
	}
	m.open = append(m.open, open)
	return nil
}

func (m *model) charge(metric string, once quota.Digest, n int64) {
	m.used[metric] += n
	if n > 0 && once != (quota.Digest{}) {
		m.once[metered{metric, once}] = true
	}
}

func (m *model) giveBack(metric string, once quota.Digest, n int64) {
	if n > 0 {
		delete(m.once, metered{metric, once})
		if metric == "storage" {
			n = min(n, m.used[metric])
		}
		m.used[metric] -= n
	}
}

func (m *model) settle(t *testing.T, s step) {
	i := s.pick % len(m.open)
	o := m.open[i]
	m.open = append(m.open[:i], m.open[i+1:]...)
	r := s.result
	charged := maps.Clone(o.charged)
	for _, a := range o.rules {
		refunds := len(a.RefundUnless) > 0 && r.Status/100 != 2 && r.Status/100 != 3
		undone := r.Fate == Unreached || (r.Fate == Answered && refunds)
		for j, sp := range a.Spends {
			if undone {
				m.giveBack(sp.Metric, a.Once, charged[sp.Metric])
			} else if a.SpendAmounts[j] == quota.AmountLate && !m.once[metered{sp.Metric, a.Once}] {
				n := r.BodyBytes
				if sp.Kind == quota.AmountResponseSeconds {
					n = (time.Since(o.began) + time.Second - 1).Milliseconds() / 1000
				}
				m.charge(sp.Metric, a.Once, n)
			}
		}
	}
	for _, a := range o.rules {
		if len(a.Frees) > 0 && r.Fate == Answered && r.Status/100 == 2 {
			m.giveBack("storage", quota.Digest{}, s.amount)
		}
	}
	o.ResolveFrees(func(quota.Metered) int64 { return s.amount })
	ctx, leave := context.WithCancel(t.Context())
	leave() // the client is gone
	o.Settle(ctx, r)
}
