package gate

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// changelog remembers the latest changes, so that a load that read the records
// before a change and ends after it is recognized and never kept.
type changelog struct {
	mu        sync.Mutex
	ring      [4096]quota.Change
	n         int   // changes added since the last one of AllSubjects
	forgotten int64 // the newest number that has left the ring
	applied   atomic.Int64
	moved     chan struct{} // closed when more is applied; nil: nobody waits
	// generation counts the changes that concern everyone.
	generation atomic.Uint64
	// plans is the newest change of any plan. It concerns every account: a plan
	// that someone else uses may name a period in which all must be counted.
	plans atomic.Int64
}

// mark is how much had been applied at some instant.
type mark struct {
	generation uint64
	applied    int64
}

// mark is read in the reverse of the order in which add and apply write: the
// generation is at least that of the number.
func (l *changelog) mark() mark {
	applied := l.applied.Load()
	return mark{l.generation.Load(), applied}
}

// await returns when the changes up to seq have been applied, or ctx ends.
func (l *changelog) await(ctx context.Context, seq int64) {
	for {
		l.mu.Lock()
		if l.applied.Load() >= seq {
			l.mu.Unlock()
			return
		}
		if l.moved == nil {
			l.moved = make(chan struct{})
		}
		moved := l.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// apply is called with mu held, when all up to seq was added: whoever reads the
// number is judged by what it stands for.
func (l *changelog) apply(seq int64) {
	l.applied.Store(seq)
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// add is called with mu held, and reports whether the change names one account.
func (l *changelog) add(ch quota.Change) (account bool) {
	if ch.Subject == quota.AllSubjects {
		// Whatever was or is being loaded is void by the generation alone, so
		// nothing else needs to be remembered: also where the records were
		// replaced by older ones, whose numbers are lower.
		l.generation.Add(1)
		l.n, l.forgotten = 0, 0
		l.plans.Store(0)
		return false
	}
	at := &l.ring[l.n%len(l.ring)]
	if l.n >= len(l.ring) {
		l.forgotten = max(l.forgotten, at.Seq)
	}
	*at = ch
	l.n++
	if ch.Subject.Kind() == "plan" {
		l.plans.Store(max(l.plans.Load(), ch.Seq))
		return false
	}
	return true
}

// covers reports whether e holds the changes that concern many accounts at once.
func (l *changelog) covers(e *entry) bool {
	return e.generation == l.generation.Load() && e.entitlement.Version >= l.plans.Load()
}

// unlessOlder calls store unless a change that concerns the entry is newer than it.
func (l *changelog) unlessOlder(account quota.Subject, e *entry, store func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.covers(e) && !l.newer(account, e.entitlement.Version) {
		store()
	}
}

// behind reports whether e lacks a change that had been applied at since.
func (l *changelog) behind(account quota.Subject, e *entry, since mark) bool {
	if e.generation < since.generation {
		return true
	}
	if e.entitlement.Version >= since.applied {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Where everything was dropped meanwhile, nobody remembers what came before.
	return !l.covers(e) || l.newer(account, e.entitlement.Version)
}

// newer reports whether a change of the account is, or may be, newer than
// version. It is called with mu held.
func (l *changelog) newer(account quota.Subject, version int64) bool {
	if version < l.forgotten {
		return true
	}
	for i := range min(l.n, len(l.ring)) {
		if ch := &l.ring[i]; ch.Seq > version && ch.Subject == account {
			return true
		}
	}
	return false
}
