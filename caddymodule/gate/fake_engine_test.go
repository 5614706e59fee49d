package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

var errDown = errors.New("down")

// fakeEngine is a small model of counters: one lock, maps, epochs and
// generations as package quota describes them.
type fakeEngine struct {
	mu       sync.Mutex
	windows  map[quota.Key]*quota.Window
	usage    map[quota.Key]*fakeUsage
	once     map[fakeOnce]time.Time
	retired  map[string]map[quota.Key]quota.Total
	order    []string // of retired
	epoch    string
	epochs   int
	gen      uint64
	minGen   uint64
	reserves int

	fail     func(call string) error // may be nil
	onRefill func()                  // called, without the lock, after a ColdError was made
}

type fakeUsage struct {
	used  int64
	warm  bool
	total quota.Total // of the current epoch
}

type fakeOnce struct {
	key  quota.Key
	once quota.Digest
}

func newFakeEngine() *fakeEngine {
	e := &fakeEngine{
		windows: map[quota.Key]*quota.Window{}, usage: map[quota.Key]*fakeUsage{},
		once: map[fakeOnce]time.Time{}, retired: map[string]map[quota.Key]quota.Total{},
	}
	e.begin()
	return e
}

func (e *fakeEngine) begin() {
	e.epochs++
	e.epoch = fmt.Sprintf("epoch-%d", e.epochs)
}

func (e *fakeEngine) failing(call string) error {
	if e.fail == nil {
		return nil
	}
	return e.fail(call)
}

func (e *fakeEngine) Reserve(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide("reserve", cs, d, true)
}

func (e *fakeEngine) Peek(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return e.decide("peek", cs, d, false)
}

func (e *fakeEngine) decide(call string, cs []quota.Charge, d *quota.Decision, take bool) error {
	err := e.locked(func() error {
		e.reserves++
		if err := e.failing(call); err != nil {
			return err
		}
		return e.judge(cs, d, take)
	})
	if cold := (*quota.ColdError)(nil); errors.As(err, &cold) && e.onRefill != nil {
		e.onRefill()
	}
	return err
}

func (e *fakeEngine) locked(f func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return f()
}

func (e *fakeEngine) judge(cs []quota.Charge, d *quota.Decision, take bool) error {
	now := time.Now()
	d.Reset(len(cs))
	var cold []int
	for i := range cs {
		c, o := &cs[i], &d.Outcomes[i]
		if c.Cost < 0 || c.Need < 0 || (c.Key.Space == quota.SpaceUsage && c.Account == "") {
			return fmt.Errorf("charge %d is malformed: %+v", i, *c)
		}
		if c.Key.Space == quota.SpaceRate {
			w, width := e.window(c.Key), quota.BucketWidth(c.Limit.Window)
			o.Used = w.Sum(now.UnixMilli(), width)
			if o.Exceeded = !e.known(c, now) && !c.Fits(o.Used); o.Exceeded {
				o.Wait = w.Wait(now.UnixMilli(), width, c.Limit.Max, max(c.Cost, c.Need))
			}
			continue
		}
		u := e.counter(c.Key)
		if !u.warm && c.NeedsBase(take) {
			cold = append(cold, i)
		}
		o.Used = u.used
		o.Exceeded = !e.known(c, now) && !c.Fits(o.Used)
	}
	if cold != nil {
		return e.cold(cold, func(i int) quota.Key { return cs[i].Key })
	}
	d.Judge(cs, now)
	for i := range cs {
		if d.Admitted() {
			e.take(&cs[i], &d.Outcomes[i], now, take)
		}
	}
	return nil
}

func (e *fakeEngine) take(c *quota.Charge, o *quota.Outcome, now time.Time, take bool) {
	if c.Cost == 0 || e.known(c, now) || (o.Exceeded && c.Key.Space == quota.SpaceRate) {
		return
	}
	o.Charged, o.Used = c.Cost, o.Used+c.Cost
	if !take {
		return
	}
	if c.Once != (quota.Digest{}) {
		e.once[fakeOnce{c.Key, c.Once}] = now
	}
	if c.Key.Space == quota.SpaceRate {
		e.window(c.Key).Add(now.UnixMilli(), quota.BucketWidth(c.Limit.Window), c.Cost)
		return
	}
	u := e.counter(c.Key)
	u.used += c.Cost
	u.total.Account, u.total.End = c.Account, c.End
	u.total.Spent += c.Cost
}

func (e *fakeEngine) known(c *quota.Charge, now time.Time) bool {
	at, ok := e.once[fakeOnce{c.Key, c.Once}]
	return ok && c.Once != (quota.Digest{}) && now.Sub(at) < quota.OnceTTL
}

func (e *fakeEngine) window(k quota.Key) *quota.Window {
	if e.windows[k] == nil {
		e.windows[k] = new(quota.Window)
	}
	return e.windows[k]
}

