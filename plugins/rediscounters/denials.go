package rediscounters

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const (
	denialShards = 32
	// maxDenials bounds the refusals that are remembered: those of more callers
	// are asked of Redis.
	maxDenials = 100_000
)

// denials answer a caller that a rate limit refused, until the instant from
// which it may be admitted: such a caller costs Redis nothing. What a quota
// refuses is never kept: it may be raised at any moment.
type denials struct {
	count atomic.Int64
	// drops is how often something was forgotten: a refusal that was on its way
	// meanwhile may be from before, and is not kept.
	drops  atomic.Int64
	shards [denialShards]denialShard
}

type denialShard struct {
	mu     sync.Mutex
	byRate map[rateKey]*denial
}

type rateKey struct {
	digest quota.Digest
	scope  string
}

// denial is a decision, for the very charges that it was made for.
type denial struct {
	charges  []quota.Charge
	outcomes []quota.Outcome
	at       time.Time // the waits count from here
	until    time.Time
}

func (ds *denials) init() {
	for i := range ds.shards {
		ds.shards[i].byRate = make(map[rateKey]*denial)
	}
}

func (ds *denials) shard(d quota.Digest) *denialShard { return &ds.shards[d[3]%denialShards] }

// remember keeps a refusal by rates alone. sent is when Redis was asked: it
// answered later, so what it said to wait is not over before sent plus that. drops
// is what it was then.
func (ds *denials) remember(cs []quota.Charge, d *quota.Decision, sent time.Time, drops int64) {
	until := time.Time{}
	for i := range cs {
		if cs[i].Once != (quota.Digest{}) {
			return // the same request may be free
		}
		if !d.Outcomes[i].Exceeded || cs[i].Force {
			continue
		}
		wait := d.Outcomes[i].Wait
		if cs[i].Key.Space != quota.SpaceRate || wait <= 0 {
			return
		}
		if t := sent.Add(wait); until.IsZero() || t.Before(until) {
			until = t
		}
	}
	if ds.count.Load() >= maxDenials {
		return
	}
	c := &cs[d.Denied]
	n := &denial{charges: slices.Clone(cs), outcomes: slices.Clone(d.Outcomes), at: sent, until: until}
	s := ds.shard(c.Key.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ds.drops.Load() != drops { // under the lock that whoever drops it waits for
		return
	}
	k := rateKey{c.Key.Digest, c.Key.Name}
	if _, ok := s.byRate[k]; !ok {
		ds.count.Add(1)
	}
	s.byRate[k] = n
}

// answer writes the decision if it is known to be a refusal still.
func (ds *denials) answer(cs []quota.Charge, d *quota.Decision) bool {
	if ds.count.Load() == 0 {
		return false
	}
	for i := range cs {
		if cs[i].Key.Space == quota.SpaceRate && !cs[i].Force && ds.answerBy(i, cs, d) {
			return true
		}
	}
	return false
}

func (ds *denials) answerBy(i int, cs []quota.Charge, d *quota.Decision) bool {
	s := ds.shard(cs[i].Key.Digest)
	k := rateKey{cs[i].Key.Digest, cs[i].Key.Name}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byRate[k]
	if n == nil {
		return false
	}
	now := time.Now()
	if !now.Before(n.until) {
		delete(s.byRate, k)
		ds.count.Add(-1)
		return false
	}
	if !same(n.charges, cs) {
		return false
	}
	passed := now.Sub(n.at).Truncate(time.Millisecond)
	for j := range n.outcomes {
		o := n.outcomes[j]
		if o.Wait > 0 {
			o.Wait = max(time.Millisecond, o.Wait-passed)
		}
		d.Outcomes[j] = o
	}
	d.Judge(cs, now)
	return true
}

// same reports whether the charges ask for the same of the same counters. The
// rule that asks may be another's: it decides nothing here.
func same(a, b []quota.Charge) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.Key != y.Key || x.Limit != y.Limit || x.Cost != y.Cost || x.Need != y.Need || x.Force != y.Force || x.Once != y.Once {
			return false
		}
	}
	return true
}

// drop forgets the refusals of a subject.
func (ds *denials) drop(d quota.Digest) {
	ds.drops.Add(1)
	s := ds.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.byRate {
		if k.digest == d {
			delete(s.byRate, k)
			ds.count.Add(-1)
		}
	}
}

func (ds *denials) clear() {
	ds.drops.Add(1)
	for i := range ds.shards {
		s := &ds.shards[i]
		s.mu.Lock()
		ds.count.Add(-int64(len(s.byRate)))
		clear(s.byRate)
		s.mu.Unlock()
	}
}

// sweep forgets what is over.
func (ds *denials) sweep(now time.Time) {
	for i := range ds.shards {
		s := &ds.shards[i]
		s.mu.Lock()
		for k, n := range s.byRate {
			if !now.Before(n.until) {
				delete(s.byRate, k)
				ds.count.Add(-1)
			}
		}
		s.mu.Unlock()
	}
}
