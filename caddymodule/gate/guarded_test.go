package gate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// fleet is gateways that share counters and records.
type fleet struct {
	shared  *fakeShared
	records *sharedRecords
	nodes   []*member
}

type member struct {
	*harness
	node    *fakeNode
	stopped bool
}

func newFleet(t testing.TB, n int, plan *quota.Plan, change ...func(*sharedRecords)) *fleet {
	f := &fleet{shared: newFakeShared(), records: &sharedRecords{fakeRecords: newFakeRecords()}}
	f.records.plan = plan
	for _, c := range change {
		c(f.records)
	}
	for range n {
		f.join(t)
	}
	time.Sleep(2500 * time.Millisecond) // each has flushed, and knows of the others
	synctest.Wait()
	return f
}

func (f *fleet) join(t testing.TB) *member {
	m := &member{node: newFakeNode(f.shared)}
	m.harness = newHarness(t, func(o *Options) {
		o.Engine, o.Loader, o.Bus, o.Usage = m.node, f.records, f.records, f.records
	})
	m.rt.Start(context.Background())
	f.nodes = append(f.nodes, m)
	return m
}

// kill ends a gateway without a word.
func (m *member) kill() {
	m.stopped = true
	m.rt.stop()
	m.rt.wg.Wait()
}

func (f *fleet) stop() {
	for _, m := range f.nodes {
		if !m.stopped {
			m.rt.Stop(context.Background())
		}
	}
}

// try asks for admission and settles at once; code is empty where it passed.
func (m *member) try(t testing.TB, s quota.Subject, rules ...quota.Applied) (code string) {
	t.Helper()
	ticket, err := m.gate.Admit(t.Context(), m.caller(t, s), rules, Policy{})
	if err != nil {
		ticket.Discard()
		return asDenial(t, err).Code
	}
	ticket.Settle(t.Context(), ok200)
	return ""
}

func work(limit int64, window time.Duration, change ...func(*quota.Rule)) quota.Applied {
	r := quota.Rule{
		Name: "work", Spends: spend("jobs", 1),
		Limits: []quota.ScopeLimit{{Scope: "work", Base: quota.Rate{Requests: limit, Window: window}}},
	}
	for _, f := range change {
		f(&r)
	}
	return applied(r)
}

func denyOnOutage(r *quota.Rule) { r.DenyOnOutage = true }

// While the counters are out of reach a rule that allows is judged in this
// process, by its share of the limit, and at once; one that denies is refused.
func TestOutage(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]int{"refused": callsRefused, "hangs": callsHang, "ran": callsRan} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 4, limited(100, 0))
				defer f.stop()
				m := f.nodes[0]
				if n := m.rt.Gateways(); n != 4 {
					t.Fatalf("%d gateways are known", n)
				}
				if code := m.try(t, alice, work(20, time.Hour)); code != "" {
					t.Fatal(code)
				}
				f.shared.set(mode)
				began := time.Now()
				passed := 0
				for range 20 {
					if m.try(t, alice, work(20, time.Hour)) == "" {
						passed++
					}
				}
				if passed != 5 {
					t.Errorf("%d passed in a quarter of 20", passed)
				}
				if took := time.Since(began); took > callTimeout {
					t.Errorf("20 requests took %s", took)
				}
				if o := m.rt.Outage(); o == nil || o.Since.After(began.Add(callTimeout)) {
					t.Errorf("outage %+v", o)
				}
				if code := m.try(t, alice, work(20, time.Hour, denyOnOutage)); code != quota.CodeLimiterUnavailable {
					t.Errorf("a rule that denies in an outage: %q", code)
				}
				if m.rt.Stats.LocalAdmitted.Load() != 5 || m.rt.Stats.LocalDenied.Load() != 15 {
					t.Errorf("admitted %d, denied %d here", m.rt.Stats.LocalAdmitted.Load(), m.rt.Stats.LocalDenied.Load())
				}
				time.Sleep(time.Minute)
				f.shared.set(callsWork)
				time.Sleep(2 * time.Second)
				if m.rt.Outage() != nil {
					t.Error("it lasts two seconds after the counters are back")
				}
				if code := m.try(t, alice, work(20, time.Hour, denyOnOutage)); code != "" {
					t.Errorf("after the outage: %q", code)
				}
				time.Sleep(2 * time.Second)
				if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 7 {
					t.Errorf("%d jobs are recorded, want 7", n)
				}
			})
		})
	}
}

