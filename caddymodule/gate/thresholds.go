package gate

import "github.com/quotagate/quotagate/caddymodule/quota"

const (
	// knownThresholds bounds what one shard remembers. Beyond it everything is
	// forgotten and told once more: the records raise each threshold once.
	knownThresholds = 10_000
	// maxThresholds bounds what waits for records that are down.
	maxThresholds = 100_000
)

// thresholds are the quotas near or at whose end an account was seen, so that
// the records are told once and not at each request that follows.
type thresholds struct {
	known   map[quota.Threshold]struct{} // without what was used
	reached []quota.Threshold            // not yet collected
}

// note takes the threshold that was reached, and the one below it.
func (ts *thresholds) note(t quota.Threshold) {
	highest := t.Percent
	for _, t.Percent = range [...]int64{quota.ThresholdNear, quota.ThresholdReached} {
		if t.Percent > highest {
			return
		}
		key := t
		key.Used = 0
		if _, ok := ts.known[key]; ok || len(ts.reached) >= knownThresholds {
			continue // it is noted at a later request
		}
		if len(ts.known) >= knownThresholds {
			clear(ts.known)
		}
		ts.known[key] = struct{}{}
		ts.reached = append(ts.reached, t)
	}
}

// noteThresholds looks which quotas the charges have brought near their end. What
// is given back later leaves a threshold raised.
func (t *Ticket) noteThresholds(cs []quota.Charge, d *quota.Decision) {
	e := t.caller.Entitlement
	if e == nil {
		return
	}
	for i := range cs {
		c, o := &cs[i], &d.Outcomes[i]
		if c.Key.Space != quota.SpaceUsage || (o.Charged == 0 && !o.Exceeded) {
			continue
		}
		if percent := c.Limit.Threshold(o.Used); percent > 0 {
			t.gate.rt.recorder.reached(e.Digest(), quota.Threshold{
				Account: e.Account, Metric: c.Key.Name, Start: c.Key.Start, Percent: percent, Limit: c.Limit.Max, Used: o.Used,
			})
		}
	}
}

func (r *recorder) reached(d quota.Digest, t quota.Threshold) {
	s := r.shard(d)
	s.mu.Lock()
	s.near.note(t)
	s.mu.Unlock()
}

// collectThresholds takes what the requests have left in the shards, r.mu being held.
func (r *recorder) collectThresholds() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		if len(r.thresholds) < maxThresholds {
			r.thresholds = append(r.thresholds, s.near.reached...)
			s.near.reached = nil
		}
		s.mu.Unlock()
	}
}