func (e *fakeEngine) counter(k quota.Key) *fakeUsage {
	if e.usage[k] == nil {
		e.usage[k] = &fakeUsage{total: quota.Total{Metric: k.Name, Period: k.Period, Start: k.Start}}
	}
	return e.usage[k]
}

// cold is called with the lock held.
func (e *fakeEngine) cold(indices []int, key func(int) quota.Key) error {
	c := &quota.ColdError{
		Charges: indices, Except: append(slices.Clone(e.order), e.epoch),
		Carry: make([]int64, len(indices)), Generation: e.gen,
	}
	for n, i := range indices {
		for _, rows := range e.retired {
			c.Carry[n] += rows[key(i)].Spent - rows[key(i)].Refunded
		}
	}
	return c
}

func (e *fakeEngine) Refund(_ context.Context, rs []quota.Receipt) error {
	return e.locked(func() error {
		if err := e.failing("refund"); err != nil {
			return err
		}
		var cold []int
		for i := range rs {
			if rs[i].Account == "" || rs[i].Amount <= 0 {
				return fmt.Errorf("receipt %d is malformed: %+v", i, rs[i])
			}
			if rs[i].Free && !e.counter(rs[i].Key).warm {
				cold = append(cold, i)
			}
		}
		if cold != nil {
			return e.cold(cold, func(i int) quota.Key { return rs[i].Key })
		}
		for _, r := range rs {
			delete(e.once, fakeOnce{r.Key, r.Once})
			u := e.counter(r.Key)
			amount := r.Amount
			if r.Free {
				amount = min(amount, u.used)
			}
			u.used = max(0, u.used-amount)
			u.total.Account, u.total.End = r.Account, r.End
			u.total.Refunded += amount
		}
		return nil
	})
}

func (e *fakeEngine) Fill(_ context.Context, bs []quota.Base) error {
	return e.locked(func() error {
		if err := e.failing("fill"); err != nil {
			return err
		}
		for _, b := range bs {
			if u := e.counter(b.Key); b.Generation >= e.minGen && !u.warm {
				u.used, u.warm = max(0, b.Used+u.total.Spent-u.total.Refunded), true
			}
		}
		return nil
	})
}

func (e *fakeEngine) Forget(_ context.Context, account quota.Subject) error {
	return e.locked(func() error {
		e.gen++
		e.minGen = e.gen
		for k, u := range e.usage {
			if account == quota.AllSubjects || k.Digest == account.Digest() {
				u.warm, u.used = false, 0
			}
		}
		return nil
	})
}

func (e *fakeEngine) Reset(context.Context, quota.Subject, []string) ([]string, error) {
	return nil, errors.New("the gate resets nothing")
}

// rotate ends the epoch, as a night does.
func (e *fakeEngine) rotate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	rows := map[quota.Key]quota.Total{}
	for k, u := range e.usage {
		if u.total.Spent != 0 || u.total.Refunded != 0 {
			rows[k] = u.total
		}
		u.total.Spent, u.total.Refunded = 0, 0
	}
	e.retired[e.epoch] = rows
	e.order = append(e.order, e.epoch)
	e.begin()
	e.gen++
	e.minGen = e.gen
}

func (e *fakeEngine) Totals() []quota.EpochTotals {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []quota.EpochTotals
	for _, id := range e.order {
		out = append(out, quota.EpochTotals{Epoch: id, Rows: slices.Collect(maps.Values(e.retired[id])), Final: true})
	}
	last := quota.EpochTotals{Epoch: e.epoch}
	for _, u := range e.usage {
		if u.total.Spent != 0 || u.total.Refunded != 0 {
			last.Rows = append(last.Rows, u.total)
		}
	}
	return append(out, last)
}

func (e *fakeEngine) Flushed(t quota.EpochTotals) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.Final {
		e.drop(t.Epoch)
	}
}

func (e *fakeEngine) drop(epoch string) {
	delete(e.retired, epoch)
	e.order = slices.DeleteFunc(slices.Clone(e.order), func(id string) bool { return id == epoch })
	e.gen++
	e.minGen = e.gen
}

func (e *fakeEngine) Rebase(closed string, rows []quota.Total) {
	e.mu.Lock()
	defer e.mu.Unlock()
	recorded := map[quota.Key]quota.Total{}
	for _, r := range rows {
		k := quota.Key{Digest: r.Account.Digest(), Name: r.Metric, Space: quota.SpaceUsage, Period: r.Period, Start: r.Start}
		recorded[k] = r
	}
	if closed == e.epoch {
		for k, u := range e.usage {
			u.total.Spent -= recorded[k].Spent
			u.total.Refunded -= recorded[k].Refunded
		}
		e.begin()
		e.gen++
		e.minGen = e.gen
		return
	}
	for k, t := range e.retired[closed] {
		u := e.counter(k)
		u.total.Account, u.total.End = t.Account, t.End
		u.total.Spent += t.Spent - recorded[k].Spent
		u.total.Refunded += t.Refunded - recorded[k].Refunded
	}
	e.drop(closed)
}

var _ Engine = (*fakeEngine)(nil)
