package gatetest

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// rowID is the key of a usage row in the records.
type rowID struct {
	epoch   string
	account quota.Subject
	key     quota.UsageKey
}

// book is what the records hold: totals by epoch, never falling.
type book map[rowID]quota.Total

// apply writes totals as the records do.
func (b book) apply(t quota.EpochTotals) {
	for _, r := range t.Rows {
		id := rowID{t.Epoch, r.Account, quota.UsageKey{Metric: r.Metric, Period: r.Period, Start: r.Start}}
		old := b[id]
		r.Spent, r.Refunded = max(r.Spent, old.Spent), max(r.Refunded, old.Refunded)
		b[id] = r
	}
}

// flush writes and acknowledges all that the engine has.
func (b book) flush(e gate.Ledger) {
	for _, t := range e.Totals() {
		b.apply(t)
		e.Flushed(t)
	}
}

func (b book) rows(epoch string) []quota.Total {
	var rows []quota.Total
	for id, r := range b {
		if id.epoch == epoch {
			rows = append(rows, r)
		}
	}
	return rows
}

func (b book) net() (sum int64) {
	for _, r := range b {
		sum += r.Spent - r.Refunded
	}
	return sum
}

// of is what the records say of one counter.
func (b book) of(c quota.Charge) (spent, refunded int64) {
	for id, r := range b {
		if id.account == c.Account && id.key == (quota.UsageKey{Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start}) {
			spent += r.Spent
			refunded += r.Refunded
		}
	}
	return spent, refunded
}

func currentEpoch(e gate.Ledger) string {
	all := e.Totals()
	return all[len(all)-1].Epoch
}

// ledgerModel: whatever is flushed, when and how often, the records end with
// what was admitted less what was given back.
func (s *suite) ledgerModel() {
	type step struct {
		Op      int
		Account int
		Amount  int64
	}
	g := rapid.Custom(func(t *rapid.T) []step {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{rapid.IntRange(0, 6).Draw(t, "op"), rapid.IntRange(0, 2).Draw(t, "account"), rapid.Int64Range(0, 9).Draw(t, "amount")}
		}), 1, 60).Draw(t, "steps")
	})
	each(s, g, func(t tester, steps []step) {
		accounts := []quota.Subject{s.subject(), s.subject(), s.subject()}
		records := make(book)
		want := make(map[quota.Subject][2]int64)
		var receipts []quota.Receipt
		for _, st := range steps {
			account := accounts[st.Account]
			c := s.spend(account, "units", quota.PeriodMonth, 60, st.Amount)
			switch st.Op {
			case 0: // a batch that is applied and not acknowledged: the answer was lost
				for _, tt := range s.Engine.Totals() {
					records.apply(tt)
				}
			case 1:
				records.flush(s.Engine)
			case 2:
				if len(receipts) > 0 {
					r := receipts[0]
					receipts = receipts[1:]
					s.giveBack(t, r)
					want[r.Account] = [2]int64{want[r.Account][0], want[r.Account][1] + r.Amount}
				}
			default:
				d := s.try(t, nil, c)
				receipts = quota.AppendReceipts(receipts, []quota.Charge{c}, &d)
				want[account] = [2]int64{want[account][0] + d.Outcomes[0].Charged, want[account][1]}
			}
		}
		records.flush(s.Engine)
		for _, account := range accounts {
			spent, refunded := records.of(s.spend(account, "units", quota.PeriodMonth, 0, 0))
			if got := [2]int64{spent, refunded}; got != want[account] {
				t.Fatalf("%s: the records have spent and refunded %v, want %v", account, got, want[account])
			}
		}
	})
}

