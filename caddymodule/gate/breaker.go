package gate

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// run probes while the breaker is open. Nothing else is done here: whatever is
// slow about an outage must not keep it from being over.
func (g *guarded) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.tripped:
			g.recover(ctx)
		}
	}
}

// reconcile settles what outages leave, and keeps what is counted here small. It
// never waits for the records.
func (g *guarded) reconcile(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.back:
		case <-tick.C:
			g.local.sweep(sweepBatch)
		}
		g.settle(ctx)
	}
}

// recover probes until the counters answer, and closes the breaker. The waits
// grow to probeEvery: that and one probe are the longest that a recovery goes unnoticed.
func (g *guarded) recover(ctx context.Context) {
	g.mu.Lock()
	wait := firstProbe
	if g.opened.Sub(g.closed) < soon {
		wait = probeEvery
	}
	g.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := g.probe(ctx)
		if err == nil {
			break
		}
		g.learn(err)
		wait = min(2*wait, probeEvery)
	}
	g.mu.Lock()
	g.closed = time.Now()
	lasted := g.closed.Sub(g.opened)
	g.everyone = g.everyone || lasted >= longTime
	g.mu.Unlock()
	g.local.untake()
	g.fault.Store(nil)
	g.log.Warn("the counters answer again", zap.Duration("outage", lasted))
	select {
	case g.back <- struct{}{}:
	default:
	}
}

// learn keeps why the counters are out of reach now: a server that was gone may
// be reading its data, and one that hung be a replica.
func (g *guarded) learn(err error) {
	var f *CounterError
	if errors.As(err, &f) && f.Kind != g.fault.Load().Kind {
		g.fault.Store(outOfReach(f.Kind))
		g.log.Warn("the counters are out of reach for another reason", zap.Error(f))
	}
}

func (g *guarded) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return g.prober.Probe(ctx)
}

// settle ends what was counted here while the breaker is closed, and hands it to the
// counters, where it outlives this process. When the records hold it, the shared
// usage of those accounts is made cold: what it lacks is then loaded with the rest.
// Requests that were judged here while the breaker closed are found by the next call.
func (g *guarded) settle(ctx context.Context) {
	if g.fault.Load() != nil {
		return
	}
	g.handOver(ctx)
	if _, ended := g.local.holds(); ended > 0 {
		return // the recorder has yet to write it
	}
	var all errgroup.Group
	all.SetLimit(forgetsAtOnce)
	var failed atomic.Bool
	for _, account := range g.doubts() {
		all.Go(func() error {
			if failed.Load() {
				g.doubt(account)
				return nil
			}
			err := g.shared.Forget(ctx, account)
			if err != nil {
				failed.Store(true)
				g.doubt(account)
			}
			return err
		})
	}
	if err := all.Wait(); err != nil && !g.faulty(ctx, err) {
		g.stats.counterFault(err)
	}
}

// handOver ends what was counted here, and puts what has ended into the shared
// counters until the records have it: they may be away for longer than this process lives.
func (g *guarded) handOver(ctx context.Context) {
	if counted, _ := g.local.holds(); counted {
		for _, account := range g.local.end() {
			g.doubt(account)
		}
	}
	keeper, ok := g.shared.(EpochKeeper)
	if !ok {
		return
	}
	for _, t := range g.local.untaken() {
		if err := keeper.KeepEpoch(ctx, t.Epoch, t.Rows); err != nil {
			if !g.faulty(ctx, err) {
				g.stats.counterFault(err)
			}
			return // it is tried again
		}
		g.local.took(t.Epoch)
	}
}

func (g *guarded) doubt(account quota.Subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if account == quota.AllSubjects || len(g.doubtful) >= maxDoubtful {
		g.everyone = true
	}
	if g.everyone {
		clear(g.doubtful)
		return
	}
	g.doubtful[account] = struct{}{}
}

// doubts takes the accounts whose shared usage is to be forgotten.
func (g *guarded) doubts() []quota.Subject {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.everyone {
		g.everyone = false
		clear(g.doubtful)
		return []quota.Subject{quota.AllSubjects}
	}
	if len(g.doubtful) == 0 {
		return nil
	}
	accounts := make([]quota.Subject, 0, len(g.doubtful))
	for account := range g.doubtful {
		accounts = append(accounts, account)
	}
	clear(g.doubtful)
	return accounts
}

// outage is the one that lasts, nil if there is none.
func (g *guarded) outage() *Outage {
	f := g.fault.Load()
	if f == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return &Outage{Since: g.opened, Kind: f.Kind}
}
