package gate

import (
	"encoding/binary"
	"sync"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const (
	answeredSets = 2048
	// answeredWays is how many quotas there is room for of the accounts of one set.
	answeredWays = 8
)

// answered is what the shared counters last said of quotas: when they are out of
// reach, this process goes on from there until the records have answered. It is of
// fixed size; a later quota takes the place of an earlier one.
type answered struct{ sets [answeredSets]answeredSet }

// answeredSet is of some accounts, so that one of them can be forgotten at once.
type answeredSet struct {
	mu   sync.Mutex
	keys [answeredWays]quota.Key
	used [answeredWays]int64
	next uint8 // the way to be taken next
}

func (a *answered) set(d quota.Digest) *answeredSet {
	return &a.sets[binary.BigEndian.Uint16(d[4:])%answeredSets]
}

// note keeps what a decision says of quotas. A charge that denies nothing may be
// of a counter that is not known, and says nothing.
func (a *answered) note(cs []quota.Charge, d *quota.Decision) {
	for i := range cs {
		c := &cs[i]
		if c.Key.Space != quota.SpaceUsage || c.Limit.Unlimited || c.Force || c.AsKnown {
			continue
		}
		s := a.set(c.Key.Digest)
		s.mu.Lock()
		at := s.find(&c.Key)
		if at < 0 {
			at = int(s.next)
			s.next = (s.next + 1) % answeredWays
			s.keys[at] = c.Key
		}
		s.used[at] = d.Outcomes[i].Used
		s.mu.Unlock()
	}
}

func (s *answeredSet) find(k *quota.Key) int {
	for i := range s.keys {
		if s.keys[i] == *k {
			return i
		}
	}
	return -1
}

// of is what was last said of a quota.
func (a *answered) of(k *quota.Key) (used int64, ok bool) {
	s := a.set(k.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(k)
	if at < 0 {
		return 0, false
	}
	return s.used[at], true
}

// forget drops what was said of an account: it was changed in the records.
func (a *answered) forget(account quota.Subject) {
	if account == quota.AllSubjects {
		for i := range a.sets {
			a.sets[i].forget(nil)
		}
		return
	}
	d := account.Digest()
	a.set(d).forget(&d)
}

// forget drops what is of the digest, all if there is none.
func (s *answeredSet) forget(d *quota.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.keys {
		if d == nil || s.keys[i].Digest == *d {
			s.keys[i] = quota.Key{}
		}
	}
}
