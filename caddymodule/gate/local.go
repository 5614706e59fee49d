package gate

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// local counts in this process alone, while the counters that all gateways
// share cannot be asked. Rates are divided by the number of gateways; quotas
// start from the records, like those of any counters. What it admits is metered in
// epochs of its own. It keeps nothing beyond the process: see Ledger for what
// that means.
type local struct {
	// gateways divides the limits of rates; at least 1.
	gateways atomic.Int64
	// opened is when this began: its clock does not follow steps of the wall's.
	opened time.Time
	// now is for tests; nil: the wall clock's reading at opened, and what has passed.
	now func() time.Time

	mu      sync.Mutex
	windows map[quota.Key]*quota.Window
	usage   map[quota.Key]*localUsage
	dirty   map[quota.Key]*localUsage // of usage: the records do not have their tallies yet
	once    map[localOnce]int64       // when it was charged, ms
	current string                    // epoch
	counted bool                      // the current epoch holds something
	retired []*localEpoch             // oldest first
	// generation counts what makes loads in flight untrue; minGen is the lowest
	// whose result is still true. See quota.ColdError.
	generation, minGen uint64
	free               []bool // of Reserve, kept between calls
}

// localGeneration is set in each generation of local, and in none of other
// engines: Fill tells by it whose counter is filled.
const localGeneration = uint64(1) << 63

type localOnce struct {
	key  quota.Key
	once quota.Digest
}

// localTally is what an epoch has counted of one counter.
type localTally struct {
	account         quota.Subject
	end             int64
	spent, refunded int64
	// What the records have acknowledged.
	flushedSpent, flushedRefunded int64
}

func (t *localTally) dirty() bool {
	return t.spent != t.flushedSpent || t.refunded != t.flushedRefunded
}

func (t *localTally) net() int64 { return t.spent - t.refunded }

// localUsage is a usage counter; the tally in it is the current epoch's.
type localUsage struct {
	localTally
	// used is what a limit is compared with; it is known only where warm.
	used int64
	warm bool
	// loaded is when the records were asked, zero while that is assumed; asked when a request last was judged by it.
	loaded, asked time.Time
}

func (u *localUsage) known() int64 {
	if u.warm {
		return u.used
	}
	return max(0, u.net())
}

// localEpoch is one that has ended. It is Kept: counters that can be reached again
// take it, and who knows whether a call without an answer has not.
type localEpoch struct {
	id      string
	tallies map[quota.Key]*localTally
	// taken: the counters certainly have it.
	taken bool
}

func newLocal() *local {
	l := &local{
		opened: time.Now(), windows: map[quota.Key]*quota.Window{}, usage: map[quota.Key]*localUsage{},
		dirty: map[quota.Key]*localUsage{}, once: map[localOnce]int64{},
		generation: localGeneration, minGen: localGeneration,
	}
	l.gateways.Store(1)
	l.begin()
	return l
}

// begin begins an epoch; a UUIDv7, as all are.
func (l *local) begin() {
	l.counted = false
	id, err := uuid.NewV7()
	if err != nil { // the system has no random numbers for now: any name that nobody else has will do
		l.current = "local-" + rand.Text()
		return
	}
	l.current = id.String()
}

func (l *local) clock() time.Time {
	if l.now != nil {
		return l.now()
	}
	return l.opened.Add(time.Since(l.opened))
}

// share is this process's part of a rate's limit.
func (l *local) share(limit int64) int64 {
	if limit == 0 {
		return 0
	}
	return max(1, limit/max(1, l.gateways.Load()))
}

// Reserve implements Counters.
func (l *local) Reserve(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return l.decide(cs, d, true)
}

// Peek implements Counters.
func (l *local) Peek(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	return l.decide(cs, d, false)
}

func (l *local) decide(cs []quota.Charge, d *quota.Decision, take bool) error {
	if err := quota.CheckCharges(cs); err != nil {
		return fmt.Errorf("reserving in this process: %w", err)
	}
	d.Reset(len(cs))
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	l.free = slices.Grow(l.free[:0], len(cs))[:len(cs)]
	if err := l.look(cs, d, now, take); err != nil {
		return err
	}
	d.Judge(cs, now)
	if !d.Admitted() {
		return nil
	}
	for i := range cs {
		c, o := &cs[i], &d.Outcomes[i]
		if l.free[i] || (o.Exceeded && c.Key.Space == quota.SpaceRate) {
			continue
		}
		o.Charged = c.Cost
		o.Used += c.Cost
		if take && c.Cost > 0 {
			l.take(c, now)
		}
	}
	return nil
}

// look writes what each charge would come to.
func (l *local) look(cs []quota.Charge, d *quota.Decision, now time.Time, take bool) error {
	var cold []int
	for i := range cs {
		c, o := &cs[i], &d.Outcomes[i]
		at, known := l.once[localOnce{c.Key, c.Once}]
		l.free[i] = known && c.Once != (quota.Digest{}) && now.UnixMilli()-at < quota.OnceTTL.Milliseconds()
		if c.Key.Space == quota.SpaceRate {
			if err := l.lookRate(c, o, l.free[i], now.UnixMilli(), take); err != nil {
				return err
			}
			continue
		}
		u := l.usage[c.Key]
		if (u == nil || !u.warm) && c.NeedsBase(take) {
			cold = append(cold, i)
			continue
		}
		if u != nil {
			u.asked = now
			u.own(c.Account, c.End)
			o.Used = u.known()
			if u.spent+c.Cost > quota.MaxAmount || o.Used+c.Cost > quota.MaxAmount {
				return quota.ErrOverflow
			}
		}
		o.Exceeded = !l.free[i] && !c.Fits(o.Used)
	}
	if cold != nil {
		return l.cold(cold, func(i int) quota.Key { return cs[i].Key })
	}
	return nil
}

