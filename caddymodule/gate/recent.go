package gate

import (
	"context"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const (
	// recentSlots is how many callers are remembered at most.
	recentSlots = 4096
	// recentFor is how long the cache is not asked for a caller again. It learns by
	// being asked which of its entries are worth keeping.
	recentFor = time.Second
)

// recent remembers the entries of the latest callers by their principals, which
// verifiers share between requests: a lookup by address, where the cache would
// hash and compare. Each slot is one caller's; a later one takes it over.
type recent struct {
	seed  maphash.Seed
	slots [recentSlots]atomic.Pointer[sighting]
}

// sighting is an entry that was found in the cache for a principal. It keeps the
// principal alive, so that no other one can get its address.
type sighting struct {
	principal *quota.Principal
	entry     *entry
	at        time.Time
}

func (r *recent) slot(p *quota.Principal) *atomic.Pointer[sighting] {
	return &r.slots[maphash.Comparable(r.seed, p)%recentSlots]
}

// Of is the entitlement of the principal's own account; see Get.
func (c *Entitlements) Of(ctx context.Context, p *quota.Principal) *quota.Entitlement {
	now, slot := time.Now(), c.recent.slot(p)
	s := slot.Load()
	if s != nil && s.principal == p && now.Sub(s.at) < recentFor && !s.entry.removed.Load() && c.fresh(s.entry, now) {
		c.stats.CacheHits.Add(1)
		return &s.entry.entitlement
	}
	e, ok := c.cache.GetIfPresent(p.Subject)
	if ok && c.fresh(e, now) {
		slot.Store(&sighting{p, e, now})
		c.stats.CacheHits.Add(1)
		return &e.entitlement
	}
	return c.missed(ctx, p.Subject, p.Email, e, now)
}
