package memcounters

import (
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Totals are the totals that changed since they were acknowledged: those of
// ended epochs, oldest first and Final, then those of the current one. It is
// gate.Ledger's.
func (e *Engine) Totals() []quota.EpochTotals {
	e.ledger.Lock()
	defer e.ledger.Unlock()
	out := make([]quota.EpochTotals, 0, len(e.retiring)+1)
	for _, id := range e.retiring {
		out = append(out, quota.EpochTotals{Epoch: id, Rows: e.endedRows(id), Final: true})
	}
	return append(out, quota.EpochTotals{Epoch: e.current, Rows: e.currentRows()})
}

func (e *Engine) endedRows(epoch string) []quota.Total {
	var rows []quota.Total
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for k, t := range s.retired[epoch] {
			if t.dirty {
				rows = append(rows, t.row(k))
			}
		}
		s.mu.Unlock()
	}
	quota.SortTotals(rows)
	return rows
}

func (e *Engine) currentRows() []quota.Total {
	var rows []quota.Total
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		for _, u := range s.dirty {
			rows = append(rows, u.row(u.key))
		}
		s.mu.Unlock()
	}
	quota.SortTotals(rows)
	return rows
}

// Flushed acknowledges what Totals gave. A total that has grown since stays to
// be flushed; an ended epoch that the records hold whole is forgotten.
func (e *Engine) Flushed(t quota.EpochTotals) {
	e.ledger.Lock()
	defer e.ledger.Unlock()
	current := t.Epoch == e.current
	if !current && !slices.Contains(e.retiring, t.Epoch) {
		return
	}
	for i := range t.Rows {
		e.acknowledge(t.Epoch, current, &t.Rows[i])
	}
	if current {
		e.cleanDirty()
	} else if t.Final && !e.anyDirty(t.Epoch) {
		e.lockAll()
		defer e.unlockAll()
		e.drop(t.Epoch)
	}
}

func (e *Engine) acknowledge(epoch string, current bool, row *quota.Total) {
	k := row.Key()
	s := e.shard(k.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	var t *tally
	if !current {
		t = s.retired[epoch][k]
	} else if u := s.usage[k]; u != nil {
		t = &u.tally
	}
	if t != nil && t.spent == row.Spent && t.refunded == row.Refunded {
		t.dirty = false
	}
}

func (e *Engine) cleanDirty() {
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		s.dirty = slices.DeleteFunc(s.dirty, func(u *usage) bool { return !u.dirty })
		s.mu.Unlock()
	}
}

func (e *Engine) anyDirty(epoch string) bool {
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		dirty := false
		for _, t := range s.retired[epoch] {
			dirty = dirty || t.dirty
		}
		s.mu.Unlock()
		if dirty {
			return true
		}
	}
	return false
}

// drop forgets an ended epoch that the records hold whole. The ledger and all
// shards are locked.
func (e *Engine) drop(epoch string) {
	gen := e.generation.Add(1)
	e.forgetEpoch(epoch)
	for i := range e.shards {
		s := &e.shards[i]
		delete(s.retired, epoch)
		s.minGen = gen
		s.log.begin()
		s.log.frame = appendEpoch(s.log.frame, itemDropped, epoch)
		s.log.commit()
	}
}

func (e *Engine) forgetEpoch(epoch string) {
	e.retiring = slices.DeleteFunc(slices.Clone(e.retiring), func(id string) bool { return id == epoch })
}

// Rebase moves what a closed epoch holds beyond the rows of the records into
// the current epoch, or into a new one if it was the current. What is used does
// not change. An epoch that is not held is left alone.
func (e *Engine) Rebase(closed string, rows []quota.Total) {
	recorded := make(map[quota.Key]*quota.Total, len(rows))
	for i := range rows {
		recorded[rows[i].Key()] = &rows[i]
	}
	e.ledger.Lock()
	defer e.ledger.Unlock()
	e.lockAll()
	defer e.unlockAll()
	current := closed == e.current
	switch {
	case current:
		e.current = newEpoch(e.now())
	case slices.Contains(e.retiring, closed):
		e.forgetEpoch(closed)
	default:
		return
	}
	gen := e.generation.Add(1)
	for i := range e.shards {
		s := &e.shards[i]
		s.minGen = gen
		// One frame: after a kill the shard is rebased or it is not, and then the
		// epoch is refused and rebased again.
		s.log.begin()
		s.log.frame = appendEpoch(s.log.frame, itemDropped, closed)
		s.log.frame = appendEpoch(s.log.frame, itemEpoch, e.current)
		if current {
			s.rebaseCurrent(recorded)
		} else {
			s.rebaseEnded(closed, recorded)
		}
		s.log.commit()
	}
}

// rebaseCurrent leaves in the counters' tallies, which are the new epoch's now,
// what the records do not have.
func (s *shard) rebaseCurrent(recorded map[quota.Key]*quota.Total) {
	for k, u := range s.usage {
		if u.spent == 0 && u.refunded == 0 {
			continue
		}
		u.spent, u.refunded = u.excess(recorded[k])
		u.dirty = u.spent != 0 || u.refunded != 0
		if u.dirty {
			s.logUsage(u)
		}
	}
	s.relistDirty()
}

// rebaseEnded adds to the counters' tallies what an ended epoch has and the records do not.
func (s *shard) rebaseEnded(closed string, recorded map[quota.Key]*quota.Total) {
	for k, t := range s.retired[closed] {
		spent, refunded := t.excess(recorded[k])
		if spent == 0 && refunded == 0 {
			continue
		}
		u := s.counter(k, t.account, t.end)
		u.spent += spent
		u.refunded += refunded
		s.markDirty(u)
		s.logUsage(u)
	}
	delete(s.retired, closed)
}

func (s *shard) relistDirty() {
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	for _, u := range s.usage {
		if u.dirty {
			s.dirty = append(s.dirty, u)
		}
	}
}

// excess is what a tally holds beyond the row that the records have of it.
func (t *tally) excess(recorded *quota.Total) (spent, refunded int64) {
	if recorded == nil {
		return t.spent, t.refunded
	}
	return max(0, t.spent-recorded.Spent), max(0, t.refunded-recorded.Refunded)
}
