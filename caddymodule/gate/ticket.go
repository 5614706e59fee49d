package gate

import (
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Fate is what became of an admitted request.
type Fate uint8

// The fates of a request.
const (
	Unknown   Fate = iota // the client left, the answer broke off, a timeout: charges stay
	Answered              // the backend's answer was passed on
	Unreached             // the backend never saw the request: spends are given back
)

// Result is how a request ended.
type Result struct {
	Status    int // of the answer; 0 where none was sent
	Fate      Fate
	BodyBytes int64 // of the request, as read
}

// Ticket is an admitted request, or one that the counters denied. It is settled
// or discarded exactly once and must not be used afterwards.
type Ticket struct {
	gate     *Gate
	caller   Caller
	rules    []quota.Applied
	charges  []quota.Charge
	decision quota.Decision
	receipts []quota.Receipt
	began    time.Time
}

var tickets = sync.Pool{New: func() any { return new(Ticket) }}

func newTicket(g *Gate, c Caller, rules []quota.Applied) *Ticket {
	t := tickets.Get().(*Ticket)
	t.gate, t.caller, t.began = g, c, time.Now()
	t.rules = append(t.rules[:0], rules...)
	return t
}

func (t *Ticket) release() {
	t.reset()
	tickets.Put(t)
}

// reset empties the ticket: nothing pooled may keep a config alive, or tell the
// next request of this one.
func (t *Ticket) reset() {
	clear(t.rules)
	clear(t.charges)
	clear(t.receipts)
	*t = Ticket{
		rules: t.rules[:0], charges: t.charges[:0], receipts: t.receipts[:0],
		decision: quota.Decision{Outcomes: t.decision.Outcomes[:0]},
	}
}

// uncharge leaves a ticket of which nothing was counted.
func (t *Ticket) uncharge() {
	clear(t.charges)
	t.charges = t.charges[:0]
	t.decision.Reset(0)
}

// dropForced drops the usage charges that deny nothing, and reports whether there were any.
func (t *Ticket) dropForced() bool {
	n := len(t.charges)
	t.charges = slices.DeleteFunc(t.charges, func(c quota.Charge) bool { return c.Force && c.Key.Space == quota.SpaceUsage })
	return len(t.charges) < n
}

// deny is Admit's answer where no decision of the counters denies.
func (t *Ticket) deny(d *quota.Denial) *quota.Denial {
	t.uncharge()
	t.count(d.Code, d.Status)
	return d
}

// judged is Admit's answer by the decision.
func (t *Ticket) judged() (*Ticket, error) {
	if t.decision.Admitted() {
		return t, nil
	}
	d := quota.NewDenial(t.charges, &t.decision, t.caller.Entitlement, t.rules, t.began)
	t.noteThresholds(t.charges, &t.decision)
	t.count(d.Code, d.Status)
	return t, d
}

func (t *Ticket) quotaCaller() quota.Caller {
	return t.gate.quotaCaller(&t.caller, t.rules)
}

// quotaCaller is the caller as the rules see it: with its address where one of
// them counts by that.
func (g *Gate) quotaCaller(c *Caller, rules []quota.Applied) quota.Caller {
	q := quota.Caller{Principal: c.Principal, Entitlement: c.Entitlement, IP: c.IP}
	for i := range rules {
		if q.IP == "" && (c.Entitlement == nil || rules[i].ByAddress()) {
			q.IP = g.Address(&c.Identity)
		}
	}
	return q
}

// Charges are what was asked for; Decision is what the counters said.
func (t *Ticket) Charges() []quota.Charge { return t.charges }

// Decision is valid until the ticket is settled.
func (t *Ticket) Decision() *quota.Decision { return &t.decision }

// Rules are the rules that applied.
func (t *Ticket) Rules() []quota.Applied { return t.rules }

// Began is when the request was judged.
func (t *Ticket) Began() time.Time { return t.began }

// Discard ends a ticket that was denied.
func (t *Ticket) Discard() { t.release() }

// PlanName is the plan's name for labels: "anonymous" without a plan.
func (c *Caller) PlanName() string {
	if c.Entitlement == nil || c.Entitlement.Plan == nil {
		return "anonymous"
	}
	return c.Entitlement.Plan.Name
}
