package gate

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Tickets are pooled: none tells or charges another's request. Usage is exact
// under concurrency, also while epochs end.
func TestTicketsDoNotMix(t *testing.T) {
	t.Parallel()
	h := newHarness(t, func(o *Options) { o.FlushEvery = time.Millisecond })
	h.records.plan = limited(1_000_000, 1_000_000)
	stop := h.start(t)
	var wg sync.WaitGroup
	const clients, requests = 16, 300
	for n := range clients {
		account := quota.UserSubject(fmt.Sprint(n))
		c := h.caller(t, account)
		var rules []quota.Applied
		for i := range n%4 + 1 {
			rules = append(rules, applied(quota.Rule{Name: fmt.Sprint(n, "-", i), Spends: spend([]string{"jobs", "storage", "x", "y"}[i], int64(n+1))}))
		}
		wg.Go(func() {
			for i := range requests {
				ticket, err := h.gate.Admit(t.Context(), c, rules, Policy{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := own(ticket, account, n); err != nil {
					t.Error(err)
				}
				r := ok200
				if i%3 == 0 {
					r.Fate = Unreached
				}
				ticket.Settle(t.Context(), r)
				if i%100 == 0 {
					h.engine.rotate()
				}
			}
		})
	}
	wg.Wait()
	stop()
	for n := range clients {
		account := quota.UserSubject(fmt.Sprint(n))
		if got, want := h.records.used(account, "jobs", quota.PeriodMonth), int64(requests/3*2*(n+1)); got != want {
			t.Errorf("%s: %d jobs, want %d", account, got, want)
		}
		if got, _ := h.records.requests(account, OutcomeAdmitted); got != int64(requests*(n%4+1)) {
			t.Errorf("%s: %d requests are charted", account, got)
		}
	}
}

func own(ticket *Ticket, account quota.Subject, n int) error {
	if len(ticket.Rules()) != n%4+1 || len(ticket.Decision().Outcomes) != len(ticket.Charges()) {
		return errors.New("another ticket's rules")
	}
	for i, c := range ticket.Charges() {
		if c.Account != account || c.Cost != int64(n+1) || ticket.Decision().Outcomes[i].Charged != c.Cost {
			return fmt.Errorf("charge of another request: %+v", c)
		}
	}
	return nil
}

// A ticket that goes back to the pool keeps nothing of its request.
func TestReleasedTicketsAreEmpty(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(1_000_000, 1_000_000)
	ticket := newTicket(h.gate, h.caller(t, alice), []quota.Applied{applied(quota.Rule{Name: "r", Spends: spend("jobs", 1)})})
	ticket.charges = append(ticket.charges, quota.Charge{Account: alice})
	ticket.decision.Reset(1)
	ticket.decision.Outcomes[0].Used = 7
	ticket.uncharge()
	ticket.reset()
	want := &Ticket{}
	if ticket.gate != want.gate || ticket.caller != want.caller || len(ticket.rules)+len(ticket.charges)+len(ticket.receipts) != 0 {
		t.Errorf("got %+v", ticket)
	}
	for _, c := range ticket.charges[:cap(ticket.charges)] {
		if c != (quota.Charge{}) {
			t.Errorf("got %+v", c)
		}
	}
	for _, r := range ticket.rules[:cap(ticket.rules)] {
		if r.Rule != nil {
			t.Errorf("got %+v", r)
		}
	}
}
