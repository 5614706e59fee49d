package jwtverifier

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Bounds of the cache of one verifier.
const (
	cacheEntries = 20_000
	cacheBytes   = 32 << 20
	cacheShards  = 64
	cacheLatest  = 4096
	// entryOverhead is about what an entry takes beside its token, in bytes.
	entryOverhead = 512
)

// cache holds tokens that were verified, by their full text: no two tokens
// meet. Readers of different tokens share no lock but by chance.
type cache struct {
	// latest has what was found last for each ending of a token. It is looked at
	// first: most tokens are found here without a lock.
	latest [cacheLatest]atomic.Pointer[entry]
	shards [cacheShards]shard
	// Bounds of one shard.
	entries, bytes int
}

type shard struct {
	mu   sync.RWMutex
	byID map[string]*entry
	// ring holds the entries for the second-chance eviction; hand is the next to look at.
	ring  []*entry
	hand  int
	bytes int
	_     [40]byte // keeps the locks of neighbours off one cache line
}

type entry struct {
	token     string
	principal *quota.Principal
	until     time.Time // exclusive
	epoch     uint64    // of the keys
	slot      int       // in the ring
	used      atomic.Bool
}

func newCache(entries, bytes int) *cache {
	c := &cache{entries: max(1, entries/cacheShards), bytes: max(1, bytes/cacheShards)}
	for i := range c.shards {
		c.shards[i].byID = make(map[string]*entry)
	}
	return c
}

// ending is a hash of the end of the token, which is the signature: it spreads well.
func ending(token string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := max(0, len(token)-16); i < len(token); i++ {
		h = (h ^ uint64(token[i])) * prime
	}
	return h ^ h>>32
}

func (c *cache) shard(hash uint64) *shard { return &c.shards[hash%cacheShards] }

func (c *cache) slot(hash uint64) *atomic.Pointer[entry] {
	return &c.latest[hash/cacheShards%cacheLatest]
}

// get finds a token that was verified with the keys of the epoch and is valid at now.
func (c *cache) get(token string, epoch uint64, now time.Time) *quota.Principal {
	hash := ending(token)
	slot := c.slot(hash)
	e := slot.Load()
	if e == nil || e.token != token {
		e = c.shard(hash).find(token, slot)
	}
	if e == nil || e.epoch != epoch || !now.Before(e.until) {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.principal
}

// find finds the token, and puts it into the slot while it cannot be removed.
func (s *shard) find(token string, slot *atomic.Pointer[entry]) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.byID[token]
	if e != nil {
		slot.Store(e)
	}
	return e
}

// put keeps a token until its time, unless it is evicted before. It copies the
// token: a header's text may belong to something larger.
func (c *cache) put(token string, epoch uint64, until time.Time, p *quota.Principal) {
	size := len(token) + entryOverhead
	if size > c.bytes {
		return
	}
	e := &entry{token: strings.Clone(token), principal: p, until: until, epoch: epoch}
	hash := ending(token)
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[token]; old != nil {
		if old.epoch > epoch {
			return // a slower request, of older keys
		}
		c.remove(s, old)
	}
	now := time.Now()
	for len(s.ring) > 0 && (len(s.ring) >= c.entries || s.bytes+size > c.bytes) {
		c.evict(s, now)
	}
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.byID[e.token] = e
	s.bytes += size
}

// evict removes one entry: the next one that is expired or was not used since
// the hand passed it last.
func (c *cache) evict(s *shard, now time.Time) {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		e := s.ring[s.hand]
		if now.Before(e.until) && e.used.Swap(false) {
			s.hand++
			continue
		}
		c.remove(s, e)
		return
	}
}

func (c *cache) remove(s *shard, e *entry) {
	last := len(s.ring) - 1
	moved := s.ring[last]
	s.ring[e.slot], moved.slot = moved, e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	s.bytes -= len(e.token) + entryOverhead
	delete(s.byID, e.token)
	c.slot(ending(e.token)).CompareAndSwap(e, nil)
}

// len counts the entries.
func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.ring)
		s.mu.RUnlock()
	}
	return n
}
