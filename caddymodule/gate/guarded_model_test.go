package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// Over any schedule of failures of the counters and the records, with gateways
// that are killed, join and pause: a rule that allows is never refused for an
// outage, no window admits more than the documented bound, and what the records
// say in the end is what was admitted and not given back.
func TestOutageModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) outageStep {
			return outageStep{
				what:  rapid.IntRange(0, 19).Draw(rt, "what"),
				who:   rapid.IntRange(0, 9).Draw(rt, "who"),
				user:  rapid.SampledFrom([]quota.Subject{"user:a", "user:b"}).Draw(rt, "user"),
				fate:  rapid.SampledFrom([]Fate{Answered, Answered, Unreached, Unknown}).Draw(rt, "fate"),
				mode:  rapid.IntRange(callsWork, callsOdd).Draw(rt, "mode"),
				pause: time.Duration(rapid.SampledFrom([]int{0, 1, 60, 400, 1000, 3100}).Draw(rt, "pause")) * time.Millisecond,
			}
		}), 1, 80).Draw(rt, "steps")
		var failed error
		synctest.Test(t, func(t *testing.T) { failed = runOutage(t, steps) })
		if failed != nil {
			rt.Fatal(failed)
		}
	})
}

type outageStep struct {
	what, who, mode int
	user            quota.Subject
	fate            Fate
	pause           time.Duration
}

const (
	outageLimit  = 12
	outageWindow = 2 * time.Second
	outageFleet  = 3
)

// outageModel is what was admitted.
type outageModel struct {
	*fleet
	t        *testing.T
	used     map[quota.Subject]int64
	admitted map[quota.Subject][]time.Time
	open     []outageTicket
	down     atomic.Bool // the records
	losses   int
	joined   int
	killed   time.Time
}

type outageTicket struct {
	*Ticket
	m    *member
	user quota.Subject
}

func runOutage(t *testing.T, steps []outageStep) error {
	m := &outageModel{t: t, used: map[quota.Subject]int64{}, admitted: map[quota.Subject][]time.Time{}, joined: outageFleet}
	failing := func() error {
		if m.down.Load() {
			return errDown
		}
		return nil
	}
	m.fleet = newFleet(t, outageFleet, limited(1_000_000, 0), func(r *sharedRecords) {
		r.onUsage, r.onReap, r.onDropped = failing, failing, func(string) error { return failing() }
		r.onFlush = func(context.Context, quota.Flush) error { return failing() }
	})
	defer m.stop()
	for i, s := range steps {
		if err := m.step(s); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		time.Sleep(s.pause)
	}
	m.shared.set(callsWork)
	m.down.Store(false)
	for len(m.open) > 0 {
		m.settle(0, Unknown)
	}
	time.Sleep(10 * time.Second)
	for _, x := range m.living() {
		// Traffic finds out what became of calls without an answer.
		if err := m.admit(x, "user:c"); err != nil {
			return err
		}
		if x.rt.Outage() != nil {
			return errors.New("an outage lasts though all is well")
		}
	}
	for len(m.open) > 0 {
		m.settle(0, Answered)
	}
	time.Sleep(dropAfter + 10*time.Second)
	return m.check()
}

func (m *outageModel) check() error {
	for _, user := range []quota.Subject{"user:a", "user:b", "user:c"} {
		if got := m.records.used(user, "jobs", quota.PeriodMonth); got != m.used[user] {
			return fmt.Errorf("%s: the records say %d, the model %d", user, got, m.used[user])
		}
		// Shared counters and all local ones: each admits no more than the limit in a
		// window, and shared ones that lost their data begin anew. A process of which
		// the others do not know yet takes its share out of what it knows.
		bound := outageLimit*(2+m.losses) + outageLimit*(m.joined-outageFleet)
		at := m.admitted[user]
		for i := range at {
			end, _ := slices.BinarySearchFunc(at, at[i].Add(outageWindow), time.Time.Compare)
			if n := end - i; n > bound {
				return fmt.Errorf("%s: %d admitted within a window, at most %d may be", user, n, bound)
			}
		}
	}
	return nil
}

func (m *outageModel) living() (out []*member) {
	for _, x := range m.nodes {
		if !x.stopped {
			out = append(out, x)
		}
	}
	return out
}

func (m *outageModel) step(s outageStep) error {
	living := m.living()
	x := living[s.who%len(living)]
	switch s.what {
	case 0, 1, 2:
		m.shared.set(s.mode)
	case 3:
		m.down.Store(s.who%2 == 0)
		m.killed = time.Now() // nothing was copied meanwhile
	case 4:
		// What a killed gateway had not flushed must have been copied before.
		if time.Since(m.killed) > 15*time.Second && !m.down.Load() {
			m.shared.lose()
			m.losses++
		}
	case 5: // paused: thought dead, and it is not
		m.records.reap(x.epoch())
		if s.who%2 == 0 {
			for _, e := range x.rt.guard.local.Totals() {
				m.records.reap(e.Epoch)
			}
		}
	case 6:
		if len(living) < 5 {
			m.join(m.t)
			m.joined++
		}
	case 7:
		// Killed while the counters are down it may lose what it has not flushed.
		counted, ended := x.rt.guard.local.holds()
		handed := ended == 0 || (m.losses == 0 && len(x.rt.guard.local.untaken()) == 0)
		if len(living) > 1 && m.calm(x) && !counted && handed {
			m.abandon(x)
			x.kill()
			m.killed = time.Now()
		}
	case 12: // stopped in order, whatever the records do
		if len(living) > 1 && m.calm(x) {
			m.abandon(x)
			x.rt.Stop(context.Background())
			x.stopped = true
			m.killed = time.Now()
		}
	case 8, 9, 10, 11:
		m.settle(s.who, s.fate)
	default:
		return m.admit(x, s.user)
	}
	return nil
}

// calm reports whether the counters work and owe the gateway nothing.
func (m *outageModel) calm(x *member) bool {
	x.node.mu.Lock()
	defer x.node.mu.Unlock()
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	return m.shared.mode == callsWork && x.rt.Outage() == nil && len(x.node.undo)+len(x.node.again) == 0 && x.node.lost == m.shared.lost
}

// abandon leaves the tickets of a gateway unsettled: they stay charged.
func (m *outageModel) abandon(x *member) {
	m.open = slices.DeleteFunc(m.open, func(o outageTicket) bool { return o.m == x })
}

func (m *outageModel) admit(x *member, user quota.Subject) error {
	began := time.Now()
	ticket, err := x.gate.Admit(m.t.Context(), x.caller(m.t, user), []quota.Applied{work(outageLimit, outageWindow)}, Policy{})
	if took := time.Since(began); took > callTimeout+outageWait+time.Millisecond {
		return fmt.Errorf("a request took %s", took)
	}
	if err != nil {
		d := (*quota.Denial)(nil)
		if !errors.As(err, &d) || d.Code != quota.CodeRateLimited {
			return fmt.Errorf("refused: %w", err)
		}
		ticket.Discard()
		return nil
	}
	m.used[user]++
	m.admitted[user] = append(m.admitted[user], time.Now())
	m.open = append(m.open, outageTicket{ticket, x, user})
	return nil
}

func (m *outageModel) settle(pick int, fate Fate) {
	if len(m.open) == 0 {
		return
	}
	i := pick % len(m.open)
	o := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	if fate == Unreached {
		m.used[o.user]--
	}
	o.Settle(m.t.Context(), Result{Status: 200, Fate: fate})
}
