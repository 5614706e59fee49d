package gate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

const (
	recorderShards = 16
	// Distinct kinds of rollups, and callers, kept while the records are down.
	maxRollups = 200_000
	maxSeen    = 200_000
	// chartBatch bounds what one flush carries of either: more would not be done in time.
	chartBatch = 10_000
	// totalsBatch bounds the totals of one flush. Each flush is a heartbeat, and what
	// it has written stays written, so that a backlog is worked off.
	totalsBatch   = 5_000
	maintainEvery = 5  // flushes
	chartsEvery   = 10 // flushes
	// flushTimeout is how long the records may take for what is written at once.
	flushTimeout = 5 * time.Second
	maxRebases   = 3 // in one flush
)

var errHanging = fmt.Errorf("nothing was written for %s", flushTimeout)

// Maintainer is implemented by a UsageStore that has upkeep: it closes the
// epochs of dead processes and compacts old ones, under a lease.
type Maintainer interface {
	Maintain(ctx context.Context) error
}

// recorder flushes usage: totals from the engine's ledger, rollups and callers
// that it collects itself.
type recorder struct {
	ledger Ledger
	usage  UsageStore
	every  time.Duration
	stats  *Stats
	log    *zap.Logger
	// process names this process to the records, once it judges requests.
	process string
	judges  atomic.Bool
	shards  [recorderShards]rollupShard

	ticks int // of run alone
	// answered has a place for one: the records can be asked again.
	answered chan struct{}

	mu         sync.Mutex  // one flush at a time
	patience   *time.Timer // with the flush under way
	seq        int64
	rollups    map[rollupKind]rollupSum
	known      map[quota.Subject]string // e-mail by account, not yet written
	thresholds []quota.Threshold        // not yet written
	// inFlight is what a failed flush has sent: it is sent again unchanged under
	// its number, since the records may have taken it.
	inFlight *quota.Flush
}

type rollupShard struct {
	mu   sync.Mutex
	sums map[rollupKind]*rollupSum
	seen map[quota.Subject]string
	near thresholds
	_    [64]byte // its own cache line
}

type rollupKind struct {
	hour     int64
	account  quota.Subject
	scope    string
	decision string
	class    int
	// metric is what was spent where the scope has another name: the request
	// stands in the charts under both, and is counted here once.
	metric string
}

type rollupSum struct{ requests, cost int64 }

func newRecorder(l Ledger, u UsageStore, every time.Duration, stats *Stats, log *zap.Logger) *recorder {
	r := &recorder{
		ledger: l, usage: u, every: every, stats: stats, log: log, process: rand.Text(),
		// Numbers grow from one process to the next, whatever epoch they belong to.
		seq:      time.Now().UnixNano(),
		answered: make(chan struct{}, 1),
		rollups:  map[rollupKind]rollupSum{}, known: map[quota.Subject]string{},
	}
	for i := range r.shards {
		r.shards[i].sums = map[rollupKind]*rollupSum{}
		r.shards[i].seen = map[quota.Subject]string{}
		r.shards[i].near.known = map[quota.Threshold]struct{}{}
	}
	return r
}

func (r *recorder) shard(d quota.Digest) *rollupShard { return &r.shards[d[0]%recorderShards] }

// count adds one request to the charts.
func (r *recorder) count(d quota.Digest, k rollupKind, cost int64) {
	s := r.shard(d)
	s.mu.Lock()
	sum := s.sums[k]
	if sum == nil {
		sum = new(rollupSum)
		s.sums[k] = sum
	}
	sum.requests++
	sum.cost += cost
	s.mu.Unlock()
}

// seen notes a caller of a verified credential.
func (r *recorder) seen(account quota.Subject, email string) {
	s := r.shard(account.Digest())
	s.mu.Lock()
	if email != "" || s.seen[account] == "" {
		s.seen[account] = email
	}
	s.mu.Unlock()
}

