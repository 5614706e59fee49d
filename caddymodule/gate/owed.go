package gate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

const (
	// maxOwed bounds the refunds that wait.
	maxOwed  = 20_000
	oweEvery = time.Second
)

// owed are refunds that could not be made when they were to be: of levels that could
// not be loaded, which wait for the records, and of what was charged by a Once, which
// wait for the counters that hold it.
type owed struct {
	rt     *Runtime
	debtor Debtor // nil: counters that leave none

	mu   sync.Mutex
	list [][]quota.Receipt // each of one account
}

func newOwed(rt *Runtime, e Engine) *owed {
	debtor, _ := e.(Debtor)
	return &owed{rt: rt, debtor: debtor}
}

// add keeps what of the receipts has to wait, after their refund ended with err.
// false: none of it does, or too much does already.
func (o *owed) add(rs []quota.Receipt, err error) bool {
	waiting := waits(rs, err)
	if waiting == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) >= maxOwed {
		return false
	}
	o.list = append(o.list, slices.Clone(waiting))
	return true
}

// waits are those of the receipts that only time keeps from being refunded: those
// of levels that are not known, or all that the counters have to take.
func waits(rs []quota.Receipt, err error) []quota.Receipt {
	if _, cold := errors.AsType[*quota.ColdError](err); cold {
		return rs
	}
	if e, ok := errors.AsType[*waitingError](err); ok {
		return e.receipts
	}
	return nil
}

func (o *owed) run(ctx context.Context) {
	tick := time.NewTicker(oweEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			o.pay(ctx)
		}
	}
}

// pay makes the refunds, until one of them still has to wait.
func (o *owed) pay(ctx context.Context) {
	list := o.take()
	for i, rs := range list {
		if ctx.Err() != nil {
			o.putBack(list[i:])
			return
		}
		err := o.rt.refund(context.WithoutCancel(ctx), rs)
		if waiting := waits(rs, err); waiting != nil {
			// Last from now on: others may be of accounts that can be loaded.
			o.putBack(append(list[i+1:], waiting))
			return
		}
		if err != nil {
			o.rt.refundFailed(o.rt.log, err)
		}
	}
}

func (o *owed) take() [][]quota.Receipt {
	o.mu.Lock()
	list := o.list
	o.list = nil
	o.mu.Unlock()
	if o.debtor != nil {
		list = append(list, o.debtor.Owed()...)
	}
	return list
}

func (o *owed) putBack(list [][]quota.Receipt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(list, o.list...)
}

// close tries once more. What cannot be made now is lost with the process.
func (o *owed) close(ctx context.Context) {
	o.pay(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.list); n > 0 {
		o.rt.Stats.RefundFailures.Add(int64(n))
		o.rt.log.Error("records or counters are still away; what waited for them to be given back stays charged", zap.Int("refunds", n))
	}
}

// refund gives back what the receipts of one account name. A level that is freed
// and not known is loaded first: it falls by no more than is there.
func (rt *Runtime) refund(ctx context.Context, rs []quota.Receipt) error {
	call := func() error { return rt.engine.Refund(ctx, rs) }
	err := call()
	if err != nil {
		err = rt.warm(rs[0].Account, func(i int) quota.Key { return rs[i].Key }, err, call)
	}
	return err
}

func (rt *Runtime) refundFailed(log *zap.Logger, err error) {
	rt.Stats.RefundFailures.Add(1)
	rt.Stats.fault("counters", err)
	log.Error("giving a charge back failed; it stays charged", zap.Error(err))
}
