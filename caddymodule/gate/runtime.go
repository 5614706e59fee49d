package gate

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Options make a Runtime.
type Options struct {
	Loader Loader
	Bus    Bus
	Usage  UsageStore
	Engine Engine
	// Fallback is what an account may do while the records cannot be asked and
	// nothing is known of it. It must not return nil.
	Fallback func(quota.Subject) *quota.Entitlement

	TTL, Stale time.Duration
	CacheSize  int
	// FlushEvery is the interval of usage flushes, a second by default.
	FlushEvery time.Duration
	// Observe is told how long each call took; it must be quick. May be nil.
	Observe func(call string, d time.Duration)
	// Log outlives any config. Each message is written at most once in 10 s.
	Log *zap.Logger
}

// sparing writes each message at most once in 10 s: while something is down,
// every request has the same to say. Stats count what is left out.
func sparing(log *zap.Logger) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	return Sampled(log, 10*time.Second, 1, 0)
}

// The calls that Options.Observe is told of.
const (
	CallReserve = "reserve" // of the counters
	CallLoad    = "load"    // of an entitlement
	CallUsage   = "usage"   // of what was used, for cold counters
	CallFlush   = "flush"   // of usage
)

// Runtime is what the gates of successive configs share: the entitlement
// cache, the counters, the recorder of usage, the watcher of changes and the
// open streams.
type Runtime struct {
	Entitlements *Entitlements
	Streams      *Streams
	Stats        *Stats

	engine   Engine
	usage    UsageStore
	bus      Bus
	recorder *recorder
	refills  *refills
	guard    *guarded // nil: counters that cannot be out of reach
	reaper   *reaper  // nil: records of one process
	owed     *owed
	log      *zap.Logger

	look chan struct{} // has a place for one: the watcher looks for changes at once
	deaf atomic.Bool   // the watch has failed, and has not begun again

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// NewRuntime makes a Runtime; Start starts it.
func NewRuntime(o Options) (*Runtime, error) {
	if o.FlushEvery == 0 {
		o.FlushEvery = time.Second
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration) {}
	}
	o.Log = sparing(o.Log)
	rt := &Runtime{Stats: &Stats{observe: o.Observe}, usage: o.Usage, bus: o.Bus, log: o.Log, look: make(chan struct{}, 1)}
	rt.engine, rt.guard = guard(o.Engine, rt.Stats, o.Log)
	rt.refills = newRefills(rt)
	rt.owed = newOwed(rt, o.Engine)
	rt.reaper = newReaper(rt, o.Engine)
	var err error
	if rt.Entitlements, err = newEntitlements(&o, rt.Stats); err != nil {
		return nil, err
	}
	rt.Streams = newStreams(rt)
	rt.recorder = newRecorder(rt.engine, o.Usage, o.FlushEvery, rt.Stats, o.Log)
	rt.Entitlements.onLoad = rt.recorder.seen
	return rt, nil
}

// Start begins to watch the records for changes and to flush usage. It waits at
// most two seconds for the records, and goes on without them.
func (rt *Runtime) Start(ctx context.Context) {
	ctx, rt.stop = context.WithCancel(context.WithoutCancel(ctx))
	rt.Stats.started.Store(time.Now().UnixNano())
	asking, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	latest, err := rt.bus.Latest(asking)
	if err != nil {
		rt.watchFailed(err)
	} else {
		rt.Entitlements.changes.applied.Store(latest)
	}
	rt.wg.Go(func() { rt.watch(ctx) })
	rt.wg.Go(func() { rt.recorder.run(ctx) })
	rt.wg.Go(func() { rt.Streams.run(ctx) })
	rt.wg.Go(func() { rt.owed.run(ctx) })
	if rt.guard != nil {
		rt.wg.Go(func() { rt.guard.run(ctx) })
		rt.wg.Go(func() { rt.guard.reconcile(ctx) })
		rt.wg.Go(func() { rt.refills.run(ctx) })
	}
	if rt.reaper != nil {
		rt.wg.Go(func() { rt.reaper.run(ctx) })
	}
}