// lookRate tells a rate's use as if the other gateways had used their shares up:
// what is left of the limit is then what is left of this one's.
func (l *local) lookRate(c *quota.Charge, o *quota.Outcome, free bool, now int64, take bool) error {
	width := quota.BucketWidth(c.Limit.Window)
	var copied quota.Window
	w, kept := &copied, l.windows[c.Key]
	if kept != nil {
		// A longer window's count moves to shorter buckets for good; the other way
		// only when something is taken, or being denied would keep a window full.
		if take && width <= kept.Width() {
			w = kept
		} else {
			copied = *kept
		}
	}
	used, limit := w.Sum(now, width), c.Limit.Max
	if !c.Limit.Unlimited {
		limit = l.share(limit)
	}
	if used+c.Cost > quota.MaxAmount {
		return quota.ErrOverflow
	}
	o.Used = used + c.Limit.Max - limit
	if free || c.Limit.Unlimited || used+max(c.Cost, c.Need) <= limit {
		return nil
	}
	o.Exceeded = true
	if kept != nil && kept.Width() > 0 && kept.Width() < width { // it stays in its own buckets
		copied, width = *kept, kept.Width()
	}
	o.Wait = w.Wait(now, width, limit, max(c.Cost, c.Need))
	return nil
}

func (l *local) take(c *quota.Charge, now time.Time) {
	if c.Once != (quota.Digest{}) {
		l.once[localOnce{c.Key, c.Once}] = now.UnixMilli()
	}
	if c.Key.Space == quota.SpaceRate {
		w := l.windows[c.Key]
		if w == nil {
			w = new(quota.Window)
			l.windows[c.Key] = w
		}
		w.Add(now.UnixMilli(), quota.BucketWidth(c.Limit.Window), c.Cost)
		return
	}
	u := l.counter(c.Key, c.Account, c.End)
	u.asked = now
	l.tally(c.Key, u, c.Cost, 0)
	if u.warm {
		u.used += c.Cost
	}
}

func (l *local) tally(k quota.Key, u *localUsage, spent, refunded int64) {
	u.spent += spent
	u.refunded += refunded
	l.counted = true
	l.dirty[k] = u
}

// counter is the usage counter of a key, made where there is none. Its account is
// a copy: it may be a part of a request's token.
func (l *local) counter(k quota.Key, account quota.Subject, end int64) *localUsage {
	u := l.usage[k]
	if u == nil {
		u = new(localUsage)
		l.usage[k] = u
	}
	u.own(account, end)
	return u
}

// own tells whose counter it is, if that is not known yet: Fill makes it without.
func (u *localUsage) own(account quota.Subject, end int64) {
	if u.account == "" {
		u.account, u.end = quota.Subject(strings.Clone(string(account))), end
	}
}

// cold says how cold counters are loaded: without the epochs that are held here.
func (l *local) cold(indices []int, key func(int) quota.Key) *quota.ColdError {
	c := &quota.ColdError{Charges: indices, Carry: make([]int64, len(indices)), Generation: l.generation, Except: l.epochs()}
	for n, i := range indices {
		c.Carry[n] = l.carry(key(i))
	}
	return c
}

func (l *local) epochs() []string {
	ids := make([]string, 0, len(l.retired)+1)
	for _, e := range l.retired {
		ids = append(ids, e.id)
	}
	return append(ids, l.current)
}

// carry is what the retired epochs hold of a counter.
func (l *local) carry(k quota.Key) (sum int64) {
	for _, e := range l.retired {
		if t := e.tallies[k]; t != nil {
			sum += t.net()
		}
	}
	return sum
}

// Refund implements Counters.
func (l *local) Refund(_ context.Context, rs []quota.Receipt) error {
	for i := range rs {
		if err := rs[i].Check(); err != nil {
			return fmt.Errorf("refunding in this process: receipt %d (%q): %w", i, rs[i].Key.Name, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var cold []int
	for i := range rs {
		u := l.usage[rs[i].Key]
		if rs[i].Free && (u == nil || !u.warm) {
			cold = append(cold, i)
		}
		if u != nil && u.refunded+rs[i].Amount > quota.MaxAmount {
			return quota.ErrOverflow
		}
	}
	if cold != nil {
		return l.cold(cold, func(i int) quota.Key { return rs[i].Key })
	}
	for i := range rs {
		l.giveBack(&rs[i])
	}
	return nil
}

// split divides receipts into those that can be refunded here, and those whose Once
// others hold.
func (l *local) split(rs []quota.Receipt) (here, there []quota.Receipt) {
	if !slices.ContainsFunc(rs, func(r quota.Receipt) bool { return r.Once != quota.Digest{} }) {
		return rs, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range rs {
		if _, own := l.once[localOnce{r.Key, r.Once}]; own || r.Once == (quota.Digest{}) {
			here = append(here, r)
		} else {
			there = append(there, r)
		}
	}
	return here, there
}

func (l *local) giveBack(r *quota.Receipt) {
	delete(l.once, localOnce{r.Key, r.Once})
	u := l.counter(r.Key, r.Account, r.End)
	amount := r.Amount
	if r.Free {
		amount = min(amount, u.used)
	}
	if amount > 0 {
		l.tally(r.Key, u, 0, amount)
	}
	if u.warm {
		u.used = max(0, u.used-amount)
	}
}
