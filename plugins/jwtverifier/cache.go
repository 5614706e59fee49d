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
	// entryOverhead is about what an entry takes beside its token, in bytes.
	entryOverhead = 512
)

// cache holds tokens that were verified, by their full text: no two tokens
// meet. Readers of different tokens share no lock but by chance.
type cache struct {
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

// shard picks by the end of the token, which is the signature: it spreads well.
func (c *cache) shard(token string) *shard {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := max(0, len(token)-16); i < len(token); i++ {
		h = (h ^ uint64(token[i])) * prime
	}
	return &c.shards[(h^h>>32)%cacheShards]
}

// get finds a token that was verified with the keys of the epoch and is valid at now.
func (c *cache) get(token string, epoch uint64, now time.Time) *quota.Principal {
	s := c.shard(token)
	s.mu.RLock()
	e := s.byID[token]
	s.mu.RUnlock()
	if e == nil || e.epoch != epoch || !now.Before(e.until) {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.principal
}

// put keeps a token until its time, unless it is evicted before. It copies the
// token: a header's text may belong to something larger.
func (c *cache) put(token string, epoch uint64, until time.Time, p *quota.Principal) {
	size := len(token) + entryOverhead
	if size > c.bytes {
		return
	}
	e := &entry{token: strings.Clone(token), principal: p, until: until, epoch: epoch}
	s := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[token]; old != nil {
		if old.epoch > epoch {
			return // a slower request, of older keys
		}
		s.remove(old)
	}
	now := time.Now()
	for len(s.ring) > 0 && (len(s.ring) >= c.entries || s.bytes+size > c.bytes) {
		s.evict(now)
	}
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.byID[e.token] = e
	s.bytes += size
}

// evict removes one entry: the next one that is expired or was not used since
// the hand passed it last.
func (s *shard) evict(now time.Time) {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		e := s.ring[s.hand]
		if now.Before(e.until) && e.used.Swap(false) {
			s.hand++
			continue
		}
		s.remove(e)
		return
	}
}

func (s *shard) remove(e *entry) {
	last := len(s.ring) - 1
	moved := s.ring[last]
	s.ring[e.slot], moved.slot = moved, e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	s.bytes -= len(e.token) + entryOverhead
	delete(s.byID, e.token)
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
