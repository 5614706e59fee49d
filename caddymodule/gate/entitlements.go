package gate

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// The bounds of a load. A request waits for a changed entitlement until the load
// ends; where only its time is up, it goes on with what is known after staleWait.
const (
	loadTimeout  = 2 * time.Second
	staleWait    = 100 * time.Millisecond
	failureDelay = 200 * time.Millisecond // between two loads of an account that fail
	// A flight that was joined may have begun before the latest change; the next
	// one has not. The third is for records that answer with old snapshots.
	maxFlights  = 3
	maxFailures = 10_000 // accounts whose failures are remembered
)

// Entitlements is the cache of what accounts may do: bounded, single-flight,
// stale while the records fail, and never older than a change that was seen.
type Entitlements struct {
	loader   Loader
	fallback func(quota.Subject) *quota.Entitlement
	ttl      atomic.Int64 // ns
	stale    atomic.Int64 // ns
	cache    *otter.Cache[quota.Subject, *entry]
	recent   recent
	flight   singleflight.Group
	changes  changelog
	// failures are by account: a row that cannot be read must not keep others
	// from being loaded.
	failures *otter.Cache[quota.Subject, failure]
	// hung is set while the latest load ran into its time limit.
	hung atomic.Bool
	// onLoad is told of each account that was loaded, with the e-mail that its credential names.
	onLoad func(account quota.Subject, email string)
	stats  *Stats
	log    *zap.Logger
}

type entry struct {
	entitlement quota.Entitlement
	loadedAt    time.Time
	// generation of the changelog that the load began in.
	generation uint64
	changed    atomic.Bool // a change was seen that this entry does not hold
	// removed: the cache does not have the entry any more, and so is not told of changes.
	removed atomic.Bool
}

// failure is a load that failed. It counts for failureDelay, or until a change is seen.
type failure struct {
	at    time.Time
	since mark
}

func newEntitlements(o *Options, stats *Stats) (*Entitlements, error) {
	cache, err := otter.New(&otter.Options[quota.Subject, *entry]{
		MaximumSize: max(1, o.CacheSize),
		// Before the entry cannot be found: whoever goes on using it knows.
		OnAtomicDeletion: func(d otter.DeletionEvent[quota.Subject, *entry]) { d.Value.removed.Store(true) },
	})
	if err != nil {
		return nil, err
	}
	failures, err := otter.New(&otter.Options[quota.Subject, failure]{MaximumSize: maxFailures})
	if err != nil {
		return nil, err
	}
	c := &Entitlements{
		loader: o.Loader, fallback: o.Fallback, cache: cache, failures: failures, stats: stats, log: o.Log,
		onLoad: func(quota.Subject, string) {},
		recent: recent{seed: maphash.MakeSeed()},
	}
	c.Configure(o.TTL, o.Stale, o.CacheSize)
	return c, nil
}

// Configure sets how long an entitlement is used (ttl), how long beyond that
// while the records fail (stale), and how many are kept.
func (c *Entitlements) Configure(ttl, stale time.Duration, size int) {
	c.ttl.Store(int64(ttl))
	c.stale.Store(int64(ttl + stale))
	c.cache.SetMaximum(uint64(max(1, size)))
}

func (c *Entitlements) usable(e *entry, now time.Time) bool {
	return e != nil && int64(now.Sub(e.loadedAt)) < c.stale.Load()
}

// Get is the account's entitlement. It never fails: while the records cannot be
// asked it is what was known, for as long as stale allows, and then the
// fallback (the default plan, or none). email is the caller's, where its
// credential names one.
func (c *Entitlements) Get(ctx context.Context, account quota.Subject, email string) *quota.Entitlement {
	now := time.Now()
	e, ok := c.cache.GetIfPresent(account)
	if ok && c.fresh(e, now) {
		c.stats.CacheHits.Add(1)
		return &e.entitlement
	}
	return c.missed(ctx, account, email, e, now)
}

// missed loads the entitlement, or makes do without: e is what the cache holds, nil for nothing.
func (c *Entitlements) missed(ctx context.Context, account quota.Subject, email string, e *entry, now time.Time) *quota.Entitlement {
	c.stats.CacheMisses.Add(1)
	since := c.changes.mark()
	if f, ok := c.failures.GetIfPresent(account); ok && f.since == since && now.Sub(f.at) < failureDelay {
		return c.makeDo(account, e, now)
	}
	return c.load(ctx, account, email, e, since)
}

func (c *Entitlements) fresh(e *entry, now time.Time) bool {
	until := e.entitlement.ValidUntil
	return !e.changed.Load() && int64(now.Sub(e.loadedAt)) < c.ttl.Load() &&
		(until.IsZero() || now.Before(until)) && c.changes.covers(e)
}

