package quota

import "time"

// Outcome is what the counters say of one charge.
type Outcome struct {
	// Used is what is counted after the decision: with the cost if it was charged.
	Used int64
	// Charged is what was taken; 0 where the request was denied or the charge's Once was known.
	Charged int64
	// Exceeded reports that this charge did not fit. The request was denied for
	// it unless the charge is forced.
	Exceeded bool
	// Wait is how long until the charge would fit, for an exceeded rate;
	// negative: never (the cost is above the limit).
	Wait time.Duration
}

// Decision answers a reservation. Denied is the index of the charge that is
// reported, -1 if the request was admitted.
type Decision struct {
	Outcomes []Outcome // one for each charge, in order
	Denied   int
	// RetryAfter is the longest wait of all charges that deny; negative where
	// waiting does not help.
	RetryAfter time.Duration
}

// Admitted reports whether the request may pass.
func (d *Decision) Admitted() bool { return d.Denied < 0 }

// Reset empties d for n charges, keeping its memory.
func (d *Decision) Reset(n int) {
	if cap(d.Outcomes) < n {
		d.Outcomes = make([]Outcome, n)
	}
	d.Outcomes = d.Outcomes[:n]
	clear(d.Outcomes)
	d.Denied, d.RetryAfter = -1, 0
}

// Fits reports whether the charge fits beside what is used already.
func (c *Charge) Fits(used int64) bool {
	return c.Limit.Unlimited || used+max(c.Cost, c.Need) <= c.Limit.Max
}

// NeedsBase reports whether the charge cannot be decided without what the records
// know of its usage; take: it is to be taken, not only looked at.
func (c *Charge) NeedsBase(take bool) bool {
	return !c.AsKnown && (!take || (!c.Limit.Unlimited && !c.Force))
}

// Judge sets Denied and RetryAfter from the outcomes: a quota goes before a
// rate, among equals the one that lasts longest is reported.
func (d *Decision) Judge(cs []Charge, now time.Time) {
	d.Denied, d.RetryAfter = -1, 0
	for i := range cs {
		if !d.Outcomes[i].Exceeded || cs[i].Force {
			continue
		}
		wait := d.WaitFor(cs, i, now)
		if d.Denied < 0 || before(cs, d, i, d.Denied, now) {
			d.Denied = i
		}
		if d.RetryAfter >= 0 && (wait < 0 || wait > d.RetryAfter) {
			d.RetryAfter = wait
		}
	}
}

// WaitFor is how long until charge i, which is exceeded, would fit: for a
// quota until its period ends. Negative: never by waiting.
func (d *Decision) WaitFor(cs []Charge, i int, now time.Time) time.Duration {
	c := &cs[i]
	if c.Key.Space == SpaceRate {
		return d.Outcomes[i].Wait
	}
	if c.End == 0 || max(c.Cost, c.Need) > c.Limit.Max {
		return -1
	}
	return max(0, time.Unix(c.End, 0).Sub(now))
}

// before reports whether exceeded charge i is to be reported rather than j.
func before(cs []Charge, d *Decision, i, j int, now time.Time) bool {
	if a, b := cs[i].Key.Space, cs[j].Key.Space; a != b {
		return a == SpaceUsage
	}
	a, b := d.WaitFor(cs, i, now), d.WaitFor(cs, j, now)
	if a < 0 || b < 0 {
		return a < 0 && b >= 0
	}
	return a > b
}

// Receipt is one usage charge that was taken, with what it takes to give it back;
// or, with Free, what a level is to fall by.
type Receipt struct {
	Key     Key
	Account Subject
	End     int64
	Amount  int64
	Once    Digest
	// Free says that nothing was taken: a level falls, whoever raised it, and by no
	// more than is there. What was taken is given back whole, also where those who
	// are asked have not heard of it yet.
	Free bool
}

// AppendReceipts appends the receipts of the usage charges that the decision
// took. Rates have none: a rate window is never given back.
func AppendReceipts(dst []Receipt, cs []Charge, d *Decision) []Receipt {
	for i := range cs {
		if cs[i].Key.Space == SpaceUsage && d.Outcomes[i].Charged > 0 {
			dst = append(dst, cs[i].Receipt(d.Outcomes[i].Charged))
		}
	}
	return dst
}

// Receipt is the receipt for amount units of the charge.
func (c *Charge) Receipt(amount int64) Receipt {
	return Receipt{Key: c.Key, Account: c.Account, End: c.End, Amount: amount, Once: c.Once}
}
