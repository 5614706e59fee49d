package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// Reserve takes all charges or none, in one round trip; on a Cluster in one for
// each slot. It answers a *quota.ColdError, and takes nothing, if the usage of a
// limited charge is not known, and a *gate.CounterError if Redis could not be
// asked: what the call may have taken all the same is given back as soon as it can be.
func (e *Engine) Reserve(ctx context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide(ctx, cs, d, opTake)
}

// Peek is Reserve without taking anything. It asks for the base of every usage
// charge, the unlimited too: its caller wants to know what is used.
func (e *Engine) Peek(ctx context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide(ctx, cs, d, opPeek)
}

// maxEpochs bounds the epochs that one call may begin: more than one only where
// Redis loses its data again and again.
const maxEpochs = 4

func (e *Engine) decide(ctx context.Context, cs []quota.Charge, d *quota.Decision, op opcode) error {
	if err := quota.CheckCharges(cs); err != nil {
		return fmt.Errorf("reserving: %w", err)
	}
	d.Reset(len(cs))
	if len(cs) == 0 {
		return nil
	}
	if err := e.ready(ctx); err != nil {
		return err
	}
	if op == opTake && e.denials.answer(cs, d) {
		return nil
	}
	sent, drops := time.Now(), e.denials.drops.Load()
	for range maxEpochs {
		now, err := e.decideIn(e.enter(), cs, d, op)
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil {
			return err
		}
		d.Judge(cs, now)
		if op == opTake && !d.Admitted() {
			e.denials.remember(cs, d, sent, drops)
		}
		return nil
	}
	return &gate.CounterError{Kind: gate.FaultOther, NotRun: true, Err: errLost}
}

// ready refuses calls after Close, and for callers that have left.
func (e *Engine) ready(ctx context.Context) error {
	if e.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return &gate.CounterError{Kind: gate.FaultOther, NotRun: true, Err: err}
	}
	return nil
}

// errLost says that Redis does not know an epoch any more.
var errLost = errors.New("redis has lost its data")

// decideIn asks within one epoch, which it leaves.
func (e *Engine) decideIn(ep *epoch, cs []quota.Charge, d *quota.Decision, op opcode) (time.Time, error) {
	r := newRun(e, ep, op)
	defer r.finish()
	if parts := e.servers.parts(cs); parts != nil {
		return r.inParts(cs, d, parts)
	}
	a, err := r.ask(op, cs, r.all(len(cs)), d.Outcomes)
	return a.now, err
}

// all are the indices of n charges.
func (r *run) all(n int) []int32 {
	all := r.whole[:0]
	for i := range n {
		all = append(all, int32(i))
	}
	return all
}

// maxInline is how many charges have their place in a run.
const maxInline = 16

// opcode is what a script is to do with the charges that it is given.
type opcode int64

// The opcodes, as in lua/count.lua.
const (
	opPeek   opcode = 0
	opTake   opcode = 1
	opGive   opcode = 2
	opLook   opcode = 3
	opUndo   opcode = 4 // settle a take
	opRecall opcode = 5 // settle a giving back
)

// The outcomes of lua/count.lua.
const (
	saysDenied   = 0
	saysDone     = 1
	saysCold     = 2
	saysLost     = 3
	saysSettled  = 4
	saysOverflow = 5
	saysWhole    = 6
)

// answer is what a script says of one part of the charges.
type answer struct {
	says int64
	now  time.Time
	// newest are the indices of the newest sub-buckets of the part's rates, in
	// order; only for parts.
	newest []int64
}

// read takes the script's answer apart. A says of saysWhole becomes saysDone.
func (r *run) read(p *plan, op opcode, cs []quota.Charge, outcomes []quota.Outcome) (answer, error) {
	in, err := openReply(r.call.out.b)
	if err != nil {
		return answer{}, err
	}
	var a answer
	if a.says, err = in.int(); err != nil {
		return a, err
	}
	ms, err := in.int()
	if err != nil {
		return a, err
	}
	a.now = time.UnixMilli(ms)
	switch a.says {
	case saysWhole:
		a.says = saysDone
		a.newest, err = r.readUsed(&in, p, cs, a.now, outcomes)
		return a, err
	case saysDenied, saysDone:
		a.newest, err = r.readOutcomes(&in, p, outcomes)
		return a, err
	case saysCold:
		return a, r.readCold(&in, p)
	case saysLost:
		r.e.lost(r.ep)
		return a, errLost
	case saysOverflow:
		return a, quota.ErrOverflow
	}
	return a, &gate.CounterError{Kind: gate.FaultOther, NotRun: true, Err: fmt.Errorf("a script answers %d to operation %d", a.says, op)}
}

