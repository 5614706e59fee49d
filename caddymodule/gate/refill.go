package gate

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

const (
	// outageWait is how long a request waits for the records while the counters
	// are out of reach.
	outageWait = 3 * time.Millisecond
	// maxRefills bounds the loads at once: more would only wait for each other.
	maxRefills = 256
	// While the counters are out of reach, usage that is asked for is loaded anew
	// each renewAge, since other gateways admit beside this one.
	followEvery = time.Second
	renewAge    = 2 * time.Second
)

// The reasons for which usage is not known in time.
var (
	errSlow    = errors.New("the records are slow; the load goes on")
	errTooMany = errors.New("too many loads are waiting for the records")
)

// refills load what was used, for counters that do not know. However slow the
// records are, a request waits a bounded time: the load goes on without it, and
// those that follow find what it brings.
type refills struct {
	rt     *Runtime
	flight singleflight.Group
	slots  chan struct{}
	// slow is set while the latest load took longer than staleWait.
	slow atomic.Bool
}

func newRefills(rt *Runtime) *refills {
	return &refills{rt: rt, slots: make(chan struct{}, maxRefills)}
}

// refill loads what the records say of cold counters, and fills them. It waits
// whether or not the client does: what it brings is for the next as well. In an
// outage of the counters it makes do, meanwhile, with what they said last.
func (r *refills) refill(account quota.Subject, key func(int) quota.Key, cold *quota.ColdError) error {
	r.rt.Stats.ColdLoads.Add(1)
	keys := make([]quota.Key, len(cold.Charges))
	for i, at := range cold.Charges {
		keys[i] = key(at)
	}
	// Equal loads are one: of the same keys, in the same generation of the counters.
	done := r.flight.DoChan(fmt.Sprint(account, cold.Generation, keys), func() (any, error) {
		return nil, r.load(account, keys, cold)
	})
	err := r.wait(done)
	if err != nil && r.rt.guard != nil && r.rt.guard.assume(keys, cold) {
		return nil
	}
	return err
}

func (r *refills) wait(done <-chan singleflight.Result) error {
	timer := time.NewTimer(r.patience())
	defer timer.Stop()
	select {
	case loaded := <-done:
		return loaded.Err
	case <-timer.C:
		r.slow.Store(true)
		return errSlow
	}
}

func (r *refills) patience() time.Duration {
	switch {
	case r.rt.guard != nil && r.rt.guard.fault.Load() != nil:
		return outageWait
	case r.slow.Load():
		return staleWait
	}
	return loadTimeout
}

func (r *refills) load(account quota.Subject, keys []quota.Key, cold *quota.ColdError) error {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		return errTooMany
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	bases, err := r.bases(ctx, account, keys, cold)
	if err != nil {
		return err
	}
	return r.rt.engine.Fill(ctx, bases)
}

// bases asks the records what was used of the keys, one for each cold charge.
func (r *refills) bases(ctx context.Context, account quota.Subject, keys []quota.Key, cold *quota.ColdError) (_ []quota.Base, err error) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil { // nobody above could: it would end the process
			err = fmt.Errorf("loading usage panicked: %v", p)
		}
		r.rt.Stats.took(CallUsage, began)
		r.slow.Store(time.Since(began) > staleWait)
	}()
	asked := make([]quota.UsageKey, len(keys))
	for i, k := range keys {
		asked[i] = quota.UsageKey{Metric: k.Name, Period: k.Period, Start: k.Start}
	}
	used, err := r.rt.usage.Usage(ctx, account, asked, cold.Except)
	if err != nil {
		return nil, err
	}
	if len(used) != len(keys) {
		return nil, fmt.Errorf("%d amounts for %d keys", len(used), len(keys))
	}
	bases := make([]quota.Base, len(used))
	for i, k := range keys {
		bases[i] = quota.Base{Key: k, Used: used[i].Amount + cold.Carry[i], Recorded: used[i].Excepted, Generation: cold.Generation}
	}
	return bases, nil
}

// run follows, for an outage, what only the records know: how many gateways
// there are, and what they have admitted.
func (r *refills) run(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		r.countGateways(ctx)
		if r.rt.guard.fault.Load() != nil {
			r.renew(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// countGateways keeps the last known number while the records cannot be asked.
func (r *refills) countGateways(ctx context.Context) {
	records, ok := r.rt.usage.(Reaper)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, followEvery)
	defer cancel()
	n, err := records.Gateways(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.rt.Stats.fault("records", err)
		}
		return
	}
	r.rt.guard.local.gateways.Store(int64(max(1, n)))
}

// renew loads usage anew, one account after the other, for as long as the next
// turn leaves time.
func (r *refills) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, followEvery)
	defer cancel()
	for _, s := range r.rt.guard.local.stale(renewAge) {
		bases, err := r.bases(ctx, s.account, s.keys, s.cold)
		if err != nil {
			if ctx.Err() == nil {
				r.rt.Stats.fault("records", err)
				r.rt.log.Warn("loading usage anew failed; limits go on with what was known", zap.Error(err))
			}
			return
		}
		r.rt.guard.local.renew(bases)
	}
}