// load loads once for all who wait, and not on the context of one of them: a
// client that leaves must not fail the others. What it answers holds every
// change that had been applied at since.
func (c *Entitlements) load(ctx context.Context, account quota.Subject, email string, old *entry, since mark) *quota.Entitlement {
	now := time.Now()
	timer := time.NewTimer(c.patience(old, now))
	defer timer.Stop()
	for flight := 1; ; flight++ {
		done := c.flight.DoChan(string(account), func() (any, error) {
			return c.fetch(context.WithoutCancel(ctx), account, email)
		})
		select {
		case r := <-done:
			if r.Err != nil {
				return c.makeDo(account, old, now)
			}
			e := r.Val.(*entry)
			if flight < maxFlights && c.changes.behind(account, e, since) {
				continue
			}
			return &e.entitlement
		case <-timer.C:
			return c.makeDo(account, old, now)
		case <-ctx.Done():
			return c.makeDo(account, old, now)
		}
	}
}

// patience is how long a load is waited for. While the records hang it goes on
// in the background: whoever waited for it would only be slow.
func (c *Entitlements) patience(old *entry, now time.Time) time.Duration {
	usable := c.usable(old, now)
	switch {
	case usable && c.hung.Load():
		return 0
	case c.hung.Load(), usable && !old.changed.Load() && c.changes.covers(old):
		return staleWait
	}
	return loadTimeout
}

// fetch loads the entitlement and keeps it, unless something was changed since
// the load began: then it is used by those who asked before, and not kept.
func (c *Entitlements) fetch(ctx context.Context, account quota.Subject, email string) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	since := c.changes.mark()
	e := &entry{loadedAt: time.Now(), generation: since.generation}
	loaded, err := c.ask(ctx, account)
	c.stats.took(CallLoad, e.loadedAt)
	if err != nil {
		c.failures.Set(account, failure{time.Now(), since})
		c.hung.Store(errors.Is(err, context.DeadlineExceeded))
		c.stats.loadFailed(err)
		c.log.Error("loading an entitlement failed; what was known of the account goes on", zap.Error(err))
		return nil, err
	}
	c.hung.Store(false)
	c.failures.Invalidate(account)
	e.entitlement = *loaded // the loader may hand out one that it shares
	e.entitlement.AccountDigest = loaded.Account.Digest()
	c.changes.unlessOlder(account, e, func() { c.cache.Set(account, e) })
	c.onLoad(account, email)
	return e, nil
}

// ask calls the loader. A panic there is an error here: nobody above could
// recover it, and it would end the process.
func (c *Entitlements) ask(ctx context.Context, account quota.Subject) (e *quota.Entitlement, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("loading an entitlement panicked: %v", p)
		}
	}()
	e, err = c.loader.Entitlement(ctx, account)
	if err == nil && e == nil {
		err = errors.New("the records answered no entitlement")
	}
	return e, err
}

func (c *Entitlements) makeDo(account quota.Subject, old *entry, now time.Time) *quota.Entitlement {
	if c.usable(old, now) {
		c.stats.CacheStale.Add(1)
		return &old.entitlement
	}
	c.stats.Fallbacks.Add(1)
	return c.fallback(account)
}

// apply notes changes that the records have told.
func (c *Entitlements) apply(changes []quota.Change) {
	c.hung.Store(false) // whoever tells of changes can be asked
	c.changes.mu.Lock()
	defer c.changes.mu.Unlock()
	applied := c.changes.applied.Load()
	for _, ch := range changes {
		account := c.changes.add(ch)
		if applied < ch.Seq || ch.Subject == quota.AllSubjects {
			applied = ch.Seq
		}
		if !account {
			continue
		}
		if e, ok := c.cache.GetEntryQuietly(ch.Subject); ok && e.Value.entitlement.Version < ch.Seq {
			e.Value.changed.Store(true)
		}
	}
	c.changes.apply(applied)
}

// Applied is the number of the newest change that this cache has seen: every
// request that begins later is judged by it.
func (c *Entitlements) Applied() int64 { return c.changes.applied.Load() }

// Len is about how many accounts are cached.
func (c *Entitlements) Len() int { return c.cache.EstimatedSize() }

// Drop forgets everything: the next request of each account loads it anew. What
// was known still serves while the records fail.
func (c *Entitlements) Drop() {
	c.changes.mu.Lock()
	defer c.changes.mu.Unlock()
	c.changes.add(quota.Change{Subject: quota.AllSubjects})
}