// A quota goes by the records and what was admitted here, and what is admitted
// by others is seen when it is flushed. The counters that come back know all of it.
func TestOutageQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, limited(10, 0))
		defer f.stop()
		job := applied(quota.Rule{Name: "job", Spends: spend("jobs", 1)})
		a, b := f.nodes[0], f.nodes[1]
		for range 3 {
			if code := a.try(t, alice, job); code != "" {
				t.Fatal(code)
			}
		}
		time.Sleep(2 * time.Second) // flushed
		f.shared.set(callsRefused)
		for range 4 {
			if code := a.try(t, alice, job); code != "" {
				t.Fatal(code)
			}
		}
		b.try(t, alice, job) // not knowing of the four
		time.Sleep(5 * time.Second)
		b.try(t, alice, job) // asks for a renewal
		time.Sleep(2 * time.Second)
		if code := b.try(t, alice, job); code != "" {
			t.Fatalf("the tenth: %q", code)
		}
		if code := b.try(t, alice, job); code != quota.CodeQuotaExceeded {
			t.Errorf("the eleventh: %q", code)
		}
		f.shared.set(callsWork)
		time.Sleep(4 * time.Second)
		for _, m := range f.nodes {
			if code := m.try(t, alice, job); code != quota.CodeQuotaExceeded {
				t.Errorf("after the outage: %q", code)
			}
		}
		if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 10 {
			t.Errorf("%d jobs are recorded", n)
		}
	})
}

// Neither what is wrong with one call nor a client that leaves opens the breaker;
// the request is judged here all the same, and counted.
func TestBreakerStaysClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, limited(100, 0))
		defer f.stop()
		m := f.nodes[0]
		f.shared.set(callsOdd)
		if code := m.try(t, alice, work(20, time.Hour)); code != "" {
			t.Error(code)
		}
		if code := m.try(t, alice, work(20, time.Hour, denyOnOutage)); code != quota.CodeLimiterUnavailable {
			t.Errorf("a rule that denies: %q", code)
		}
		f.shared.set(callsWork)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		ticket, err := m.gate.Admit(ctx, m.caller(t, alice), []quota.Applied{work(20, time.Hour)}, Policy{})
		if err != nil {
			t.Fatal(err)
		}
		ticket.Settle(ctx, Result{Fate: Unknown})
		if m.rt.Outage() != nil || m.rt.Stats.BreakerOpened.Load() != 0 {
			t.Error("the breaker opened")
		}
		if n := m.rt.Stats.LocalAdmitted.Load(); n != 1 {
			t.Errorf("%d were judged here: the client that left is judged by the counters", n)
		}
		m.try(t, alice, work(20, time.Hour))
		time.Sleep(2 * time.Second)
		if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 3 {
			t.Errorf("%d jobs are recorded, want 3", n)
		}
	})
}

// An outage that is being settled, however long that takes, does not keep the
// next one from being over.
func TestOutageWhileSettling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, limited(100, 0))
		defer f.stop()
		m := f.nodes[0]
		m.node.forgetting = time.Minute
		for range 2 {
			f.shared.set(callsRefused)
			m.try(t, alice, work(20, time.Hour))
			time.Sleep(3 * time.Second)
			f.shared.set(callsWork)
			time.Sleep(2 * time.Second)
			if m.rt.Outage() != nil {
				t.Error("it lasts two seconds after the counters are back")
			}
		}
	})
}