// Stop ends the background work and flushes what was counted. What cannot be
// flushed stays in the counters' own log, or in those that outlive the process.
func (rt *Runtime) Stop(ctx context.Context) {
	if rt.stop != nil {
		rt.stop()
	}
	rt.wg.Wait()
	rt.owed.close(ctx)
	if rt.guard != nil {
		rt.guard.local.untake() // they may have lost it since, and nobody would hand it over again
		rt.guard.handOver(ctx)
	}
	_ = rt.recorder.flush(ctx, true) // it has logged what is not written
}

// watch follows the changes; after a failure everything cached is in doubt.
func (rt *Runtime) watch(ctx context.Context) {
	// Gateways that lost a server at one instant do not all come back at another.
	const least, most = 150 * time.Millisecond, 350 * time.Millisecond
	for {
		first := true
		err := rt.bus.Watch(ctx, rt.Entitlements.Applied(), rt.look, func(changes []quota.Change) {
			if first {
				first = false
				rt.recorder.again()
			}
			rt.apply(changes)
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			rt.watchFailed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(least + rand.N(most-least)):
		}
		rt.Entitlements.Drop()
	}
}

func (rt *Runtime) watchFailed(err error) {
	rt.deaf.Store(true)
	rt.Stats.WatchFailures.Add(1)
	rt.Stats.fault("records", err)
	rt.log.Warn("watching the records for changes failed; trying again", zap.Error(err))
}

func (rt *Runtime) apply(changes []quota.Change) {
	rt.deaf.Store(false)
	if len(changes) == 0 {
		return
	}
	rt.Stats.Changes.Add(int64(len(changes)))
	// Counters first: a request that is judged by the new entitlement must also
	// see the usage that the change may have corrected.
	rt.forget(charged(changes))
	rt.Entitlements.apply(changes)
	rt.Streams.wake()
}

// CatchUp returns when the requests of this process are judged by all that was
// changed in the records before, or after two seconds. While the records cannot
// be watched it waits for nothing: everything cached is in doubt then.
func (rt *Runtime) CatchUp(ctx context.Context) {
	if rt.deaf.Load() {
		rt.Entitlements.Drop()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	newest, err := rt.bus.Latest(ctx)
	if err != nil {
		return
	}
	select {
	case rt.look <- struct{}{}:
	default: // it is about to look
	}
	rt.Entitlements.changes.await(ctx, newest)
}

// forget tells the counters, several calls at once: each may be a round trip, and
// what was changed waits for all of them.
func (rt *Runtime) forget(subjects []quota.Subject) {
	var all errgroup.Group
	all.SetLimit(forgetsAtOnce)
	for _, subject := range subjects {
		all.Go(func() error {
			if err := rt.engine.Forget(context.Background(), subject); err != nil {
				rt.Stats.CounterFailures.Add(1)
				rt.Stats.fault("counters", err)
			}
			return nil
		})
	}
	_ = all.Wait() // each was told of by itself
}

// charged are the subjects of changes that may have usage, each once.
func charged(changes []quota.Change) []quota.Subject {
	var subjects []quota.Subject
	seen := map[quota.Subject]bool{}
	for _, ch := range changes {
		switch {
		case ch.Subject == quota.AllSubjects:
			return []quota.Subject{quota.AllSubjects}
		case ch.Subject.Kind() != "plan" && !seen[ch.Subject]:
			seen[ch.Subject] = true
			subjects = append(subjects, ch.Subject)
		}
	}
	return subjects
}

// Outage is a time in which the counters are out of reach.
type Outage struct {
	Since time.Time
	Kind  FaultKind
}

// Outage is the one that lasts, nil if there is none.
func (rt *Runtime) Outage() *Outage {
	if rt.guard == nil {
		return nil
	}
	return rt.guard.outage()
}

// Judge says whether requests are judged in this process, by the newest config: only
// then is it one of those that share the limits. An epoch that counts goes on to.
func (rt *Runtime) Judge(judges bool) { rt.recorder.judges.Store(judges) }

// Process is what the records call this process, once it judges requests.
func (rt *Runtime) Process() string { return rt.recorder.process }

// Gateways is how many processes share the limits, as far as this one knows; at least 1.
func (rt *Runtime) Gateways() int {
	if rt.guard == nil {
		return 1
	}
	return int(rt.guard.local.gateways.Load())
}

// Flush writes usage to the records now.
// An error says that some is not written yet; it is tried again.
func (rt *Runtime) Flush(ctx context.Context) error { return rt.recorder.flush(ctx, true) }