func (s *suite) ledgerConcurrent() {
	const accounts, workers, rounds = 8, 8, 100
	names := make([]quota.Subject, accounts)
	for i := range names {
		names[i] = s.subject()
	}
	var admitted, refunded atomic.Int64
	records := make(book)
	stop := make(chan struct{})
	var flusher sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				records.flush(s.Engine)
			}
		}
	})
	together(workers, func(w int) {
		for i := range rounds {
			c := s.spend(names[(w+i)%accounts], "units", quota.PeriodMonth, 1<<40, int64(i%5)+1)
			d := s.try(s, nil, c, unlimited(s.spend(names[w], "calls", quota.PeriodDay, 0, 1)))
			admitted.Add(d.Outcomes[0].Charged + d.Outcomes[1].Charged)
			if i%3 == 0 {
				s.giveBack(s, c.Receipt(d.Outcomes[0].Charged))
				refunded.Add(d.Outcomes[0].Charged)
			}
		}
	})
	close(stop)
	flusher.Wait()
	records.flush(s.Engine)
	if got, want := records.net(), admitted.Load()-refunded.Load(); got != want {
		s.Fatalf("the records have %d, want %d", got, want)
	}
	all := s.Engine.Totals()
	if last := all[len(all)-1]; len(last.Rows) != 0 || last.Final || last.Epoch == "" {
		s.Fatalf("after everything was acknowledged: %+v", last)
	}
}

// ledgerStaleAck: an acknowledgement covers what was given, not what came since.
func (s *suite) ledgerStaleAck() {
	a, b := s.subject(), s.subject()
	ca, cb := s.spend(a, "jobs", quota.PeriodMonth, 100, 1), s.spend(b, "jobs", quota.PeriodMonth, 100, 1)
	s.admit(ca)
	s.admit(cb)
	given := s.Engine.Totals()
	s.admit(ca)
	for _, t := range given {
		if !slices.IsSortedFunc(t.Rows, func(x, y quota.Total) int { return cmp.Compare(x.Account, y.Account) }) {
			s.Fatalf("rows are not sorted: %+v", t.Rows)
		}
		s.Engine.Flushed(t)
	}
	all := s.Engine.Totals()
	rows := all[len(all)-1].Rows
	want := quota.Total{Account: a, Metric: "jobs", Period: quota.PeriodMonth, Start: ca.Key.Start, End: ca.End, Spent: 2}
	if len(rows) != 1 || rows[0] != want {
		s.Fatalf("rows %+v, want only %+v", rows, want)
	}
	s.Engine.Flushed(quota.EpochTotals{Epoch: "another", Rows: rows, Final: true})
	if all := s.Engine.Totals(); len(all[len(all)-1].Rows) != 1 {
		s.Fatalf("an acknowledgement of another epoch was taken")
	}
}

// rebase: the process was thought dead, its epoch was closed with what the
// records had; nothing is lost, and nothing counted twice.
func (s *suite) rebase() {
	user, other := s.subject(), s.subject()
	c, d := s.spend(user, "jobs", quota.PeriodMonth, 100, 5), s.spend(other, "jobs", quota.PeriodMonth, 100, 2)
	records := make(book)
	s.admit(c)
	s.admit(d)
	for _, t := range s.Engine.Totals() { // written, but the answer was lost
		records.apply(t)
	}
	s.admit(c)
	s.giveBack(s, c.Receipt(1))
	closed := currentEpoch(s.Engine)
	s.Engine.Rebase("unknown", nil)
	if currentEpoch(s.Engine) != closed {
		s.Fatalf("an unknown epoch was rebased")
	}
	s.Engine.Rebase(closed, records.rows(closed))
	if currentEpoch(s.Engine) == closed {
		s.Fatalf("the closed epoch is still the current one")
	}
	s.wantUsed(c, 9)
	s.wantUsed(d, 2)
	s.Engine.Rebase(closed, nil) // again: it is not held any more
	s.Advance(time.Millisecond)
	s.admit(d)
	records.flush(s.Engine)
	if spent, refunded := records.of(c); spent != 10 || refunded != 1 {
		s.Fatalf("the records have %d spent, %d refunded, want 10, 1", spent, refunded)
	}
	if spent, _ := records.of(d); spent != 4 {
		s.Fatalf("the records have %d spent, want 4", spent)
	}
}
