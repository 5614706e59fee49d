package memcounters

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Reserve takes all charges or none. What it takes is in the log when it
// returns. It answers a *quota.ColdError, and takes nothing, if the usage of a
// limited charge is not known; a charge outside the bounds of package quota is
// an error.
func (e *Engine) Reserve(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide(cs, d, true)
}

// Peek is Reserve without taking anything. It asks for the base of every usage
// charge, the unlimited too: its caller wants to know what is used.
func (e *Engine) Peek(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide(cs, d, false)
}

func (e *Engine) decide(cs []quota.Charge, d *quota.Decision, take bool) error {
	set, err := check(cs)
	if err != nil {
		return fmt.Errorf("reserving: %w", err)
	}
	d.Reset(len(cs))
	if set == 0 {
		return nil
	}
	e.lockSet(set)
	defer e.unlockSet(set)
	if e.closed {
		return ErrClosed
	}
	now := e.now()
	// The room of a locked shard is this call's own.
	refs := e.shard(cs[0].Key.Digest).borrow(len(cs))
	if err := e.look(cs, d, refs, now.UnixMilli(), take); err != nil {
		return err
	}
	d.Judge(cs, now)
	if !d.Admitted() {
		return nil
	}
	if !take {
		foresee(cs, d, refs)
		return nil
	}
	e.beginFrames(set)
	for i := range cs {
		if cs[i].Key.Space == quota.SpaceRate {
			e.takeRate(&cs[i], &d.Outcomes[i], &refs[i], now.UnixMilli())
		} else {
			e.takeUsage(&cs[i], &d.Outcomes[i], &refs[i], now.UnixMilli())
		}
	}
	e.commitFrames(set)
	return nil
}

// check refuses charges that could not be counted exactly, before anything is
// touched, and tells the set of their shards.
func check(cs []quota.Charge) (set uint64, err error) {
	if err := quota.CheckCharges(cs); err != nil {
		return 0, err
	}
	for i := range cs {
		set |= 1 << shardIndex(cs[i].Key.Digest)
	}
	return set, nil
}

// look finds the counters of the charges and writes what each would come to.
func (e *Engine) look(cs []quota.Charge, d *quota.Decision, refs []ref, now int64, take bool) error {
	var cold []int
	for i := range cs {
		c, r, o := &cs[i], &refs[i], &d.Outcomes[i]
		s := e.shard(c.Key.Digest)
		r.free = s.onceKnown(onceKey{c.Key, c.Once}, now)
		var err error
		if c.Key.Space == quota.SpaceRate {
			err = s.lookRate(c, o, r, now, take)
		} else {
			r.usage = s.usage[c.Key]
			if c.NeedsBase(take) && (r.usage == nil || !r.usage.warm) {
				cold = append(cold, i)
				continue
			}
			err = lookUsage(c, o, r)
		}
		if err != nil {
			return fmt.Errorf("charge %d (%q): %w", i, c.Key.Name, err)
		}
	}
	if cold != nil {
		return e.coldError(cold, func(i int) quota.Key { return cs[i].Key })
	}
	return nil
}

func (s *shard) lookRate(c *quota.Charge, o *quota.Outcome, r *ref, now int64, take bool) error {
	width := quota.BucketWidth(c.Limit.Window)
	var local quota.Window
	w := &local
	r.window = s.windows[windowKey{c.Key.Digest, c.Key.Name}]
	if r.window != nil {
		// What is counted in a longer window moves to the shorter one's buckets, once
		// and for good. The other way it moves only when something is taken: else a
		// client that is denied would keep a window full by asking.
		if take && width <= r.window.Width() {
			w = &r.window.Window
		} else {
			local = r.window.Window
		}
	}
	o.Used = w.Sum(now, width)
	if o.Used+c.Cost > quota.MaxAmount {
		return quota.ErrOverflow
	}
	if r.free || c.Fits(o.Used) {
		return nil
	}
	o.Exceeded = true
	if r.window != nil && r.window.Width() > 0 && r.window.Width() < width { // it stays in its own buckets
		local, width = r.window.Window, r.window.Width()
	}
	o.Wait = w.Wait(now, width, c.Limit.Max, max(c.Cost, c.Need))
	return nil
}

func lookUsage(c *quota.Charge, o *quota.Outcome, r *ref) error {
	if u := r.usage; u != nil {
		o.Used = u.known()
		if u.spent+c.Cost > quota.MaxAmount || o.Used+c.Cost > quota.MaxAmount {
			return quota.ErrOverflow
		}
	}
	o.Exceeded = !r.free && !c.Fits(o.Used)
	return nil
}

// charged is what an admitted request takes for the charge.
func charged(c *quota.Charge, o *quota.Outcome, r *ref) int64 {
	if r.free || (o.Exceeded && c.Key.Space == quota.SpaceRate) {
		return 0
	}
	return c.Cost
}

// foresee writes the outcomes as if the charges had been taken.
func foresee(cs []quota.Charge, d *quota.Decision, refs []ref) {
	for i := range cs {
		o := &d.Outcomes[i]
		o.Charged = charged(&cs[i], o, &refs[i])
		o.Used += o.Charged
	}
}

func (e *Engine) takeRate(c *quota.Charge, o *quota.Outcome, r *ref, now int64) {
	cost := charged(c, o, r)
	if cost == 0 {
		return
	}
	s := e.shard(c.Key.Digest)
	k := windowKey{c.Key.Digest, c.Key.Name}
	if r.window == nil {
		r.window = new(window)
		s.windows[k] = r.window
	}
	width := quota.BucketWidth(c.Limit.Window)
	r.window.Add(now, width, cost)
	o.Charged = cost
	o.Used += cost
	s.logRate(k, r.window, now, width, cost)
	s.remember(c, now)
}

func (e *Engine) takeUsage(c *quota.Charge, o *quota.Outcome, r *ref, now int64) {
	cost := charged(c, o, r)
	if cost == 0 {
		return
	}
	s := e.shard(c.Key.Digest)
	u := r.usage
	if u == nil {
		u = s.counter(c.Key, c.Account, c.End)
	} else {
		u.touch(c.Account, c.End)
	}
	u.spent += cost
	if u.warm {
		u.used += cost
	}
	s.markDirty(u)
	o.Charged = cost
	o.Used += cost
	s.logUsage(u)
	s.remember(c, now)
}

// remember keeps the charge's Once. A charge of nothing is not remembered: the
// amount of response_seconds comes later, under the same Once.
func (s *shard) remember(c *quota.Charge, now int64) {
	if c.Once == (quota.Digest{}) {
		return
	}
	k := onceKey{c.Key, c.Once}
	s.once[k] = now
	s.log.frame = appendOnce(s.log.frame, k, now)
}
