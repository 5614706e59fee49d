package gate

import (
	"context"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// Settle gives back what did not happen, charges what is known only now, and
// counts the request. It does not fail: what cannot be settled stays charged,
// and is logged. ctx may have ended: the client's leaving settles nothing.
func (t *Ticket) Settle(ctx context.Context, r Result) {
	t.refund(ctx, r)
	t.noteThresholds(t.charges, &t.decision)
	t.chargeLate(ctx, r)
	t.free(ctx, r)
	t.count("", r.Status)
	t.release()
}

// undone reports whether the spends of the rule are given back: the backend was
// not reached, or the rule's refund_unless does not list the answer's status.
func (r Result) undone(rule *quota.Applied) bool {
	return r.Fate == Unreached || (r.Fate == Answered && rule.Refunds(r.Status))
}

func (t *Ticket) refund(ctx context.Context, r Result) {
	for i := range t.charges {
		c, o := &t.charges[i], &t.decision.Outcomes[i]
		if c.Key.Space == quota.SpaceUsage && o.Charged > 0 && r.undone(&t.rules[c.Rule]) {
			t.receipts = append(t.receipts, c.Receipt(o.Charged))
			o.Charged = 0 // for the charts
		}
	}
	t.giveBack(ctx)
}

// giveBack refunds the receipts.
func (t *Ticket) giveBack(ctx context.Context) {
	rs := t.receipts
	if len(rs) == 0 {
		return
	}
	t.receipts = rs[:0]
	rt := t.gate.rt
	err := rt.refund(context.WithoutCancel(ctx), rs)
	if err != nil && !rt.owed.add(rs, err) {
		rt.refundFailed(t.gate.log, err)
	}
	clear(rs)
}

// chargeLate charges the amounts that only the end of a request tells.
func (t *Ticket) chargeLate(ctx context.Context, r Result) {
	var late []quota.Charge
	for i := range t.charges {
		c := t.charges[i]
		if rule := &t.rules[c.Rule]; c.Need != 0 && c.Key.Space == quota.SpaceUsage && !r.undone(rule) {
			c.Cost, c.Need = t.lateAmount(rule, c.Key.Name, r), 0
			c.Force, c.DenyOnOutage = true, false // it has passed
			if c.Cost > 0 {
				late = append(late, c)
			}
		}
	}
	if len(late) == 0 {
		return
	}
	var d quota.Decision
	if err := t.gate.reserve(context.WithoutCancel(ctx), t.caller.account(), late, &d); err != nil {
		t.gate.rt.Stats.CounterFailures.Add(1)
		t.gate.rt.Stats.fault("counters", err)
		t.gate.log.Error("charging at the end of a request failed", zap.Error(err))
		return
	}
	t.noteThresholds(late, &d)
	for i := range late { // for the charts
		for j := range t.charges {
			if t.charges[j].Key == late[i].Key {
				t.decision.Outcomes[j].Charged += d.Outcomes[i].Charged
			}
		}
	}
}

func (t *Ticket) lateAmount(rule *quota.Applied, metric string, r Result) int64 {
	for i := range rule.Spends {
		if rule.Spends[i].Metric == metric {
			return t.measure(rule.Spends[i].Kind, r)
		}
	}
	return 0
}

// measure is the amount that the end of the request tells, 0 for what it does not.
func (t *Ticket) measure(kind quota.AmountKind, r Result) int64 {
	switch kind {
	case quota.AmountRequestBytes:
		return min(r.BodyBytes, quota.MaxAmount)
	case quota.AmountResponseSeconds:
		// A second begun is a second used.
		return int64((time.Since(t.began) + time.Second - 1) / time.Second)
	}
	return 0
}

// ResolveFrees replaces the amounts to free that were late by what value says.
func (t *Ticket) ResolveFrees(value func(quota.Metered) int64) {
	for i := range t.rules {
		r := &t.rules[i]
		own := false
		for j := range r.FreeAmounts {
			if r.FreeAmounts[j] != quota.AmountLate || r.Frees[j].Kind != quota.AmountPlaceholder {
				continue
			}
			if !own { // the amounts may be the config's
				r.FreeAmounts, own = slices.Clone(r.FreeAmounts), true
			}
			r.FreeAmounts[j] = value(r.Frees[j])
		}
	}
}

// free lowers the levels that the rules free where the backend succeeded; like a
// charge, each metric once, by the first rule that names it. Anonymous callers have none.
func (t *Ticket) free(ctx context.Context, r Result) {
	e := t.caller.Entitlement
	if e == nil || r.Fate != Answered || r.Status/100 != 2 {
		return
	}
	for i := range t.rules {
		rule := &t.rules[i]
		for j := range rule.Frees {
			n := rule.FreeAmounts[j]
			if n == quota.AmountLate {
				n = t.measure(rule.Frees[j].Kind, r)
			}
			key := quota.Key{Digest: e.Digest(), Name: rule.Frees[j].Metric, Space: quota.SpaceUsage, Period: quota.PeriodNone}
			if n > 0 && !slices.ContainsFunc(t.receipts, func(r quota.Receipt) bool { return r.Key == key }) && t.freesFirst(ctx, rule, key) {
				t.receipts = append(t.receipts, quota.Receipt{Key: key, Account: e.Account, Amount: n, Free: true})
			}
		}
	}
	t.giveBack(ctx)
}

// freesFirst reports whether a repeated request has not freed the level before. It is
// remembered as the Once of a rate that nobody is held to and no config can name.
func (t *Ticket) freesFirst(ctx context.Context, rule *quota.Applied, level quota.Key) bool {
	if rule.Once == (quota.Digest{}) {
		return true
	}
	mark := []quota.Charge{{
		Key:   quota.Key{Digest: level.Digest, Name: "free " + level.Name},
		Limit: quota.Limit{Max: quota.MaxAmount, Window: time.Second}, Cost: 1, Once: rule.Once,
	}}
	var d quota.Decision
	if err := t.gate.rt.engine.Reserve(context.WithoutCancel(ctx), mark, &d); err != nil {
		t.gate.rt.Stats.CounterFailures.Add(1)
		t.gate.rt.Stats.fault("counters", err)
		t.gate.log.Error("nobody knows whether a repeated request has freed before; it frees nothing", zap.Error(err))
		return false
	}
	return d.Outcomes[0].Charged > 0
}