func (r *recorder) run(ctx context.Context) {
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.answered:
			if r.stats.FlushFailing() {
				_ = r.flush(context.WithoutCancel(ctx), false) // reported
			}
		case <-ticker.C:
			// Stop waits for a flush that has begun: cut off, nobody knew what became of it.
			_ = r.flush(context.WithoutCancel(ctx), r.ticks%chartsEvery == 0) // reported
			r.maintain(ctx)
		}
	}
}

// again has a flush that failed tried anew before its time: the records, which
// could not be asked, answer.
func (r *recorder) again() {
	select {
	case r.answered <- struct{}{}:
	default:
	}
}

func (r *recorder) maintain(ctx context.Context) {
	m, ok := r.usage.(Maintainer)
	// Of records that hang, upkeep would wait for as long as a flush does, before the next one.
	if r.ticks++; !ok || r.ticks%maintainEvery != 0 || r.stats.FlushFailing() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := m.Maintain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		r.stats.fault("records", err)
		r.log.Error("maintaining usage failed; it is tried again", zap.Error(err))
	}
}

// flush writes the totals that are not written yet, and the charts if it is
// their turn: they may lag, for less work. What fails is kept, and reported.
func (r *recorder) flush(ctx context.Context, charts bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.patience = time.AfterFunc(flushTimeout, func() { cancel(errHanging) })
	defer r.patience.Stop()
	defer r.stats.took(CallFlush, time.Now())
	if charts {
		r.collect()
	}
	if err := r.rounds(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		r.failed(err)
		return err
	}
	if r.stats.flushFailing.Swap(false) {
		r.log.Info("usage is flushed again")
	}
	r.stats.lastFlush.Store(time.Now().UnixNano())
	return nil
}

// rounds writes until nothing is left.
func (r *recorder) rounds(ctx context.Context) error {
	for rebases := 0; ; {
		rebased, err := r.round(ctx)
		switch {
		case err != nil:
			return err
		case rebased:
			if rebases++; rebases == maxRebases {
				return errors.New("the records close each epoch that is begun")
			}
		case len(r.rollups) == 0 && len(r.known) == 0:
			return nil
		}
	}
}

// round writes the totals of each epoch, and a batch of the charts with the
// last. rebased: there are totals in another epoch now. An epoch that cannot be
// written does not keep the current one from its heartbeat.
func (r *recorder) round(ctx context.Context) (rebased bool, err error) {
	totals := r.ledger.Totals()
	for i, t := range totals {
		moved, failed := r.write(ctx, t, i == len(totals)-1)
		rebased = rebased || moved
		err = errors.Join(err, failed)
	}
	return rebased, err
}

// write flushes one epoch. rebased: it had been closed, and what it holds is
// carried over into another.
func (r *recorder) write(ctx context.Context, t quota.EpochTotals, current bool) (rebased bool, err error) {
	for len(t.Rows) > totalsBatch {
		part := t
		part.Rows = t.Rows[:totalsBatch]
		part.Final = t.Final && t.Kept // what is not kept is closed by its last part
		if rebased, err = r.send(ctx, quota.Flush{EpochTotals: part}); rebased || err != nil {
			return rebased, err
		}
		t.Rows = t.Rows[totalsBatch:]
	}
	f := quota.Flush{EpochTotals: t}
	if current {
		f = r.withCharts(t)
		r.collectThresholds()
		f.Thresholds = r.thresholds
	}
	if rebased, err = r.send(ctx, f); rebased || err != nil {
		return rebased, err
	}
	if current {
		r.inFlight, r.thresholds = nil, nil
	}
	return false, nil
}

