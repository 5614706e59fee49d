package rediscounters

import (
	"errors"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// inParts decides charges that are in several slots: each is asked in file
// order, and if one refuses, what the earlier have taken is given back. Another
// caller may be refused by that meanwhile, never admitted.
func (r *run) inParts(cs []quota.Charge, d *quota.Decision, parts [][]int32) (time.Time, error) {
	r.parted = true
	op := r.op
	var now time.Time
	var taken []quota.Charge
	for _, part := range parts {
		a, err := r.ask(op, cs, part, d.Outcomes)
		if err != nil {
			r.giveBack(taken)
			return now, err
		}
		now = a.now
		if op != opTake {
			continue
		}
		if a.says == saysDenied {
			op = opLook // the rest says what it would: a quota is reported before a rate
			r.giveBack(taken)
			taken = nil
			continue
		}
		taken = r.taken(taken, cs, part, d, a.newest)
	}
	if r.op == opTake && op == opLook {
		for i := range d.Outcomes { // nothing was taken in the end
			o := &d.Outcomes[i]
			o.Used -= o.Charged
			o.Charged = 0
		}
	}
	return now, nil
}

// taken appends what gives back the charges of a part.
func (r *run) taken(to, cs []quota.Charge, part []int32, d *quota.Decision, newest []int64) []quota.Charge {
	for _, i := range r.plan.order[:r.plan.rows] {
		if n := d.Outcomes[i].Charged; n > 0 {
			c := cs[i]
			c.Cost, c.Need, c.Limit = n, 0, quota.Limit{Unlimited: true}
			to = append(to, c)
		}
	}
	for n, i := range r.plan.order[r.plan.rows:] {
		if charged := d.Outcomes[i].Charged; charged > 0 {
			c := cs[i]
			c.Cost, c.Need, c.Key.Start = charged, 0, newest[n]
			to = append(to, c)
		}
	}
	return to
}

// giveBack gives what earlier parts have taken. What cannot be given now is given
// as soon as it can be.
func (r *run) giveBack(taken []quota.Charge) {
	for len(taken) > 0 {
		n := 1
		for n < len(taken) && bucketOf(taken[n].Key.Digest) == bucketOf(taken[0].Key.Digest) {
			n++
		}
		r.e.giveSurely(taken[:n])
		taken = taken[n:]
	}
}

// giveParts gives receipts of several slots back. Once a part is given the rest
// is owed: what fails then is given as soon as it can be.
func (r *run) giveParts(cs []quota.Charge, parts [][]int32) error {
	outcomes := make([]quota.Outcome, len(cs))
	for n, part := range parts {
		_, err := r.ask(opGive, cs, part, outcomes)
		if err != nil && n == 0 {
			return err
		}
		if err != nil && certainlyNot(err) {
			r.e.owe(pick(cs, part))
		}
	}
	return nil
}

func pick(cs []quota.Charge, part []int32) []quota.Charge {
	picked := make([]quota.Charge, len(part))
	for n, i := range part {
		picked[n] = cs[i]
	}
	return picked
}

// giveSurely gives back what was taken in one slot.
func (e *Engine) giveSurely(cs []quota.Charge) {
	if err := e.give(cs); err != nil && certainlyNot(err) {
		e.owe(cs)
	}
}

// certainlyNot reports that a giving back had no effect and will have none: what
// may have run is in doubt, and is settled as such.
func certainlyNot(err error) bool {
	var fault *gate.CounterError
	return !errors.As(err, &fault) || fault.NotRun
}

// owe keeps usage that is to be given back. A rate window stays as it is: that is
// on the side of the limit.
func (e *Engine) owe(cs []quota.Charge) {
	d := &doubt{ep: e.enter(), op: opRecall}
	for i := range cs {
		if cs[i].Key.Space == quota.SpaceUsage {
			d.rows = append(d.rows, cs[i])
		}
	}
	if len(d.rows) == 0 {
		d.ep.busy.Add(-1)
		return
	}
	e.doubtful(d)
}
