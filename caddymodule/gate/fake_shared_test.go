package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// What a call of the shared counters comes to.
const (
	callsWork    = iota
	callsRefused // no connection
	callsHang    // no answer, and nothing was done
	callsRan     // no answer, and it was done all the same
	callsOdd     // an error of each call alone
)

const callTimeout = 50 * time.Millisecond

// fakeShared is a model of counters that several processes share and that keep
// epochs: what package gate asks of a server, without one.
type fakeShared struct {
	mu      sync.Mutex
	mode    int
	windows map[quota.Key]*quota.Window
	usage   map[quota.Key]*sharedUsage
	epochs  map[string]map[quota.Key]quota.Total
	gen     uint64
	begun   int
	lost    int // how often everything was lost
	calls   int
}

type sharedUsage struct {
	used int64
	warm bool
}

func newFakeShared() *fakeShared {
	return &fakeShared{
		windows: map[quota.Key]*quota.Window{}, usage: map[quota.Key]*sharedUsage{},
		epochs: map[string]map[quota.Key]quota.Total{},
	}
}

func (s *fakeShared) set(mode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
}

// lose empties it, as a restart without its data does.
func (s *fakeShared) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.windows)
	clear(s.usage)
	clear(s.epochs)
	s.lost++
	s.gen++
}

// counter is called with the lock held, as all below.
func (s *fakeShared) counter(k quota.Key) *sharedUsage {
	if s.usage[k] == nil {
		s.usage[k] = &sharedUsage{}
	}
	return s.usage[k]
}

// save is a copy of all, to be put back as a restart with older data does.
func (s *fakeShared) save() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	usage, epochs := map[quota.Key]sharedUsage{}, map[string]map[quota.Key]quota.Total{}
	for k, u := range s.usage {
		usage[k] = *u
	}
	for id, rows := range s.epochs {
		epochs[id] = maps.Clone(rows)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.usage)
		for k, u := range usage {
			s.usage[k] = &u
		}
		s.epochs = epochs
		s.gen++
	}
}

// held is what the epochs hold of a counter, or the records, where that is more.
func (s *fakeShared) held(k quota.Key, except []string, recorded []quota.Total) (sum int64) {
	for id, e := range s.epochs {
		t := e[k]
		if i := slices.Index(except, id); i >= 0 && recorded != nil {
			t.Spent, t.Refunded = max(t.Spent, recorded[i].Spent), max(t.Refunded, recorded[i].Refunded)
		}
		sum += t.Spent - t.Refunded
	}
	return sum
}

func (s *fakeShared) add(epoch string, k quota.Key, account quota.Subject, end, spent, refunded int64) quota.Total {
	if s.epochs[epoch] == nil {
		s.epochs[epoch] = map[quota.Key]quota.Total{}
		s.gen++
	}
	t := s.epochs[epoch][k]
	t.Account, t.Metric, t.Period, t.Start, t.End = account, k.Name, k.Period, k.Start, end
	t.Spent += spent
	t.Refunded += refunded
	s.epochs[epoch][k] = t
	u := s.counter(k)
	u.used = max(0, u.used+spent-refunded)
	return t
}

// fakeNode is one process's side of it.
type fakeNode struct {
	s      *fakeShared
	mu     sync.Mutex
	epoch  string
	totals map[string]map[quota.Key]*nodeTotal // known of each epoch, the largest seen
	order  []string                            // ended epochs
	lost   int
	// forgetting is how long Forget takes.
	forgetting time.Duration
	// Calls without an answer, at the next contact: what ran is undone, or done again
	// if it has not run.
	undo, again []func()
}

type nodeTotal struct {
	quota.Total
	dirty bool
}