// send flushes once, and acknowledges what was written.
func (r *recorder) send(ctx context.Context, f quota.Flush) (rebased bool, err error) {
	if r.judges.Load() {
		f.Process = r.process
	}
	err = r.usage.Flush(ctx, f)
	if closed := (*quota.EpochClosedError)(nil); errors.As(err, &closed) {
		if f.Seq != 0 && f.Seq <= closed.FlushSeq {
			r.inFlight = nil // an attempt that seemed to fail had been applied
		}
		return true, r.rebase(ctx, f.EpochTotals) // charts stay in flight for the new epoch
	}
	if err != nil {
		return false, err
	}
	r.patience.Reset(flushTimeout)
	r.ledger.Flushed(f.EpochTotals)
	return false, nil
}

// rebase goes on in a new epoch after a reaper has closed ours: what the
// closed one lacks is carried over.
func (r *recorder) rebase(ctx context.Context, t quota.EpochTotals) error {
	if t.Kept && !t.Final {
		r.ledger.Rebase(t.Epoch, nil)
		r.log.Warn("an epoch of this process had been closed; another was begun", zap.String("epoch", t.Epoch))
		return nil
	}
	rows, err := r.usage.EpochTotals(ctx, t.Epoch)
	if compacted := (*quota.EpochCompactedError)(nil); errors.As(err, &compacted) && t.Final {
		// Counting what it holds once more would double all but its last second.
		r.ledger.Flushed(t)
		r.log.Error("an old epoch of this process was compacted before it came back: its last totals are dropped",
			zap.String("epoch", t.Epoch), zap.Int("rows", len(t.Rows)))
		return nil
	}
	if err != nil {
		return err
	}
	r.ledger.Rebase(t.Epoch, rows)
	r.log.Warn("an epoch of this process had been closed; what it lacks goes on in another", zap.String("epoch", t.Epoch))
	return nil
}

func (r *recorder) failed(err error) {
	r.stats.flushFailing.Store(true)
	r.stats.FlushFailures.Add(1)
	r.stats.fault("records", err)
	r.log.Error("flushing usage failed; it stays in the counters and is tried again", zap.Error(err))
}

// collect takes what the requests have left in the shards.
func (r *recorder) collect() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for k, v := range s.sums {
			sum, ok := r.rollups[k]
			if !ok && len(r.rollups) >= maxRollups {
				r.stats.RollupsDropped.Add(v.requests)
				continue
			}
			r.rollups[k] = rollupSum{sum.requests + v.requests, sum.cost + v.cost}
		}
		clear(s.sums)
		for account, email := range s.seen {
			known, ok := r.known[account]
			if (ok || len(r.known) < maxSeen) && (email != "" || known == "") {
				r.known[account] = email
			}
		}
		clear(s.seen)
		s.mu.Unlock()
	}
}

// withCharts completes the flush of the current epoch with a batch of rollups
// and callers, or with the one that is still in flight.
func (r *recorder) withCharts(t quota.EpochTotals) quota.Flush {
	if r.inFlight == nil {
		r.seq++
		r.inFlight = &quota.Flush{Seq: r.seq, Rollups: r.takeRollups(), Seen: r.takeSeen()}
	}
	f := *r.inFlight
	f.EpochTotals = t
	return f
}

func (r *recorder) takeRollups() []quota.Rollup {
	var out []quota.Rollup
	for k, v := range r.rollups {
		if len(out) > chartBatch-2 && (k.metric != "" || len(out) == chartBatch) {
			break
		}
		u := quota.Rollup{
			Hour: k.hour, Account: k.account, Scope: k.scope, Decision: k.decision,
			StatusClass: k.class, Requests: v.requests, Cost: v.cost,
		}
		out = append(out, u)
		if k.metric != "" {
			u.Scope = k.metric
			out = append(out, u)
		}
		delete(r.rollups, k)
	}
	return out
}

func (r *recorder) takeSeen() []quota.Seen {
	var out []quota.Seen
	now := time.Now()
	for account, email := range r.known {
		if len(out) == chartBatch {
			break
		}
		out = append(out, quota.Seen{Account: account, Email: email, At: now})
		delete(r.known, account)
	}
	return out
}
