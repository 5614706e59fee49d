package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// guarded is counters that may be out of reach, behind a breaker: after a fault
// no request waits for them until a probe succeeds. Meanwhile the process counts by
// itself, unless a charge is of a rule that denies in an outage. The two ledgers
// are one: usage is exact whoever has admitted.
type guarded struct {
	shared Engine
	prober Prober
	local  *local
	last   answered
	stats  *Stats
	log    *zap.Logger

	// fault is why the breaker is open, as the latest probe has found; nil while it
	// is closed.
	fault   atomic.Pointer[CounterError]
	tripped chan struct{} // of capacity 1: wakes run
	back    chan struct{} // of capacity 1: wakes reconcile

	mu     sync.Mutex
	opened time.Time // when the breaker last opened
	closed time.Time // when it last closed
	// doubtful are accounts whose shared usage lacks what was admitted here;
	// everyone's is, if more was missed than a list of accounts says.
	doubtful map[quota.Subject]struct{}
	everyone bool
}

const (
	// A breaker that opens again soon after it was closed is not probed at once:
	// each attempt costs some requests the time of one call.
	firstProbe = 25 * time.Millisecond
	probeEvery = 500 * time.Millisecond
	soon       = 5 * time.Second
	// probeLimit is for counters that ignore their own time limit.
	probeLimit = time.Second
	// An outage of longTime may have lost counters, or put older ones in their place.
	longTime    = time.Second
	maxDoubtful = 10_000
	settleEvery = 250 * time.Millisecond
	sweepBatch  = 2000
	// forgetsAtOnce bounds the calls of Forget that requests may have to wait behind.
	forgetsAtOnce = 16
)

// errOpen is what the counters would answer.
var errOpen = errors.New("not asked while they are out of reach")

// guard puts counters that can fail behind a breaker; others stay as they are.
func guard(e Engine, stats *Stats, log *zap.Logger) (Engine, *guarded) {
	p, ok := e.(Prober)
	if !ok {
		return e, nil
	}
	g := &guarded{
		shared: e, prober: p, local: newLocal(), stats: stats, log: log,
		tripped: make(chan struct{}, 1), back: make(chan struct{}, 1), doubtful: map[quota.Subject]struct{}{},
	}
	return g, g
}

// Reserve implements Counters.
func (g *guarded) Reserve(ctx context.Context, cs []quota.Charge, d *quota.Decision) error {
	if ctx.Err() != nil { // its client has left, but it may reach the backend all the same
		ctx = context.WithoutCancel(ctx)
	}
	if g.fault.Load() == nil {
		err := g.shared.Reserve(ctx, cs, d)
		if err == nil {
			g.last.note(cs, d)
			return nil
		}
		if !g.faulty(ctx, err) {
			return err
		}
	}
	if err := g.denies(cs); err != nil {
		return err
	}
	err := g.local.Reserve(ctx, cs, d)
	switch {
	case err != nil:
	case d.Admitted():
		g.stats.LocalAdmitted.Add(1)
	default:
		g.stats.LocalDenied.Add(1)
	}
	return err
}

// Peek implements Counters.
func (g *guarded) Peek(ctx context.Context, cs []quota.Charge, d *quota.Decision) error {
	if g.fault.Load() == nil {
		err := g.shared.Peek(ctx, cs, d)
		if err == nil || !g.faulty(ctx, err) {
			return err
		}
	}
	if err := g.denies(cs); err != nil {
		return err
	}
	return g.local.Peek(ctx, cs, d)
}

// denies is the fault, if one of the charges is of a rule that denies in an outage.
func (g *guarded) denies(cs []quota.Charge) error {
	if !slices.ContainsFunc(cs, func(c quota.Charge) bool { return c.DenyOnOutage }) {
		return nil
	}
	if f := g.fault.Load(); f != nil {
		return f
	}
	return &CounterError{Kind: FaultOther, NotRun: true, Err: errOpen} // of this one call
}

// Refund implements Counters. Whoever took the charge, it is given back where
// that can be done now: usage is the sum over all epochs. Only what a Once of the
// shared counters has charged waits for them: they would let it be done again for free.
func (g *guarded) Refund(ctx context.Context, rs []quota.Receipt) error {
	if g.fault.Load() == nil {
		err := g.shared.Refund(ctx, rs)
		if err == nil || !g.faulty(ctx, err) {
			return err
		}
		var f *CounterError
		if errors.As(err, &f) && !f.NotRun {
			return nil // they complete it themselves
		}
	}
	here, there := g.local.split(rs)
	if err := g.local.Refund(ctx, here); err != nil || len(there) == 0 {
		return err
	}
	return &waitingError{there}
}

