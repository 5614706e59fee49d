package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Fill implements Refiller.
func (l *local) Fill(_ context.Context, bs []quota.Base) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range bs {
		b := &bs[i]
		if b.Key.Space != quota.SpaceUsage {
			return fmt.Errorf("filling counters: %q is a rate: it has no base", b.Key.Name)
		}
		if b.Generation < l.minGen {
			continue
		}
		if u := l.counter(b.Key, "", 0); !u.warm || u.loaded.IsZero() {
			u.used, u.warm, u.loaded = max(0, b.Used+u.net()), true, l.clock()
		}
	}
	return nil
}

// assume fills cold counters with what is believed until they are loaded.
func (l *local) assume(bs []quota.Base) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range bs {
		b := &bs[i]
		if u := l.counter(b.Key, "", 0); !u.warm && b.Generation >= l.minGen {
			u.used, u.warm, u.loaded = max(0, b.Used+u.net()), true, time.Time{}
		}
	}
}

// Forget implements Refiller.
func (l *local) Forget(_ context.Context, account quota.Subject) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(account)
	return nil
}

func (l *local) forget(account quota.Subject) {
	l.turn()
	digest := account.Digest()
	for k, u := range l.usage {
		if account == quota.AllSubjects || k.Digest == digest {
			u.used, u.warm = 0, false
		}
	}
}

// turn makes the loads in flight untrue.
func (l *local) turn() {
	l.generation++
	l.minGen = l.generation
}

// Reset implements Refiller.
func (l *local) Reset(_ context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, digest := l.clock().UnixMilli(), subject.Digest()
	var emptied []string
	for k, w := range l.windows {
		if k.Digest != digest || (len(scopes) > 0 && !slices.Contains(scopes, k.Name)) {
			continue
		}
		if w.Width() != 0 && w.Sum(now, w.Width()) > 0 {
			emptied = append(emptied, k.Name)
		}
		delete(l.windows, k)
	}
	slices.Sort(emptied)
	return emptied, nil
}

// Totals implements Ledger.
func (l *local) Totals() []quota.EpochTotals {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []quota.EpochTotals
	for _, e := range l.retired {
		t := quota.EpochTotals{Epoch: e.id, Final: true, Kept: true}
		for k, tally := range e.tallies {
			t.Rows = tally.appendRow(t.Rows, k)
		}
		quota.SortTotals(t.Rows)
		out = append(out, t)
	}
	last := quota.EpochTotals{Epoch: l.current}
	for k, u := range l.dirty {
		last.Rows = u.appendRow(last.Rows, k)
	}
	quota.SortTotals(last.Rows)
	return append(out, last)
}

// appendRow appends the tally's row unless the records have it.
func (t *localTally) appendRow(rows []quota.Total, k quota.Key) []quota.Total {
	if !t.dirty() {
		return rows
	}
	return append(rows, t.row(k))
}

func (t *localTally) row(k quota.Key) quota.Total {
	return quota.Total{
		Account: t.account, Metric: k.Name, Period: k.Period, Start: k.Start, End: t.end,
		Spent: t.spent, Refunded: t.refunded,
	}
}

// Flushed implements Ledger.
func (l *local) Flushed(t quota.EpochTotals) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Epoch == l.current {
		for i := range t.Rows {
			k := t.Rows[i].Key()
			if u := l.usage[k]; u != nil {
				if u.acknowledge(&t.Rows[i]); !u.dirty() {
					delete(l.dirty, k)
				}
			}
		}
		return
	}
	e := l.retiredEpoch(t.Epoch)
	if e == nil {
		return
	}
	for i := range t.Rows {
		k := t.Rows[i].Key()
		if tally := e.tallies[k]; tally != nil {
			tally.acknowledge(&t.Rows[i])
		}
	}
	for _, tally := range e.tallies {
		if tally.dirty() {
			return
		}
	}
	if t.Final {
		l.drop(t.Epoch)
	}
}

func (t *localTally) acknowledge(r *quota.Total) {
	t.flushedSpent = max(t.flushedSpent, min(r.Spent, t.spent))
	t.flushedRefunded = max(t.flushedRefunded, min(r.Refunded, t.refunded))
}

func (l *local) retiredEpoch(id string) *localEpoch {
	for _, e := range l.retired {
		if e.id == id {
			return e
		}
	}
	return nil
}

func (l *local) drop(epoch string) {
	l.retired = slices.DeleteFunc(l.retired, func(e *localEpoch) bool { return e.id == epoch })
	l.turn()
}

