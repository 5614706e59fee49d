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
	// maxOwed bounds the refunds that wait for the records.
	maxOwed  = 20_000
	oweEvery = time.Second
)

// owed are refunds of levels that could not be loaded when they were to be made:
// they are made when the records answer.
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

// add keeps receipts whose refund failed with err, if all that it lacks is a level.
func (o *owed) add(rs []quota.Receipt, err error) bool {
	if !awaitsLoad(err) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) >= maxOwed {
		return false
	}
	o.list = append(o.list, slices.Clone(rs))
	return true
}

// awaitsLoad reports whether a refund was not made only because a level is not known.
func awaitsLoad(err error) bool {
	var cold *quota.ColdError
	return errors.As(err, &cold)
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
		if awaitsLoad(err) {
			// Last from now on: others may be of accounts that can be loaded.
			o.putBack(append(list[i+1:], rs))
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
		o.rt.log.Error("levels that were to be freed are still not known; they stay as they are", zap.Int("refunds", n))
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
