package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// fakeRecords are a small model of the records: what accounts may do, the
// numbered changes of it, and usage by epoch.
type fakeRecords struct {
	mu         sync.Mutex
	plan       *quota.Plan // of everyone without a row
	counted    map[string]quota.Periods
	rows       map[quota.Subject]quota.Entitlement
	seq        int64
	changes    []quota.Change
	changed    chan struct{} // closed and made anew by each change
	loads      map[quota.Subject]int
	epochs     map[string]*fakeEpoch
	levels     map[string]int64 // set by an admin, by metric
	rollups    map[quota.Rollup]quota.Rollup
	thresholds []quota.Threshold
	seen       map[quota.Subject]string
	flushes    int
	maintain   int

	// These may be nil. They are called without the lock.
	onLoad    func(ctx context.Context, account quota.Subject) error
	onLoaded  func(ctx context.Context, account quota.Subject) error // the rows were read
	onUsage   func() error
	onFlush   func(ctx context.Context, f quota.Flush) error
	onFlushed func(ctx context.Context, f quota.Flush) error // it was applied
	onWatch   func() error
	noSeq     bool // EpochClosedError does not tell FlushSeq
}

type fakeEpoch struct {
	rows   map[fakeRow]quota.Total
	closed bool
	seq    int64
	// compacted: rows count, and cannot be told apart from others.
	compacted bool

	// For sharedRecords.
	process        string
	kept, dropped  bool
	seen, closedAt time.Time
}

type fakeRow struct {
	account quota.Subject
	metric  string
	period  quota.Period
	start   int64
}

func newFakeRecords() *fakeRecords {
	plan := quota.SeedPlans()[0]
	return &fakeRecords{
		plan: plan, counted: map[string]quota.Periods{}, rows: map[quota.Subject]quota.Entitlement{},
		changed: make(chan struct{}), loads: map[quota.Subject]int{}, epochs: map[string]*fakeEpoch{},
		levels: map[string]int64{}, rollups: map[quota.Rollup]quota.Rollup{}, seen: map[quota.Subject]string{},
	}
}

// change writes in one transaction and numbers the change.
func (r *fakeRecords) change(s quota.Subject, write func(*quota.Entitlement)) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if write != nil {
		e := r.row(s)
		write(&e)
		r.rows[s] = e
	}
	r.seq++
	r.changes = append(r.changes, quota.Change{Seq: r.seq, Subject: s})
	close(r.changed)
	r.changed = make(chan struct{})
	return r.seq
}

func (r *fakeRecords) row(s quota.Subject) quota.Entitlement {
	e, ok := r.rows[s]
	if !ok {
		e = quota.Entitlement{Account: s, Plan: r.plan, Counted: r.counted}
	}
	return e
}

func (r *fakeRecords) loadsOf(s quota.Subject) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loads[s]
}

