package rediscounters

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// How often the engine looks after itself.
const (
	upkeepEvery = time.Second
	// policyEvery is how often Redis is asked how it is set up.
	policyEvery = 30 * time.Second
	policyTime  = 2 * time.Second
)

// health is what an operator wants to know.
type health struct {
	losses, abandoned, faults atomic.Int64

	mu     sync.Mutex
	policy error // why Redis is not set up as it must be
}

func (h *health) failed(error) { h.faults.Add(1) }

// unfit is why Redis is not set up as it must be, as far as is known.
func (h *health) unfit() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.policy
}

// maintain settles what is in doubt, renews the epoch and looks at Redis.
func (e *Engine) maintain(ctx context.Context) {
	t := time.NewTicker(upkeepEvery)
	defer t.Stop()
	var checked time.Time
	for {
		if time.Since(checked) >= policyEvery {
			checked = time.Now()
			e.checkPolicy(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.denials.sweep(time.Now())
			if ep := e.current.Load(); time.Since(ep.began) >= epochLife {
				e.begin(ep)
			}
		case <-e.unsettled.kick:
		}
		if e.relearn.Load() && e.forgetAll(ctx) == nil {
			e.relearn.Store(false)
		}
		if e.unsettled.len() > 0 {
			_ = e.settleAll(ctx) // stays in doubt; whoever calls next reports what is wrong
		}
	}
}

// checkPolicy looks whether Redis may evict counters, and whether it is new enough.
func (e *Engine) checkPolicy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	var found error
	asked := false
	err := e.servers.masters(ctx, func(ctx context.Context, c *redis.Client) error {
		info, err := c.Info(ctx, "server", "memory").Result()
		if err != nil {
			return err
		}
		e.health.mu.Lock()
		defer e.health.mu.Unlock()
		asked = true
		if bad := badPolicy(info); bad != nil {
			found = fmt.Errorf("redis at %s: %w", c.Options().Addr, bad)
		}
		return nil
	})
	if err != nil || !asked {
		return // that it cannot be reached is said by those who need it
	}
	e.health.mu.Lock()
	before := e.health.policy
	e.health.policy = found
	e.health.mu.Unlock()
	switch {
	case found != nil && (before == nil || before.Error() != found.Error()):
		e.log.Error("redis is not set up to hold counters", zap.Error(found))
	case found == nil && before != nil:
		e.log.Info("redis is set up to hold counters again")
	}
}

// badPolicy says what of Redis's own report does not do, nil if all does.
func badPolicy(info string) error {
	if policy := infoField(info, "maxmemory_policy"); policy != "" && policy != "noeviction" {
		return fmt.Errorf("maxmemory-policy is %s, so that counters may be evicted and limits forgotten: "+
			"set maxmemory-policy noeviction", policy)
	}
	return nil
}

// infoField is one line of what Redis reports of itself.
func infoField(info, name string) string {
	_, rest, _ := strings.Cut(info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r")
	return value
}

// Ping reports that Redis does not answer, or that it may forget what is counted.
func (e *Engine) Ping(ctx context.Context) error {
	if e.closed.Load() {
		return ErrClosed
	}
	err := e.servers.masters(ctx, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
	if err != nil {
		return err
	}
	return e.health.unfit()
}

// MayEvict reports whether Redis may evict counters. It is caddymodule.Evicter's.
func (e *Engine) MayEvict() bool { return e.health.unfit() != nil }

// Probe reports whether Reserve would succeed on every server, and settles the
// calls that are in doubt, as far as ctx leaves time. It is gate.Prober's.
func (e *Engine) Probe(ctx context.Context) error {
	if err := e.ready(ctx); err != nil {
		return err
	}
	if err := e.servers.probe(ctx, e.prefix); err != nil {
		return err
	}
	return e.settleAll(ctx)
}