// An outage is named after what is wrong now.
func TestOutageChangesItsKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, limited(100, 0))
		defer f.stop()
		m := f.nodes[0]
		f.shared.set(callsRefused)
		m.try(t, alice, work(20, time.Hour))
		began := m.rt.Outage()
		if began == nil || began.Kind != FaultUnreachable {
			t.Fatalf("%+v", began)
		}
		f.shared.set(callsHang)
		time.Sleep(time.Second)
		if o := m.rt.Outage(); o == nil || o.Kind != FaultTimeout || o.Since != began.Since {
			t.Errorf("%+v", o)
		}
	})
}

// Whoever was refused in an outage is let in when others have given back, as
// whoever was let in.
func TestOutageRenewsWhoWasRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2, limited(1, 0))
		defer f.stop()
		job := applied(quota.Rule{Name: "job", Spends: spend("jobs", 1)})
		a, b := f.nodes[0], f.nodes[1]
		running := b.admit(t, b.caller(t, alice), job)
		time.Sleep(2 * time.Second) // flushed
		f.shared.set(callsRefused)
		if code := a.try(t, alice, job); code != quota.CodeQuotaExceeded {
			t.Fatalf("the second: %q", code)
		}
		running.Settle(t.Context(), Result{Fate: Unreached})
		time.Sleep(4 * time.Second)
		if code := a.try(t, alice, job); code != "" {
			t.Errorf("after the first was given back: %q", code)
		}
	})
}

// What was counted here in an outage outlives the process once the counters are back,
// however long the records stay away: whoever joins copies it.
func TestOutageOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var down atomic.Bool
				f := newFleet(t, 1, limited(1000, 0), func(r *sharedRecords) {
					r.onFlush = func(context.Context, quota.Flush) error {
						if down.Load() {
							return errDown
						}
						return nil
					}
				})
				m := f.nodes[0]
				f.shared.set(callsRefused)
				m.try(t, alice, work(1000, time.Hour))
				time.Sleep(2 * time.Second) // the records hear of the epoch
				down.Store(true)
				for range 20 {
					m.try(t, alice, work(1000, time.Hour))
				}
				f.shared.set(callsWork)
				time.Sleep(10 * time.Second)
				m.try(t, alice, work(1000, time.Hour))
				if kill {
					m.kill()
				} else {
					f.shared.set(callsOdd) // judged here, though the breaker is closed
					m.try(t, alice, work(1000, time.Hour))
					f.shared.set(callsWork)
					m.rt.Stop(context.Background())
					m.stopped = true
				}
				down.Store(false)
				f.join(t)
				time.Sleep(dropAfter + 10*time.Second)
				f.stop()
				want := int64(23)
				if kill {
					want = 22
				}
				if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != want {
					t.Errorf("%d were admitted, the records have %d", want, n)
				}
				if n := len(f.shared.epochs); n > 1 {
					t.Errorf("%d epochs are left in the counters", n)
				}
			})
		})
	}
}

// Until the records have answered a quota goes on from what the counters said last:
// at the beginning of an outage, or as long as it lasts, where they hang as well. A
// change of the account ends that.
func TestOutageGoesOnFromTheLastAnswer(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]time.Duration{"slow records": 5 * time.Millisecond, "hanging records": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var delay atomic.Int64
				f := newFleet(t, 1, limited(10, 0), func(r *sharedRecords) {
					r.onUsage = func() error {
						time.Sleep(time.Duration(delay.Load()))
						return nil
					}
				})
				m := f.nodes[0]
				for range 7 {
					m.try(t, alice, work(1000, time.Hour))
				}
				time.Sleep(3 * time.Second)
				delay.Store(int64(slow))
				f.shared.set(callsRefused)
				together := func() (admitted int64) {
					var n atomic.Int64
					var all sync.WaitGroup
					for range 50 {
						all.Go(func() {
							if m.try(t, alice, work(1000, time.Hour)) == "" {
								n.Add(1)
							}
						})
					}
					all.Wait()
					return n.Load()
				}
				if n := together(); n != 3 {
					t.Errorf("%d are admitted where 3 are left", n)
				}
				time.Sleep(3 * time.Second)
				if n := together(); n != 0 {
					t.Errorf("later %d more are admitted", n)
				}
				if slow == time.Hour {
					f.records.change(alice, nil)
					synctest.Wait()
					if n := together(); n != 7 {
						t.Errorf("%d are admitted, where nobody knows of more than the 3 that were here", n)
					}
				}
				delay.Store(0)
				f.shared.set(callsWork)
				time.Sleep(3 * time.Hour)
				f.stop()
			})
		})
	}
}