func (r *run) readTokens(in *reply, p *plan) error {
	for i := range p.groups {
		token, err := in.int()
		if err != nil {
			return err
		}
		r.e.knows(r.ep, bucketOf(p.groups[i].digest), token)
	}
	return nil
}

// readUsed reads what is used of each charge, all of which were taken as asked for.
func (r *run) readUsed(in *reply, p *plan, cs []quota.Charge, now time.Time, outcomes []quota.Outcome) (newest []int64, err error) {
	if err := r.readTokens(in, p); err != nil {
		return nil, err
	}
	for n, i := range p.order {
		used, err := in.int()
		if err != nil {
			return nil, err
		}
		outcomes[i] = quota.Outcome{Used: used, Charged: cs[i].Cost}
		if r.parted && n >= p.rows {
			newest = append(newest, now.UnixMilli()/quota.BucketWidth(cs[i].Limit.Window))
		}
	}
	return newest, nil
}

func (r *run) readOutcomes(in *reply, p *plan, outcomes []quota.Outcome) (newest []int64, err error) {
	if err := r.readTokens(in, p); err != nil {
		return nil, err
	}
	for n, i := range p.order {
		var v [5]int64
		for k := range v {
			if v[k], err = in.int(); err != nil {
				return nil, err
			}
		}
		outcomes[i] = quota.Outcome{Used: v[0], Charged: v[1], Exceeded: v[2] == 1, Wait: time.Duration(v[3]) * time.Millisecond}
		if v[3] < 0 {
			outcomes[i].Wait = -1
		}
		if r.parted && n >= p.rows {
			newest = append(newest, v[4])
		}
	}
	return newest, nil
}

// readCold makes the error that asks for the records' part of cold counters.
func (r *run) readCold(in *reply, p *plan) error {
	var v [3]int64
	for k := range v {
		var err error
		if v[k], err = in.int(); err != nil {
			return err
		}
	}
	group, generation, n := int(v[0])-1, uint64(v[1]), int(v[2])
	if group < 0 || group >= len(p.groups) {
		return fmt.Errorf("a script names group %d of %d", group+1, len(p.groups))
	}
	cold := &quota.ColdError{Generation: generation}
	for range n {
		row, err := in.int()
		if err != nil {
			return err
		}
		cold.Charges = append(cold.Charges, int(p.order[p.groups[group].first+int(row)-1]))
		// What the epochs hold is added when the counter is filled, as it is then.
		cold.Carry = append(cold.Carry, 0)
	}
	for in.n > 0 {
		epoch, err := in.string()
		if err != nil {
			return err
		}
		cold.Except = append(cold.Except, epoch)
	}
	r.e.registries[bucketOf(p.groups[group].digest)].set(generation, cold.Except)
	return cold
}

// knows notes which hash of the epoch a bucket has.
func (e *Engine) knows(ep *epoch, bucket int, token int64) {
	if token == 0 || ep.tokens[bucket].Load() == token {
		return
	}
	if !ep.tokens[bucket].CompareAndSwap(0, token) && ep.tokens[bucket].Load() != token {
		e.lost(ep) // two calls at once met two hashes: there was a loss between them
	}
}

// lost ends an epoch of which Redis has lost a part: the records get its totals
// from this process, and what comes now is counted in another.
func (e *Engine) lost(ep *epoch) {
	if e.begin(ep) {
		ep.lossy.Store(true)
		e.health.losses.Add(1)
		e.log.Warn("redis has lost counters; their usage is in this process and in the records, and counting goes on",
			zap.String("epoch", ep.id))
	}
}
