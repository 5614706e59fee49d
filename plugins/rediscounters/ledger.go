package rediscounters

import (
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Totals are gate.Ledger's: those of ended epochs, oldest first, then those of
// the current one. An ended epoch is Final once no call can add to it.
func (e *Engine) Totals() []quota.EpochTotals {
	e.epochs.Lock()
	defer e.epochs.Unlock()
	out := make([]quota.EpochTotals, 0, len(e.ended)+1)
	for _, ep := range e.ended {
		final := ep.busy.Load() == 0 // before the rows are read
		if rows := ep.dirtyRows(); final || len(rows) > 0 {
			out = append(out, quota.EpochTotals{Epoch: ep.id, Rows: rows, Final: final, Kept: true})
		}
	}
	current := e.current.Load()
	return append(out, quota.EpochTotals{Epoch: current.id, Rows: current.dirtyRows(), Kept: true})
}

func (e *epoch) dirtyRows() []quota.Total {
	var rows []quota.Total
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, t := range s.dirty {
			rows = append(rows, t.row())
		}
		s.mu.Unlock()
	}
	quota.SortTotals(rows)
	return rows
}

// Flushed acknowledges what Totals gave. A total that has grown since stays to
// be flushed; an ended epoch that the records hold whole is forgotten here, and
// stays in Redis until it is dropped.
func (e *Engine) Flushed(t quota.EpochTotals) {
	e.epochs.Lock()
	defer e.epochs.Unlock()
	ep := e.held(t.Epoch)
	if ep == nil {
		return
	}
	for i := range t.Rows {
		ep.acknowledge(&t.Rows[i])
	}
	if clean := ep.clean(); clean && t.Final && ep != e.current.Load() {
		e.ended = slices.DeleteFunc(slices.Clone(e.ended), func(other *epoch) bool { return other == ep })
		if ep.lossy.Load() {
			e.relearn.Store(true)
		}
	}
}

func (e *Engine) held(id string) *epoch {
	if current := e.current.Load(); current.id == id {
		return current
	}
	for _, ep := range e.ended {
		if ep.id == id {
			return ep
		}
	}
	return nil
}

func (e *epoch) acknowledge(row *quota.Total) {
	k := row.Key()
	s := e.shard(k.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tallies[k]; t != nil && t.spent == row.Spent && t.refunded == row.Refunded {
		t.dirty = false
	}
}

// clean drops what is not dirty any more from the lists and reports whether
// nothing is left.
func (e *epoch) clean() bool {
	clean := true
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		s.dirty = slices.DeleteFunc(s.dirty, func(t *tally) bool { return !t.dirty })
		clean = clean && len(s.dirty) == 0
		s.mu.Unlock()
	}
	return clean
}

// Rebase ends an epoch that was closed: its totals stay in Totals, Final, since
// Redis holds them too and a reaper may have copied some of them. Nothing is
// moved, whatever the records have.
func (e *Engine) Rebase(closed string, _ []quota.Total) {
	if current := e.current.Load(); current.id == closed {
		e.begin(current)
	}
}