// waitingError says which refunds have to wait for counters that are out of reach;
// the others were made.
type waitingError struct{ receipts []quota.Receipt }

func (e *waitingError) Error() string {
	return fmt.Sprintf("%d refunds have to wait for the shared counters", len(e.receipts))
}

// faulty reports whether err is a fault of the counters, and opens the breaker
// if it is one that others would meet too: not one of this call alone, and not
// that its client has left.
func (g *guarded) faulty(ctx context.Context, err error) bool {
	var f *CounterError
	if !errors.As(err, &f) {
		return false
	}
	if ctx.Err() == nil {
		g.stats.counterFault(f)
		if f.Kind != FaultOther {
			g.trip(f)
		}
	}
	return true
}

func outOfReach(kind FaultKind) *CounterError {
	return &CounterError{Kind: kind, NotRun: true, Err: errOpen}
}

func (g *guarded) trip(f *CounterError) {
	if !g.fault.CompareAndSwap(nil, outOfReach(f.Kind)) {
		return
	}
	g.mu.Lock()
	g.opened = time.Now()
	g.mu.Unlock()
	g.stats.BreakerOpened.Add(1)
	g.log.Error("the counters are out of reach; limits are kept in this process", zap.Error(f))
	select {
	case g.tripped <- struct{}{}:
	default:
	}
}

// Fill implements Refiller. Counters that have gone meanwhile need not be filled.
func (g *guarded) Fill(ctx context.Context, bs []quota.Base) error {
	if len(bs) == 0 {
		return nil
	}
	if bs[0].Generation&localGeneration != 0 { // all are of one ColdError
		return g.local.Fill(ctx, bs)
	}
	if g.fault.Load() != nil {
		return nil
	}
	if err := g.shared.Fill(ctx, bs); err != nil && !g.faulty(ctx, err) {
		return err
	}
	return nil
}

// assume lets this process's own counting go on from what the shared counters said
// last, until a load succeeds. It reports whether they have said something of all
// that is cold.
func (g *guarded) assume(keys []quota.Key, cold *quota.ColdError) bool {
	if cold.Generation&localGeneration == 0 {
		return false
	}
	bs := make([]quota.Base, len(keys))
	for i, k := range keys {
		used, ok := g.last.of(&k)
		if !ok {
			return false
		}
		bs[i] = quota.Base{Key: k, Used: used + cold.Carry[i], Generation: cold.Generation}
	}
	g.local.assume(bs)
	return true
}

// Forget implements Refiller. What the shared counters could not be told they
// are told when they are back.
func (g *guarded) Forget(ctx context.Context, account quota.Subject) error {
	g.last.forget(account)
	if err := g.local.Forget(ctx, account); err != nil {
		return err
	}
	if g.fault.Load() == nil {
		err := g.shared.Forget(ctx, account)
		if err == nil || !g.faulty(ctx, err) {
			return err
		}
	}
	g.doubt(account)
	return nil
}

// Reset implements Refiller. It fails where the shared windows cannot be emptied:
// whoever asked must know.
func (g *guarded) Reset(ctx context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	here, err := g.local.Reset(ctx, subject, scopes)
	if err != nil {
		return nil, err
	}
	there, err := g.shared.Reset(ctx, subject, scopes)
	if err != nil {
		g.faulty(ctx, err)
		return nil, err
	}
	there = append(there, here...)
	slices.Sort(there)
	return slices.Compact(there), nil
}

// Totals implements Ledger. The epoch of this process's own counting is there
// only while it holds something.
func (g *guarded) Totals() []quota.EpochTotals {
	own := g.local.Totals()
	if counted, _ := g.local.holds(); !counted {
		own = own[:len(own)-1]
	}
	return append(own, g.shared.Totals()...)
}

// Flushed implements Ledger.
func (g *guarded) Flushed(t quota.EpochTotals) {
	if g.local.has(t.Epoch) {
		g.local.Flushed(t)
		return
	}
	g.shared.Flushed(t)
}

// Rebase implements Ledger.
func (g *guarded) Rebase(closed string, rows []quota.Total) {
	if g.local.has(closed) {
		g.local.Rebase(closed, rows)
		return
	}
	g.shared.Rebase(closed, rows)
}

var _ Engine = (*guarded)(nil)