func (r *fakeRecords) Entitlement(ctx context.Context, account quota.Subject) (*quota.Entitlement, error) {
	r.mu.Lock()
	r.loads[account]++
	r.mu.Unlock()
	if r.onLoad != nil {
		if err := r.onLoad(ctx, account); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	e := r.row(account)
	e.Version = r.seq
	r.mu.Unlock()
	if r.onLoaded != nil {
		if err := r.onLoaded(ctx, account); err != nil {
			return nil, err
		}
	}
	return &e, nil
}

func (r *fakeRecords) Latest(context.Context) (int64, error) {
	if r.onWatch != nil {
		if err := r.onWatch(); err != nil {
			return 0, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq, nil
}

func (r *fakeRecords) Watch(ctx context.Context, after int64, _ <-chan struct{}, deliver func([]quota.Change)) error {
	for {
		if r.onWatch != nil {
			if err := r.onWatch(); err != nil {
				return err
			}
		}
		r.mu.Lock()
		changed := r.changed
		var batch []quota.Change
		for _, ch := range r.changes {
			if ch.Seq > after {
				batch = append(batch, ch)
				after = max(after, ch.Seq)
			}
		}
		r.mu.Unlock()
		deliver(batch)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (r *fakeRecords) Flush(ctx context.Context, f quota.Flush) error {
	if r.onFlush != nil {
		if err := r.onFlush(ctx, f); err != nil {
			return err
		}
	}
	if err := r.write(f); err != nil {
		return err
	}
	if r.onFlushed != nil {
		return r.onFlushed(ctx, f)
	}
	return nil
}

func (r *fakeRecords) write(f quota.Flush) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.epochs[f.Epoch]
	if e == nil {
		e = &fakeEpoch{rows: map[fakeRow]quota.Total{}}
		r.epochs[f.Epoch] = e
	}
	if e.closed && (e.compacted || !(f.Kept && f.Final)) {
		closed := &quota.EpochClosedError{Epoch: f.Epoch, FlushSeq: e.seq}
		if r.noSeq {
			closed.FlushSeq = 0
		}
		return fmt.Errorf("flushing: %w", closed)
	}
	r.flushes++
	if e.process == "" {
		e.process, e.kept = f.Process, f.Kept
	}
	e.kept = e.kept || f.Kept
	e.seen = time.Now()
	for _, t := range f.Rows {
		k := fakeRow{t.Account, t.Metric, t.Period, t.Start}
		old := e.rows[k]
		t.Spent, t.Refunded = max(t.Spent, old.Spent), max(t.Refunded, old.Refunded)
		e.rows[k] = t
	}
	if f.Seq > e.seq {
		e.seq = f.Seq
		for _, u := range f.Rollups {
			k := u
			k.Requests, k.Cost = 0, 0
			sum := r.rollups[k]
			u.Requests += sum.Requests
			u.Cost += sum.Cost
			r.rollups[k] = u
		}
	}
	for _, s := range f.Seen {
		if s.Email != "" || r.seen[s.Account] == "" {
			r.seen[s.Account] = s.Email
		}
	}
	r.thresholds = append(r.thresholds, f.Thresholds...)
	if f.Final && !e.closed {
		e.closed, e.closedAt = true, time.Now()
	}
	return nil
}

// reap closes an epoch, as if its process were dead.
func (r *fakeRecords) reap(epoch string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.epochs[epoch]; e != nil {
		e.closed, e.closedAt = true, time.Now()
	}
}

// sharedRecords are records that several processes use: epochs die in them.
type sharedRecords struct {
	*fakeRecords
	onReap    func() error // may be nil
	onDropped func(epoch string) error
}

func (r *sharedRecords) Reap(_ context.Context, copies bool) (closed int, kept []quota.ClosedEpoch, err error) {
	if r.onReap != nil {
		if err := r.onReap(); err != nil {
			return 0, nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for id, e := range r.epochs {
		if !e.closed && now.Sub(e.seen) > 3*time.Second {
			e.closed, e.closedAt = true, now
			closed++
		}
		if copies && e.closed && e.kept && !e.dropped {
			kept = append(kept, quota.ClosedEpoch{Epoch: id, For: now.Sub(e.closedAt)})
		}
	}
	slices.SortFunc(kept, func(a, b quota.ClosedEpoch) int { return strings.Compare(a.Epoch, b.Epoch) })
	return closed, kept, nil
}

func (r *sharedRecords) Dropped(_ context.Context, epoch string) error {
	if r.onDropped != nil {
		if err := r.onDropped(epoch); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epochs[epoch].dropped = true
	return nil
}

func (r *sharedRecords) Found(_ context.Context, epoch string) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.epochs[epoch]
	if e.compacted {
		return false, fmt.Errorf("looking for it: %w", &quota.EpochCompactedError{Epoch: epoch})
	}
	again = e.dropped || !e.kept
	e.kept, e.dropped = true, false
	return again, nil
}

func (r *sharedRecords) Gateways(context.Context) (int, error) {
	if r.onReap != nil {
		if err := r.onReap(); err != nil {
			return 0, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	processes := map[string]bool{}
	for _, e := range r.epochs {
		if !e.closed && e.process != "" && time.Since(e.seen) <= 3*time.Second {
			processes[e.process] = true
		}
	}
	return len(processes), nil
}

var _ Reaper = (*sharedRecords)(nil)

func (r *fakeRecords) EpochTotals(_ context.Context, epoch string) ([]quota.Total, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rows []quota.Total
	if e := r.epochs[epoch]; e != nil {
		if e.compacted {
			return nil, &quota.EpochCompactedError{Epoch: epoch}
		}
		for _, t := range e.rows {
			rows = append(rows, t)
		}
	}
	return rows, nil
}

func (r *fakeRecords) Usage(_ context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error) {
	if r.onUsage != nil {
		if err := r.onUsage(); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]quota.Used, len(keys))
	for i, k := range keys {
		out[i].Excepted = make([]quota.Total, len(except))
		if k.Period == quota.PeriodNone {
			out[i].Amount = r.levels[k.Metric]
		}
		for id, e := range r.epochs {
			t, at := e.rows[fakeRow{account, k.Metric, k.Period, k.Start}], slices.Index(except, id)
			if at < 0 || e.compacted {
				out[i].Amount += t.Spent - t.Refunded
			}
			switch {
			case at >= 0 && e.compacted:
				out[i].Excepted[at] = quota.Total{Spent: quota.MaxAmount, Refunded: quota.MaxAmount}
			case at >= 0:
				out[i].Excepted[at] = t
			}
		}
	}
	return out, nil
}

func (r *fakeRecords) Maintain(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maintain++
	return nil
}

// used is what the records say in the end, over all epochs and period starts.
func (r *fakeRecords) used(account quota.Subject, metric string, p quota.Period) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum int64
	for _, e := range r.epochs {
		for k, t := range e.rows {
			if k.account == account && k.metric == metric && k.period == p {
				sum += t.Spent - t.Refunded
			}
		}
	}
	return sum
}

// requests are how often the charts count a decision of an account.
func (r *fakeRecords) requests(account quota.Subject, decision string) (requests, cost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.rollups {
		if u.Account == account && u.Decision == decision {
			requests += u.Requests
			cost += u.Cost
		}
	}
	return requests, cost
}

var (
	_ Loader     = (*fakeRecords)(nil)
	_ Bus        = (*fakeRecords)(nil)
	_ UsageStore = (*fakeRecords)(nil)
	_ Maintainer = (*fakeRecords)(nil)
)
