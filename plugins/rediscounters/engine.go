package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"go.uber.org/zap"
)

// ErrClosed answers calls after Close.
var ErrClosed = errors.New("the counters are closed")

// The defaults of Options.
const (
	DefaultTimeout = 50 * time.Millisecond
	DefaultPrefix  = "quotagate"
)

// Options says where and how an Engine counts.
type Options struct {
	// Address is where Redis is.
	Address address.Redis
	// Prefix begins all keys. Default: DefaultPrefix.
	Prefix string
	// Timeout is how long one call may take, from its beginning to its answer.
	// Default: DefaultTimeout.
	Timeout time.Duration
	// Log gets what an operator should know; nil: nothing.
	Log *zap.Logger

	sharing sharing
}

// Engine counts in Redis. It is a gate.Engine, a gate.EpochKeeper and a
// gate.Prober, and safe for concurrent use.
type Engine struct {
	opts    Options
	prefix  string
	log     *zap.Logger
	scripts scripts
	servers topology

	seq   atomic.Int64
	lanes lanes

	// epochs serializes what begins, ends and forgets epochs.
	epochs  sync.Mutex
	current atomic.Pointer[epoch]
	ended   []*epoch // oldest first

	registries [buckets]registry
	denials    denials
	unsettled  unsettled
	health     health

	// relearn asks for what was used once more: usage that Redis had lost has
	// reached the records since.
	relearn atomic.Bool

	closed atomic.Bool
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// Open begins an epoch and the work in the background. It does not wait for
// Redis, which may be down.
func Open(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	servers, err := connect(&o)
	if err != nil {
		return nil, fmt.Errorf("opening counters in redis: %w", err)
	}
	e := &Engine{opts: o, prefix: o.Prefix, log: o.Log, scripts: newScripts(), servers: servers}
	e.current.Store(newEpoch())
	e.denials.init()
	e.unsettled.kick = make(chan struct{}, 1)
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.wg.Go(func() { e.maintain(ctx) })
	return e, nil
}

// Close settles what is not settled yet, if Redis answers, and ends all
// connections. What was counted and not flushed stays in Redis.
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.stop()
	e.wg.Wait()
	err := e.settleAll(context.Background())
	if n := e.unsettled.len() + len(e.Owed()); n > 0 {
		e.log.Warn("some calls could not be settled: what they may have charged stays charged",
			zap.Int("calls", n), zap.Error(err))
	}
	if err := e.servers.close(); err != nil {
		return fmt.Errorf("closing counters in redis: %w", err)
	}
	return nil
}

// lanes number the calls that are under way at once. The hash of an epoch holds,
// for each lane, the last call that ran: so Redis remembers as many calls as
// there are at once, however many there were.
type lanes struct {
	mu    sync.Mutex
	free  []*lane
	count int
}

type lane struct{ name string }

func (l *lanes) borrow() *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		lane := l.free[n-1]
		l.free = l.free[:n-1]
		return lane
	}
	l.count++
	return &lane{name: fmt.Sprintf("#%d", l.count)}
}

func (l *lanes) release(ln *lane) {
	l.mu.Lock()
	l.free = append(l.free, ln)
	l.mu.Unlock()
}

// registry is what a bucket said of its epochs with the latest ColdError: a Fill
// of that generation adds up what these hold.
type registry struct {
	mu         sync.Mutex
	generation uint64
	epochs     []string
}

func (r *registry) set(generation uint64, epochs []string) {
	r.mu.Lock()
	r.generation, r.epochs = generation, epochs
	r.mu.Unlock()
}

// of is the epochs of a generation; false if it is not the latest.
func (r *registry) of(generation uint64) ([]string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epochs, r.generation == generation && generation != 0
}

// begin starts another epoch if old is still the current one, and reports whether
// it was. old gets no more charges but those under way.
func (e *Engine) begin(old *epoch) bool {
	e.epochs.Lock()
	defer e.epochs.Unlock()
	if e.current.Load() != old {
		return false
	}
	e.ended = append(slices.Clip(e.ended), old)
	e.current.Store(newEpoch())
	for i := range e.registries { // loads under way were told of the old one
		e.registries[i].set(0, nil)
	}
	return true
}

// enter is the current epoch, kept from its end until leave.
func (e *Engine) enter() *epoch {
	for {
		ep := e.current.Load()
		ep.busy.Add(1)
		if e.current.Load() == ep {
			return ep
		}
		ep.busy.Add(-1)
	}
}

// Interface guards.
var (
	_ gate.Engine      = (*Engine)(nil)
	_ gate.EpochKeeper = (*Engine)(nil)
	_ gate.Prober      = (*Engine)(nil)
	_ gate.Debtor      = (*Engine)(nil)
	_ gate.EpochLister = (*Engine)(nil)
)
