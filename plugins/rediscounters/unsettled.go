package rediscounters

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// doubt is a call of which nobody knows whether it ran.
type doubt struct {
	ep *epoch
	// lane and seq name the call. A giving back that certainly did not run has
	// none, and is made again.
	lane  *lane
	seq   int64
	op    opcode // opUndo or opRecall
	rows  []quota.Charge
	since time.Time
	// again is when to try anew what could not be settled by a fault of its own.
	again time.Time
}

// The bounds of what is remembered to be settled.
const (
	maxUnsettled = 20_000
	// giveUp is when a call is dropped that cannot be settled although Redis
	// answers: a key of it holds something else.
	giveUp = 10 * time.Minute
)

// unsettled are the calls in doubt, oldest first.
type unsettled struct {
	settling sync.Mutex // one goroutine settles
	mu       sync.Mutex
	list     []*doubt
	owed     [][]quota.Receipt // see Owed
	kick     chan struct{}
}

func (u *unsettled) add(d *doubt) (ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.list) >= maxUnsettled {
		return false
	}
	u.list = append(u.list, d)
	select {
	case u.kick <- struct{}{}:
	default:
	}
	return true
}

func (u *unsettled) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.list)
}

// owe keeps what the gate has to give back.
func (u *unsettled) owe(rs []quota.Receipt) (ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.owed) >= maxUnsettled {
		return false
	}
	u.owed = append(u.owed, rs)
	return true
}

// Owed takes the refunds that certainly did not run and that free a level which is
// not known: only the records can tell it. It is gate.Debtor's.
func (e *Engine) Owed() [][]quota.Receipt {
	u := &e.unsettled
	u.mu.Lock()
	defer u.mu.Unlock()
	owed := u.owed
	u.owed = nil
	return owed
}

func (u *unsettled) takeAll() []*doubt {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.list
	u.list = nil
	return list
}

// putBack returns what was not settled to its place before what came since.
func (u *unsettled) putBack(list []*doubt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(list, u.list...)
}

// doubtful keeps a call until it is settled.
func (e *Engine) doubtful(d *doubt) {
	d.since = time.Now()
	if !e.unsettled.add(d) {
		e.health.abandoned.Add(1)
		e.log.Error("too many calls of redis are in doubt: what this one may have charged stays charged")
		e.settled(d)
	}
}

// settled gives back what a doubt kept.
func (e *Engine) settled(d *doubt) {
	d.ep.busy.Add(-1)
	if d.lane != nil {
		e.lanes.release(d.lane)
	}
}

// settlesAtOnce bounds the settlements that requests may have to wait behind.
const settlesAtOnce = 16

// settleAll settles the calls in doubt, several at once, until Redis does not
// answer or ctx ends: the rest stay in doubt, which is no error. They are of
// different numbers, so none has to wait for another.
func (e *Engine) settleAll(ctx context.Context) error {
	e.unsettled.settling.Lock()
	defer e.unsettled.settling.Unlock()
	list := e.unsettled.takeAll()
	var all errgroup.Group
	all.SetLimit(settlesAtOnce)
	var failed atomic.Bool
	for i, d := range list {
		all.Go(func() error {
			if failed.Load() || ctx.Err() != nil {
				return nil
			}
			if time.Now().Before(d.again) {
				return nil
			}
			done, err := e.settle(d)
			if err != nil {
				failed.Store(true)
			}
			if done {
				list[i] = nil
			}
			return err
		})
	}
	err := all.Wait()
	e.unsettled.putBack(slices.DeleteFunc(list, func(d *doubt) bool { return d == nil }))
	return err
}

// settle asks what became of a call, and undoes or completes it. done: it needs
// no more attention. An error means that Redis does not answer; a fault of the call
// alone is none, for neither the breaker nor the other calls have to wait for it.
func (e *Engine) settle(d *doubt) (done bool, err error) {
	if d.lane != nil {
		ran, err := e.inquire(d)
		if kindOf(err) == gate.FaultOther {
			// Twice as late each time: one bad key may have thousands of calls in doubt.
			d.again = time.Now().Add(time.Since(d.since))
			return e.givenUp(d, err), nil
		}
		if err != nil {
			return false, err
		}
		if ran || d.op == opUndo {
			e.settled(d)
			return true, nil
		}
		e.lanes.release(d.lane)
		d.lane = nil
	}
	err = e.give(d.rows)
	var cold *quota.ColdError
	var fault *gate.CounterError
	switch {
	case errors.As(err, &cold):
		if !e.unsettled.owe(receipts(d.rows)) {
			return e.givenUp(d, err), nil
		}
	case !errors.As(err, &fault): // given, or never to be
	case fault.NotRun && fault.Kind == gate.FaultOther:
		return e.givenUp(d, err), nil
	case fault.NotRun:
		return false, err
	case fault.Kind != gate.FaultOther: // in doubt anew, under another number
		e.settled(d)
		return true, err
	}
	e.settled(d)
	return true, nil
}

// givenUp drops a call that could not be settled for too long.
func (e *Engine) givenUp(d *doubt, err error) bool {
	if time.Since(d.since) < giveUp {
		return false
	}
	e.health.abandoned.Add(1)
	e.log.Error("settling a call was given up: what it charged stays charged, what it gives back is not given", zap.Error(err))
	e.settled(d)
	return true
}

// inquire runs a call's settlement: a take that ran is undone, anything that did
// not run never will. It may be repeated.
func (e *Engine) inquire(d *doubt) (ran bool, err error) {
	d.ep.busy.Add(1)
	r := newRun(e, d.ep, d.op)
	defer r.finish()
	r.plan.lay(d.rows, r.all(len(d.rows)))
	r.call = newCall(e.scripts.count)
	r.pack(d.op, d.lane, d.seq, d.rows)
	kept, err := e.runIn(bucketOf(d.rows[0].Key.Digest), r.call)
	outcomes := make([]quota.Outcome, len(d.rows))
	if err == nil {
		_, err = r.read(&r.plan, d.op, d.rows, outcomes)
	}
	if kept {
		r.call.release()
	}
	if err != nil {
		return false, err
	}
	for i := range outcomes {
		if outcomes[i].Used == 0 {
			continue
		}
		ran = true
		c, spent := &d.rows[i], outcomes[i].Charged
		if d.op == opRecall {
			spent = 0
		}
		d.ep.add(&c.Key, c.Account, c.End, spent, outcomes[i].Charged)
	}
	return ran, nil
}