// Records that hang while the counters are gone slow down nobody: a quota of which
// nothing was ever known is then compared with what was counted here.
func TestOutageOfBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		f := newFleet(t, 1, limited(10, 0), func(r *sharedRecords) {
			r.onUsage = func() error {
				for hang.Load() {
					time.Sleep(time.Second)
				}
				return nil
			}
		})
		m := f.nodes[0]
		hang.Store(true)
		f.shared.set(callsRefused)
		for i := range 20 {
			began := time.Now()
			if code := m.try(t, alice, work(100, time.Hour)); (code == "") != (i < 10) || code != "" && code != quota.CodeQuotaExceeded {
				t.Fatalf("request %d: %q", i, code)
			}
			if took := time.Since(began); took > 5*time.Millisecond {
				t.Fatalf("it took %s", took)
			}
		}
		hang.Store(false)
		time.Sleep(3 * time.Second)
		if code := m.try(t, alice, work(100, time.Hour)); code != quota.CodeQuotaExceeded {
			t.Errorf("the records are back: %q", code)
		}
		f.shared.set(callsWork)
		time.Sleep(5 * time.Second)
		f.stop()
		if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 10 {
			t.Errorf("%d jobs are recorded, want 10", n)
		}
	})
}

// A breaker that opens again and again is not probed at once: most requests never
// meet the counters.
func TestBreakerFlaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, limited(1_000_000, 0))
		defer f.stop()
		m := f.nodes[0]
		for range 100 {
			f.shared.set(callsWork)
			time.Sleep(5 * time.Millisecond)
			f.shared.set(callsHang)
			m.try(t, alice, work(1_000_000, time.Hour))
			time.Sleep(45 * time.Millisecond)
		}
		if n := m.rt.Stats.BreakerOpened.Load(); n > 12 {
			t.Errorf("it opened %d times in 10 s", n)
		}
	})
}

// Counters in the process have no breaker.
func TestCountersInTheProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	if h.rt.guard != nil || h.rt.engine != Engine(h.engine) || h.rt.Gateways() != 1 || h.rt.Outage() != nil {
		t.Error("they are guarded")
	}
}

// A refund goes where it can be booked; of a call of which nothing is known the
// counters see to it themselves.
func TestOutageRefund(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]int{"refused": callsRefused, "hangs": callsHang, "ran": callsRan} {
		for _, takenHere := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t, 1, limited(100, 0))
					m := f.nodes[0]
					before, after := callsWork, mode
					if takenHere {
						before, after = mode, callsWork
					}
					f.shared.set(before)
					ticket := m.admit(t, m.caller(t, alice), work(100, time.Hour))
					f.shared.set(after)
					time.Sleep(2 * time.Second)
					ticket.Settle(t.Context(), Result{Fate: Unreached})
					f.shared.set(callsWork)
					time.Sleep(3 * time.Second)
					m.try(t, alice, work(100, time.Hour))
					f.stop()
					if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 1 {
						t.Errorf("%d jobs are recorded, want 1", n)
					}
				})
			})
		}
	}
}

