package gate

import (
	"context"
	"errors"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// coldRetries bounds how often a call is repeated after a refill. More than one
// is needed only where epochs end, or the account is changed, meanwhile.
const coldRetries = 4

// unloadedError says that what was used could not be loaded: the counters answer,
// and have taken nothing.
type unloadedError struct {
	cold  *quota.ColdError
	cause error
}

func (e *unloadedError) Error() string { return "loading what was used: " + e.cause.Error() }

func (e *unloadedError) Unwrap() []error { return []error{e.cold, e.cause} }

// reserve reserves, loading what the counters do not know.
func (g *Gate) reserve(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error {
	began := time.Now()
	err := g.rt.engine.Reserve(ctx, cs, d)
	if err != nil {
		err = g.rt.warm(account, chargeKeys(cs), err, func() error { return g.rt.engine.Reserve(ctx, cs, d) })
	}
	g.rt.Stats.took(CallReserve, began)
	return err
}

// Peek tells what the charges would find, without taking anything.
func (g *Gate) Peek(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error {
	err := g.rt.engine.Peek(ctx, cs, d)
	if err != nil {
		err = g.rt.warm(account, chargeKeys(cs), err, func() error { return g.rt.engine.Peek(ctx, cs, d) })
	}
	return err
}

func chargeKeys(cs []quota.Charge) func(int) quota.Key {
	return func(i int) quota.Key { return cs[i].Key }
}

// warm loads what the error of a call says is cold and makes the call again,
// until no counter that it needs is cold.
func (rt *Runtime) warm(account quota.Subject, key func(int) quota.Key, err error, call func() error) error {
	for range coldRetries {
		var cold *quota.ColdError
		if !errors.As(err, &cold) {
			return err
		}
		if cause := rt.refills.refill(account, key, cold); cause != nil {
			rt.Stats.ColdFailures.Add(1)
			rt.Stats.fault("records", cause)
			return &unloadedError{cold, cause}
		}
		err = call()
	}
	return err
}

// outage applies on_outage while the counters cannot be asked.
func (g *Gate) outage(ctx context.Context, t *Ticket, err error) (*Ticket, error) {
	if ctx.Err() == nil {
		g.rt.Stats.CounterFailures.Add(1)
		g.rt.Stats.fault("counters", err)
		g.log.Error("limits cannot be checked; the rules' on_outage decides", zap.Error(err))
	}
	if r := outageDenier(t.rules, t.charges, nil); r != nil {
		return t, t.deny(refusal(quota.CodeLimiterUnavailable, r.Name))
	}
	t.uncharge() // admitted, uncounted, degraded
	return t, nil
}

// unloaded applies on_outage while usage cannot be loaded and the counters answer.
// Where it does not deny, the charges go by what the counters know: of a caller who
// is new to them, by all.
func (g *Gate) unloaded(ctx context.Context, t *Ticket, err error, cold *quota.ColdError) *quota.Denial {
	if ctx.Err() == nil {
		g.log.Error("what was used cannot be loaded; the rules' on_outage decides", zap.Error(err))
	}
	if r := outageDenier(t.rules, t.charges, cold); r != nil {
		return t.deny(refusal(quota.CodeLimiterUnavailable, r.Name))
	}
	asKnown(t.charges)
	return nil
}

// outageDenier is the rule that refuses the request, nil if none does. Where the
// counters answer and only usage is cold, it is none of a rule that spends none of it.
func outageDenier(rules []quota.Applied, cs []quota.Charge, cold *quota.ColdError) *quota.Applied {
	for i := range rules {
		if r := &rules[i]; r.DenyOnOutage && !r.Shadow && (cold == nil || spendsAny(r, cs, cold.Charges)) {
			return r
		}
	}
	return nil
}

func spendsAny(r *quota.Applied, cs []quota.Charge, indices []int) bool {
	for _, i := range indices {
		for j := range r.Spends {
			if r.Spends[j].Metric == cs[i].Key.Name {
				return true
			}
		}
	}
	return false
}

func asKnown(cs []quota.Charge) {
	for i := range cs {
		cs[i].AsKnown = cs[i].Key.Space == quota.SpaceUsage
	}
}
