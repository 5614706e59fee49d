package rediscounters

import (
	"context"
	"errors"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Refund gives usage back, and forgets the receipts' Once. Of what is freed
// no more is given than is there: it answers a *quota.ColdError, and gives nothing,
// where that is not known. Receipts of rates are refused. If Redis does not
// answer, and it is not certain that nothing was given, it is given, once, as
// soon as Redis can be asked.
func (e *Engine) Refund(ctx context.Context, rs []quota.Receipt) error {
	for i := range rs {
		if err := rs[i].Check(); err != nil {
			return fmt.Errorf("refunding: receipt %d (%q): %w", i, rs[i].Key.Name, err)
		}
	}
	if len(rs) == 0 {
		return nil
	}
	if err := e.ready(ctx); err != nil {
		return fmt.Errorf("refunding: %w", err)
	}
	cs, err := givings(rs)
	if err != nil {
		return err
	}
	return e.give(cs)
}

// give gives back what the charges name, within one epoch.
func (e *Engine) give(cs []quota.Charge) error {
	for range maxEpochs {
		err := e.giveIn(e.enter(), cs)
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil {
			return fmt.Errorf("refunding: %w", err)
		}
		return nil
	}
	return fmt.Errorf("refunding: %w", &gate.CounterError{Kind: gate.FaultOther, NotRun: true, Err: errLost})
}

func (e *Engine) giveIn(ep *epoch, cs []quota.Charge) error {
	r := newRun(e, ep, opGive)
	defer r.finish()
	if parts := e.servers.parts(cs); parts != nil {
		return r.giveParts(cs, parts)
	}
	_, err := r.ask(opGive, cs, r.all(len(cs)), make([]quota.Outcome, len(cs)))
	return err
}

// receipts are what givings were made of.
func receipts(cs []quota.Charge) []quota.Receipt {
	rs := make([]quota.Receipt, len(cs))
	for i := range cs {
		c := &cs[i]
		rs[i] = c.Receipt(c.Cost)
		rs[i].Free = !c.Limit.Unlimited
	}
	return rs
}

// givings are receipts in the form of charges. A counter that is named twice
// gives the sum, bounded if one of them is; the other rows only forget their Once.
func givings(rs []quota.Receipt) ([]quota.Charge, error) {
	cs := make([]quota.Charge, len(rs))
	for i := range rs {
		r := &rs[i]
		cs[i] = quota.Charge{
			Key: r.Key, Account: r.Account, End: r.End, Cost: r.Amount, Once: r.Once,
			Limit: quota.Limit{Unlimited: !r.Free},
		}
		for j := range i {
			if cs[j].Key != r.Key {
				continue
			}
			if cs[j].Cost += r.Amount; cs[j].Cost > quota.MaxAmount {
				return nil, fmt.Errorf("refunding: receipt %d (%q): %w", i, r.Key.Name, quota.ErrOverflow)
			}
			cs[j].Limit.Unlimited = cs[j].Limit.Unlimited && !r.Free
			cs[i].Cost = 0
			break
		}
	}
	return cs, nil
}
