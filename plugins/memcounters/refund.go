package memcounters

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Refund gives usage back, and forgets the receipts' Once. Of what is freed
// no more is given than is there: it answers a *quota.ColdError, and gives nothing,
// where that is not known. Receipts of rates are refused.
func (e *Engine) Refund(_ context.Context, rs []quota.Receipt) error {
	var set uint64
	for i := range rs {
		if err := rs[i].Check(); err != nil {
			return fmt.Errorf("refunding: receipt %d (%q): %w", i, rs[i].Key.Name, err)
		}
		set |= 1 << shardIndex(rs[i].Key.Digest)
	}
	if set == 0 {
		return nil
	}
	e.lockSet(set)
	defer e.unlockSet(set)
	if e.closed {
		return ErrClosed
	}
	var cold []int
	for i := range rs {
		s := e.shard(rs[i].Key.Digest)
		u := s.usage[rs[i].Key]
		if rs[i].Free && (u == nil || !u.warm) {
			cold = append(cold, i)
		}
		if u != nil && u.refunded+rs[i].Amount > quota.MaxAmount {
			return fmt.Errorf("refunding: receipt %d (%q): %w", i, rs[i].Key.Name, quota.ErrOverflow)
		}
	}
	if cold != nil {
		return e.coldError(cold, func(i int) quota.Key { return rs[i].Key })
	}
	e.beginFrames(set)
	for i := range rs {
		e.shard(rs[i].Key.Digest).refund(&rs[i])
	}
	e.commitFrames(set)
	return nil
}

func (s *shard) refund(r *quota.Receipt) {
	if k := (onceKey{r.Key, r.Once}); r.Once != (quota.Digest{}) {
		if _, known := s.once[k]; known {
			delete(s.once, k)
			s.log.frame = appendForgot(s.log.frame, k)
		}
	}
	u := s.counter(r.Key, r.Account, r.End)
	amount := r.Amount
	if r.Free {
		amount = min(amount, u.used)
	}
	if amount == 0 {
		return
	}
	u.refunded += amount
	if u.warm {
		u.used = max(0, u.used-amount)
	}
	s.markDirty(u)
	s.logUsage(u)
}