// Rebase implements Ledger. One that has ended meanwhile is Kept: nothing is moved.
func (l *local) Rebase(closed string, rows []quota.Total) {
	recorded := make(map[quota.Key]*quota.Total, len(rows))
	for i := range rows {
		recorded[rows[i].Key()] = &rows[i]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if closed != l.current {
		return
	}
	l.begin()
	l.turn()
	clear(l.dirty)
	for k, u := range l.usage {
		spent, refunded := u.excess(recorded[k])
		u.spent, u.refunded, u.flushedSpent, u.flushedRefunded = 0, 0, 0, 0
		if spent != 0 || refunded != 0 {
			l.tally(k, u, spent, refunded)
		}
	}
}

// excess is what a tally holds beyond the row that the records have of it.
func (t *localTally) excess(recorded *quota.Total) (spent, refunded int64) {
	if recorded == nil {
		return t.spent, t.refunded
	}
	return max(0, t.spent-recorded.Spent), max(0, t.refunded-recorded.Refunded)
}

// end ends the epoch in which something was counted, if there is one, and makes
// all usage cold: from here on others decide. It names the accounts of the epoch.
func (l *local) end() []quota.Subject {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &localEpoch{id: l.current, tallies: map[quota.Key]*localTally{}}
	accounts := map[quota.Subject]struct{}{}
	for k, u := range l.usage {
		if u.spent != 0 || u.refunded != 0 {
			e.tallies[k] = &u.localTally
			accounts[u.account] = struct{}{}
		}
	}
	clear(l.usage)
	clear(l.dirty)
	l.turn()
	if len(e.tallies) == 0 {
		return nil
	}
	l.retired = append(l.retired, e)
	l.begin()
	return slices.Collect(maps.Keys(accounts))
}

// untaken are the ended epochs, whole, that the counters may not have.
func (l *local) untaken() []quota.EpochTotals {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []quota.EpochTotals
	for _, e := range l.retired {
		if e.taken {
			continue
		}
		t := quota.EpochTotals{Epoch: e.id, Final: true, Kept: true}
		for k, tally := range e.tallies {
			t.Rows = append(t.Rows, tally.row(k))
		}
		quota.SortTotals(t.Rows)
		out = append(out, t)
	}
	return out
}

// untake doubts that the counters have what they took: they may have lost it.
func (l *local) untake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.retired {
		e.taken = false
	}
}

// took notes that the counters have an ended epoch.
func (l *local) took(epoch string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.retiredEpoch(epoch); e != nil {
		e.taken = true
	}
}

// holds reports whether the current epoch holds anything, and how many ended ones
// the records do not hold whole.
func (l *local) holds() (counted bool, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counted, len(l.retired)
}

// has reports whether an epoch is one of this process's own counting.
func (l *local) has(epoch string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return epoch == l.current || l.retiredEpoch(epoch) != nil
}

// renewal is usage of an account that is to be loaded anew.
type renewal struct {
	account quota.Subject
	keys    []quota.Key
	cold    *quota.ColdError
}

// stale is the usage that was asked for since its base was loaded, where that is
// longer ago than age: other gateways have admitted meanwhile.
func (l *local) stale(age time.Duration) []renewal {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, by := l.clock(), map[quota.Subject]*renewal{}
	for k, u := range l.usage {
		if !u.warm || u.account == "" || now.Sub(u.loaded) <= age || u.asked.Before(u.loaded) {
			continue
		}
		r := by[u.account]
		if r == nil {
			r = &renewal{account: u.account, cold: &quota.ColdError{Generation: l.generation, Except: l.epochs()}}
			by[u.account] = r
		}
		r.cold.Charges = append(r.cold.Charges, len(r.keys))
		r.cold.Carry = append(r.cold.Carry, l.carry(k))
		r.keys = append(r.keys, k)
	}
	out := make([]renewal, 0, len(by))
	for _, r := range by {
		out = append(out, *r)
	}
	return out
}

// renew sets anew what was used; like Fill, but of warm counters.
func (l *local) renew(bs []quota.Base) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range bs {
		if u := l.usage[bs[i].Key]; u != nil && u.warm && bs[i].Generation >= l.minGen {
			u.used, u.loaded = max(0, bs[i].Used+u.net()), l.clock()
		}
	}
}

// sweep drops some of what counts no more: windows without a count, and what is
// too old to be known as a Once. It looks at no more than n of each.
func (l *local) sweep(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, seen := l.clock().UnixMilli(), 0
	for k, w := range l.windows { // in an order that differs each time
		if w.Idle(now) {
			delete(l.windows, k)
		}
		if seen++; seen == n {
			break
		}
	}
	seen = 0
	for k, at := range l.once {
		if now-at >= quota.OnceTTL.Milliseconds() {
			delete(l.once, k)
		}
		if seen++; seen == n {
			break
		}
	}
}

var _ Engine = (*local)(nil)