// A level is given back whole, whoever took it and whoever is asked to give it: the
// records may not have the charge yet, nor counters that were out of reach.
func TestOutageRefundOfALevel(t *testing.T) {
	t.Parallel()
	upload := applied(quota.Rule{Name: "upload", Spends: spend("storage", 500)})
	for _, takenHere := range []bool{false, true} {
		for _, wait := range []time.Duration{0, 600 * time.Millisecond, 2 * time.Second} { // before a flush, and after it
			t.Run(fmt.Sprintf("%t %s", takenHere, wait), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t, 1, limited(100, 1000))
					m := f.nodes[0]
					time.Sleep(100 * time.Millisecond)
					before, after := callsWork, callsRefused
					if takenHere {
						before, after = after, before
					}
					f.shared.set(before)
					ticket := m.admit(t, m.caller(t, alice), upload)
					f.shared.set(after)
					time.Sleep(wait)
					ticket.Settle(t.Context(), Result{Fate: Unreached})
					f.shared.set(callsWork)
					time.Sleep(10 * time.Second)
					for range 2 {
						m.admit(t, m.caller(t, alice), upload)
					}
					f.stop()
					if n := f.records.used(alice, "storage", quota.PeriodNone); n != 1000 {
						t.Errorf("the records say %d, want 1000 (refund failures: %d)", n, m.rt.Stats.RefundFailures.Load())
					}
				})
			})
		}
	}
}

// What an admin empties or changes meanwhile is not forgotten.
func TestOutageForgetAndReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, limited(5, 5))
		defer f.stop()
		m := f.nodes[0]
		job := applied(quota.Rule{Name: "job", Spends: spend("storage", 1)})
		if code := m.try(t, alice, job); code != "" {
			t.Fatal(code)
		}
		f.shared.set(callsRefused)
		m.try(t, alice, job)
		f.records.mu.Lock()
		f.records.levels["storage"] = 3
		f.records.mu.Unlock()
		f.records.change(alice, nil)
		synctest.Wait()
		if emptied, err := m.rt.engine.Reset(t.Context(), alice, nil); err == nil {
			t.Errorf("emptied %v, without a word of the shared ones", emptied)
		}
		f.shared.set(callsWork)
		time.Sleep(3 * time.Second)
		if code := m.try(t, alice, job); code != quota.CodeQuotaExceeded {
			t.Errorf("with 5 of 5 in use: %q", code)
		}
	})
}

// What only the end of a request tells is counted also by a rule that denies in an
// outage: there is nothing left to deny.
func TestLateChargeInAnOutage(t *testing.T) {
	t.Parallel()
	for _, deny := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, 1, limited(100, 0))
			defer f.stop()
			m := f.nodes[0]
			work := applied(quota.Rule{Name: "work", DenyOnOutage: deny,
				Spends: []quota.Metered{{Metric: "jobs", Kind: quota.AmountResponseSeconds}}})
			ticket := m.admit(t, m.caller(t, alice), work)
			time.Sleep(3 * time.Second)
			f.shared.set(callsRefused)
			ticket.Settle(t.Context(), ok200)
			time.Sleep(2 * time.Second)
			f.shared.set(callsWork)
			time.Sleep(5 * time.Second)
			if n := f.records.used(alice, "jobs", quota.PeriodMonth); n != 3 {
				t.Errorf("deny %v: %d seconds are recorded, want 3", deny, n)
			}
		})
	}
}

// A rule that denies in an outage does so as well where the counters go while the
// records cannot tell what was used.
func TestUnloadedUsageAndThen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile int
		rule      quota.Rule
		want      string
	}{
		"the counters go, denied": {callsRefused, quota.Rule{Name: "login", DenyOnOutage: true,
			Limits: []quota.ScopeLimit{{Scope: "login", Base: quota.Rate{Requests: 1, Window: time.Hour}}}}, quota.CodeLimiterUnavailable},
		"the counters go":   {callsRefused, quota.Rule{Name: "login"}, ""},
		"the counters stay": {callsWork, quota.Rule{Name: "login", DenyOnOutage: true}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var down atomic.Bool
			f := newFleet(t, 1, limited(100, 0))
			defer f.stop()
			m := f.nodes[0]
			f.records.onUsage = func() error {
				if !down.Load() {
					return nil
				}
				f.shared.set(tt.meanwhile)
				return errDown
			}
			down.Store(true)
			job := applied(quota.Rule{Name: "job", Spends: spend("jobs", 1)})
			if code := m.try(t, alice, applied(tt.rule), job); code != tt.want {
				t.Errorf("%s: %q, want %q", name, code, tt.want)
			}
		})
	}
}
