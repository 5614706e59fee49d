package gate

import (
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"time"
)

// Stats are the counters of a Runtime, for metrics and the status page.
type Stats struct {
	CacheHits, CacheMisses, CacheStale, Fallbacks  atomic.Int64
	LoadFailures, ColdLoads, ColdFailures          atomic.Int64
	CounterFailures, RefundFailures, FlushFailures atomic.Int64
	Changes, WatchFailures, RollupsDropped         atomic.Int64
	UnlimitedScopes                                atomic.Int64 // answers by quota.FallbackRate
	StreamsClosed                                  atomic.Int64
	// While the counters were out of reach: how often that began, and the requests
	// that were judged in this process.
	BreakerOpened, LocalAdmitted, LocalDenied atomic.Int64
	// EpochsReaped are epochs of dead processes that this one closed, EpochsCopied
	// those whose totals it copied from the counters.
	EpochsReaped, EpochsCopied atomic.Int64

	faults    [len(faultKinds)]atomic.Int64
	observe   func(call string, d time.Duration)
	started   atomic.Int64 // Unix ns
	lastFlush atomic.Int64 // Unix ns
	// flushFailing is set while usage cannot be written to the records.
	flushFailing atomic.Bool
	lastError    atomic.Pointer[Fault]
}

// Fault is the latest failure of a dependency.
type Fault struct {
	Part string // "records", "counters"
	At   time.Time
	Err  string
}

// LastFault is the latest failure, nil if there was none.
func (s *Stats) LastFault() *Fault { return s.lastError.Load() }

// LastFlush is when usage was last written to the records; zero: not yet.
func (s *Stats) LastFlush() time.Time {
	if ns := s.lastFlush.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// FlushLag is how long usage has not been written to the records; before the
// first flush since the start.
func (s *Stats) FlushLag() time.Duration {
	since := max(s.lastFlush.Load(), s.started.Load())
	if since == 0 {
		return 0
	}
	return time.Since(time.Unix(0, since))
}

// FlushFailing reports whether the latest flush of usage failed: it stays in the
// counters, and is tried again.
func (s *Stats) FlushFailing() bool { return s.flushFailing.Load() }

// took is for defer: it tells how long a call took since began.
func (s *Stats) took(call string, began time.Time) { s.observe(call, time.Since(began)) }

func (s *Stats) fault(part string, err error) {
	s.lastError.Store(&Fault{Part: part, At: time.Now(), Err: err.Error()})
}

var faultKinds = [...]FaultKind{
	FaultTimeout, FaultUnreachable, FaultBroken, FaultNoScript, FaultReadOnly, FaultLoading, FaultMemory,
	FaultMisconf, FaultClusterDown, FaultBusy, FaultDenied, FaultOther,
}

// CounterFaults tells of each kind of fault how often the counters had it.
func (s *Stats) CounterFaults() iter.Seq2[FaultKind, int64] {
	return func(yield func(FaultKind, int64) bool) {
		for i := range faultKinds {
			if !yield(faultKinds[i], s.faults[i].Load()) {
				return
			}
		}
	}
}

// counterFault notes a failed call of the counters.
func (s *Stats) counterFault(err error) {
	kind := FaultOther
	if f := (*CounterError)(nil); errors.As(err, &f) {
		kind = f.Kind
	}
	i := slices.Index(faultKinds[:], kind)
	if i < 0 {
		i = len(faultKinds) - 1
	}
	s.faults[i].Add(1)
	s.CounterFailures.Add(1)
	s.fault("counters", err)
}

func (s *Stats) loadFailed(err error) {
	s.LoadFailures.Add(1)
	s.fault("records", err)
}