func newFakeNode(s *fakeShared) *fakeNode {
	n := &fakeNode{s: s, totals: map[string]map[quota.Key]*nodeTotal{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.lost = s.lost
	n.begin()
	return n
}

func (n *fakeNode) begin() {
	n.s.begun++
	n.epoch = fmt.Sprintf("kept-%d", n.s.begun)
	n.totals[n.epoch] = map[quota.Key]*nodeTotal{}
}

func (n *fakeNode) end() {
	n.order = append(n.order, n.epoch)
	n.begin()
}

func (n *fakeNode) learn(epoch string, k quota.Key, t quota.Total) {
	known := n.totals[epoch]
	if known == nil {
		return // flushed whole, and forgotten
	}
	if known[k] == nil {
		known[k] = &nodeTotal{Total: t}
	}
	known[k].Spent, known[k].Refunded = max(known[k].Spent, t.Spent), max(known[k].Refunded, t.Refunded)
	known[k].dirty = true
}

// call does one call in the mode that is set. undo is how a call is settled that
// has run although nobody heard of it; again, one that has not.
func (n *fakeNode) call(do func() error, undo, again func()) error {
	mode, err := n.run(do, undo, again)
	switch mode {
	case callsRefused:
		return &CounterError{Kind: FaultUnreachable, NotRun: true, Err: errDown}
	case callsHang, callsRan:
		time.Sleep(callTimeout)
		return fmt.Errorf("calling: %w", &CounterError{Kind: FaultTimeout, Err: context.DeadlineExceeded})
	case callsOdd:
		return &CounterError{Kind: FaultOther, NotRun: true, Err: errDown}
	}
	return err
}

func (n *fakeNode) run(do func() error, undo, again func()) (mode int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.s.calls++
	switch n.s.mode {
	case callsWork:
		n.contact()
		err = do()
	case callsRan:
		if err = do(); err == nil && undo != nil {
			lost := n.s.lost
			n.undo = append(n.undo, func() {
				if lost == n.s.lost { // else what it took is gone by itself
					undo()
				}
			})
		}
	case callsHang:
		if again != nil {
			n.again = append(n.again, again)
		}
	}
	return n.s.mode, err
}

// contact settles what is not known of earlier calls. A server that has lost its
// data gets new epochs: totals that fall would hide what is counted from now on.
func (n *fakeNode) contact() {
	if n.lost != n.s.lost {
		n.lost = n.s.lost
		n.end()
	}
	for _, settle := range append(n.undo, n.again...) {
		settle()
	}
	n.undo, n.again = nil, nil
}

func (n *fakeNode) Probe(context.Context) error {
	return n.call(func() error { return nil }, nil, nil)
}

func (n *fakeNode) Reserve(ctx context.Context, cs []quota.Charge, d *quota.Decision) error {
	if err := ctx.Err(); err != nil {
		return &CounterError{Kind: FaultOther, NotRun: true, Err: err}
	}
	epoch, charged := "", []quota.Charge(nil)
	return n.call(func() error {
		epoch = n.epoch
		if err := n.judge(cs, d); err != nil {
			return err
		}
		for i := range cs {
			c, o := &cs[i], &d.Outcomes[i]
			if !d.Admitted() || c.Cost == 0 || (o.Exceeded && c.Key.Space == quota.SpaceRate) {
				continue
			}
			o.Charged, o.Used = c.Cost, o.Used+c.Cost
			if c.Key.Space == quota.SpaceRate {
				n.s.windows[c.Key].Add(time.Now().UnixMilli(), quota.BucketWidth(c.Limit.Window), c.Cost)
				continue
			}
			charged = append(charged, *c)
			t := n.s.add(epoch, c.Key, c.Account, c.End, c.Cost, 0)
			if n.s.mode == callsWork {
				n.learn(epoch, c.Key, t)
			}
		}
		return nil
	}, func() {
		for _, c := range charged {
			n.learn(epoch, c.Key, n.s.add(epoch, c.Key, c.Account, c.End, 0, c.Cost))
		}
	}, nil)
}

func (n *fakeNode) judge(cs []quota.Charge, d *quota.Decision) error {
	now := time.Now()
	d.Reset(len(cs))
	cold := &quota.ColdError{Generation: n.s.gen, Except: slices.Sorted(maps.Keys(n.s.epochs))}
	for i := range cs {
		c, o := &cs[i], &d.Outcomes[i]
		if c.Key.Space == quota.SpaceRate {
			if n.s.windows[c.Key] == nil {
				n.s.windows[c.Key] = new(quota.Window)
			}
			w, width := n.s.windows[c.Key], quota.BucketWidth(c.Limit.Window)
			o.Used = w.Sum(now.UnixMilli(), width)
			if o.Exceeded = !c.Fits(o.Used); o.Exceeded {
				o.Wait = w.Wait(now.UnixMilli(), width, c.Limit.Max, max(c.Cost, c.Need))
			}
			continue
		}
		u := n.s.counter(c.Key)
		if !u.warm && c.NeedsBase(true) {
			cold.Charges = append(cold.Charges, i)
			cold.Carry = append(cold.Carry, 0)
			continue
		}
		o.Used = u.used
		o.Exceeded = !c.Fits(o.Used)
	}
	if cold.Charges != nil {
		return cold
	}
	d.Judge(cs, now)
	return nil
}

func (n *fakeNode) Peek(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return n.call(func() error { return n.judge(cs, d) }, nil, nil)
}

func (n *fakeNode) Refund(_ context.Context, rs []quota.Receipt) error {
	do := func() {
		for _, r := range rs {
			n.learn(n.epoch, r.Key, n.s.add(n.epoch, r.Key, r.Account, r.End, 0, r.Amount))
		}
	}
	rs = slices.Clone(rs)
	return n.call(func() error { do(); return nil }, nil, do)
}

func (n *fakeNode) Fill(_ context.Context, bs []quota.Base) error {
	return n.call(func() error {
		for _, b := range bs {
			if u := n.s.counter(b.Key); b.Generation == n.s.gen && !u.warm {
				u.used, u.warm = max(0, b.Used+n.s.held(b.Key, slices.Sorted(maps.Keys(n.s.epochs)), b.Recorded)), true
			}
		}
		return nil
	}, nil, nil)
}

func (n *fakeNode) Forget(_ context.Context, account quota.Subject) error {
	time.Sleep(n.forgetting)
	return n.call(func() error {
		n.s.gen++
		for k, u := range n.s.usage {
			if account == quota.AllSubjects || k.Digest == account.Digest() {
				u.used, u.warm = 0, false
			}
		}
		return nil
	}, nil, nil)
}

func (n *fakeNode) Reset(_ context.Context, subject quota.Subject, _ []string) (emptied []string, err error) {
	err = n.call(func() error {
		for k := range n.s.windows {
			if k.Digest == subject.Digest() {
				emptied = append(emptied, k.Name)
				delete(n.s.windows, k)
			}
		}
		return nil
	}, nil, nil)
	return emptied, err
}

func (n *fakeNode) Totals() []quota.EpochTotals {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []quota.EpochTotals
	for _, id := range append(slices.Clone(n.order), n.epoch) {
		t := quota.EpochTotals{Epoch: id, Kept: true, Final: id != n.epoch}
		for _, row := range n.totals[id] {
			if row.dirty {
				t.Rows = append(t.Rows, row.Total)
			}
		}
		out = append(out, t)
	}
	return out
}

func (n *fakeNode) Flushed(t quota.EpochTotals) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.totals[t.Epoch]
	for i := range t.Rows {
		if row := known[t.Rows[i].Key()]; row != nil && row.Total == t.Rows[i] {
			row.dirty = false
		}
	}
	for _, row := range known {
		if row.dirty {
			return
		}
	}
	if t.Final {
		n.order = slices.DeleteFunc(n.order, func(id string) bool { return id == t.Epoch })
		delete(n.totals, t.Epoch)
	}
}

func (n *fakeNode) Rebase(closed string, rows []quota.Total) {
	if rows != nil {
		panic("a kept epoch is not rebased")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if closed == n.epoch {
		n.end()
	}
}

func (n *fakeNode) EpochTotals(_ context.Context, epoch string) (rows []quota.Total, err error) {
	err = n.call(func() error {
		rows = slices.Collect(maps.Values(n.s.epochs[epoch]))
		return nil
	}, nil, nil)
	return rows, err
}

func (n *fakeNode) KeepEpoch(_ context.Context, epoch string, rows []quota.Total) error {
	return n.call(func() error {
		if n.s.epochs[epoch] == nil {
			n.s.epochs[epoch] = map[quota.Key]quota.Total{}
		}
		for i := range rows {
			n.s.epochs[epoch][rows[i].Key()] = rows[i]
		}
		n.s.gen++
		return nil
	}, nil, nil)
}

func (n *fakeNode) Epochs(context.Context) (ids []string, err error) {
	err = n.call(func() error {
		ids = slices.Sorted(maps.Keys(n.s.epochs))
		return nil
	}, nil, nil)
	return ids, err
}

func (n *fakeNode) DropEpoch(_ context.Context, epoch string) error {
	return n.call(func() error {
		if n.s.epochs[epoch] != nil {
			delete(n.s.epochs, epoch)
			n.s.gen++
		}
		return nil
	}, nil, nil)
}

var (
	_ Engine      = (*fakeNode)(nil)
	_ Prober      = (*fakeNode)(nil)
	_ EpochKeeper = (*fakeNode)(nil)
	_ EpochLister = (*fakeNode)(nil)
)
