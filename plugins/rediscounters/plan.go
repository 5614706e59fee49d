package rediscounters

import (
	"strconv"
	"sync"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// plan is how the charges of a call are laid out for the script: usage in groups
// by account, then rates.
type plan struct {
	groups []group
	order  []int32 // of the charges, in the order of the rows and rates
	rows   int     // how many of order are usage
}

// group is the usage of one account.
type group struct {
	digest      quota.Digest
	first, rows int // of plan.order
}

func (p *plan) lay(cs []quota.Charge, part []int32) {
	p.groups, p.order = p.groups[:0], p.order[:0]
	for n, i := range part {
		if cs[i].Key.Space != quota.SpaceUsage || p.has(cs[i].Key.Digest) {
			continue
		}
		g := group{digest: cs[i].Key.Digest, first: len(p.order)}
		for _, j := range part[n:] {
			if cs[j].Key.Space == quota.SpaceUsage && cs[j].Key.Digest == g.digest {
				p.order = append(p.order, j)
			}
		}
		g.rows = len(p.order) - g.first
		p.groups = append(p.groups, g)
	}
	p.rows = len(p.order)
	for _, i := range part {
		if cs[i].Key.Space == quota.SpaceRate {
			p.order = append(p.order, i)
		}
	}
}

func (p *plan) has(d quota.Digest) bool {
	for i := range p.groups {
		if p.groups[i].digest == d {
			return true
		}
	}
	return false
}

// run is one call of the engine, borrowed from a pool.
type run struct {
	e      *Engine
	ep     *epoch
	op     opcode
	call   *call
	plan   plan
	parted bool
	whole  [maxInline]int32 // room for the indices of all charges
	// pending: a call of this run is unsettled, which keeps the epoch.
	pending bool
}

var runs = sync.Pool{New: func() any { return new(run) }}

// newRun begins a call in an epoch that was entered.
func newRun(e *Engine, ep *epoch, op opcode) *run {
	r := runs.Get().(*run)
	r.e, r.ep, r.op, r.parted, r.pending = e, ep, op, false, false
	return r
}

func (r *run) finish() {
	if !r.pending {
		r.ep.busy.Add(-1)
	}
	r.e, r.ep, r.call = nil, nil, nil
	runs.Put(r)
}

// ask runs the script over a part of the charges and writes what becomes of
// them. What was taken or given back is counted in the epoch.
func (r *run) ask(op opcode, cs []quota.Charge, part []int32, outcomes []quota.Outcome) (answer, error) {
	p := &r.plan
	p.lay(cs, part)
	var ln *lane
	var seq int64
	if op == opTake || op == opGive {
		for _, i := range p.order[:p.rows] {
			if cs[i].Cost > 0 {
				ln, seq = r.e.lanes.borrow(), r.e.seq.Add(1)
				break
			}
		}
	}
	r.call = newCall(r.e.scripts.count)
	r.pack(op, ln, seq, cs)
	kept, err := r.e.runIn(bucketOf(cs[part[0]].Key.Digest), r.call)
	if err != nil {
		r.failed(op, cs, p.order[:p.rows], ln, seq, err)
		if kept {
			r.call.release()
		}
		return answer{}, err
	}
	a, err := r.read(p, op, cs, outcomes)
	if err == nil && a.says == saysDone && (op == opTake || op == opGive) {
		for _, i := range p.order[:p.rows] {
			c := &cs[i]
			if op == opTake {
				r.ep.add(&c.Key, c.Account, c.End, outcomes[i].Charged, 0)
			} else {
				r.ep.add(&c.Key, c.Account, c.End, 0, outcomes[i].Charged)
			}
		}
	}
	if ln != nil {
		r.e.lanes.release(ln)
	}
	r.call.release()
	return a, err
}

// failed keeps what may have run, to be settled; anything else gives its lane back.
func (r *run) failed(op opcode, cs []quota.Charge, rows []int32, ln *lane, seq int64, err error) {
	if ln == nil {
		return
	}
	if f, ok := err.(*gate.CounterError); ok && f.NotRun { //nolint:errorlint // runIn answers no other
		r.e.lanes.release(ln)
		return
	}
	r.pending = true
	u := &doubt{ep: r.ep, lane: ln, seq: seq, op: opUndo}
	if op == opGive {
		u.op = opRecall
	}
	for _, i := range rows {
		u.rows = append(u.rows, cs[i])
	}
	r.e.doubtful(u)
}

// pack writes the script's argument.
func (r *run) pack(op opcode, ln *lane, seq int64, cs []quota.Charge) {
	c, p := r.call, &r.plan
	c.int(int64(op))
	c.string(r.ep.id)
	if ln == nil {
		c.string("#0")
		c.int(1 << 52) // no call has a larger number
		c.string("")
	} else {
		var b [20]byte
		c.string(ln.name)
		c.int(seq)
		c.bytes(strconv.AppendInt(b[:0], seq, 10))
	}
	c.int(int64(len(p.groups)))
	for i := range p.groups {
		r.packGroup(op, &p.groups[i], cs)
	}
	c.int(int64(len(p.order) - p.rows))
	for _, i := range p.order[p.rows:] {
		ch := &cs[i]
		c.int(int64(c.addKey(r.e.prefix, kindRates, ch.Key.Digest, ch.Key.Digest)))
		r.packAmounts(ch)
		c.mode(ch)
		c.string(ch.Key.Name)
		c.int(quota.BucketWidth(ch.Limit.Window))
		c.int(ch.Key.Start) // of a rate that is given back: the sub-bucket
	}
}

func (r *run) packGroup(op opcode, g *group, cs []quota.Charge) {
	c, order := r.call, r.plan.order[g.first:g.first+g.rows]
	c.int(int64(c.addEpochKey(r.e.prefix, bucketOf(g.digest), r.ep.id)))
	c.int(int64(c.addMetaKey(r.e.prefix, bucketOf(g.digest))))
	c.int(int64(c.addKey(r.e.prefix, kindUsage, g.digest, g.digest)))
	c.int(r.ep.tokens[bucketOf(g.digest)].Load())
	c.bytes(g.digest[:])
	c.string(string(cs[order[0]].Account))
	c.int(int64(g.rows))
	for _, i := range order {
		ch := &cs[i]
		r.packAmounts(ch)
		c.mode(ch)
		c.field(&ch.Key)
		c.int(ch.End)
		spent, refunded := r.ep.known(&ch.Key)
		c.int(spent)
		c.int(refunded)
	}
}

// mode writes how the charge is judged: 1 it never denies, 2 by what the counters
// know, without the records; 3 both.
func (p *packer) mode(ch *quota.Charge) {
	m := int64(0)
	if ch.Force {
		m++
	}
	if ch.AsKnown {
		m += 2
	}
	p.int(m)
}

// packAmounts writes the Once and what is asked for. An unlimited charge has -1
// as its limit; so has what is given back, but 0 what is freed.
func (r *run) packAmounts(ch *quota.Charge) {
	c := r.call
	if ch.Once == (quota.Digest{}) {
		c.int(0)
	} else {
		c.int(int64(c.addKey(r.e.prefix, kindOnce, ch.Key.Digest, onceDigest(&ch.Key, ch.Once))))
	}
	c.int(ch.Cost)
	c.int(max(ch.Cost, ch.Need))
	if ch.Limit.Unlimited {
		c.int(-1)
	} else {
		c.int(ch.Limit.Max)
	}
}
