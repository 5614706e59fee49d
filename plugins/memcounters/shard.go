package memcounters

import (
	"strings"
	"sync"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// shards is how many parts the counters have: at most 64, so that a set of them
// is one machine word. It stands in the header of each log file. A lock is held
// for less than a microsecond, so eight let cores work side by side, and each
// more is another file to sync each second.
const shards = 8

// windowKey names a rate window.
type windowKey struct {
	digest quota.Digest
	scope  string
}

// window is a rate window and how the log knows it.
type window struct {
	quota.Window
	// name is what the log file calls it, 0 where it does not know it; width is
	// that of its buckets under this name.
	name  uint64
	width int64
}

// onceKey names a Once under its counter.
type onceKey struct {
	key  quota.Key
	once quota.Digest
}

// tally is what one epoch has counted of one counter.
type tally struct {
	account quota.Subject
	end     int64
	// spent and refunded are absolute and never fall within an epoch.
	spent, refunded int64
	// dirty: the records do not have these values yet.
	dirty bool
}

func (t *tally) net() int64 { return t.spent - t.refunded }

func (t *tally) row(k quota.Key) quota.Total {
	return quota.Total{
		Account: t.account, Metric: k.Name, Period: k.Period, Start: k.Start, End: t.end,
		Spent: t.spent, Refunded: t.refunded,
	}
}

// usage is a usage counter; the tally in it is the current epoch's.
type usage struct {
	key quota.Key
	tally
	// used is what a limit is compared with, over all epochs. It is known only
	// where warm: without the records' part the counter is cold.
	used int64
	warm bool
	// name is what the log file calls it, 0 where it does not know it.
	name uint64
	// touched since the epoch began: a counter that is not may leave memory.
	touched bool
}

// known is what is known to be used: all of it in a warm counter.
func (u *usage) known() int64 {
	if u.warm {
		return u.used
	}
	return max(0, u.net())
}

// shard is a part of the counters: all of one subject are in one shard.
type shard struct {
	mu      sync.Mutex
	windows map[windowKey]*window
	usage   map[quota.Key]*usage
	once    map[onceKey]int64 // when it was charged, ms
	// retired are the tallies of ended epochs that the records do not hold yet.
	retired map[string]map[quota.Key]*tally
	// dirty lists the counters whose tally is dirty.
	dirty []*usage
	// minGen is the lowest generation of a load whose result is still true.
	minGen uint64
	refs   []ref
	log    journal
	_      [64]byte // keeps two shards' mutexes out of one cache line
}

// ref is a charge's counter, found while the shard is locked.
type ref struct {
	window *window
	usage  *usage
	free   bool // its Once was charged already
}

func (s *shard) init(path string, segment int64) {
	s.windows = make(map[windowKey]*window)
	s.usage = make(map[quota.Key]*usage)
	s.once = make(map[onceKey]int64)
	s.retired = make(map[string]map[quota.Key]*tally)
	s.log.path, s.log.segment = path, segment
}

// counter is the usage counter of key, made where there is none.
func (s *shard) counter(k quota.Key, account quota.Subject, end int64) *usage {
	u := s.usage[k]
	if u == nil {
		u = &usage{key: k}
		s.usage[k] = u
	}
	u.touch(account, end)
	return u
}

// touch keeps the counter in memory, and its account where that was not known:
// a copy, for it may be a part of a request's token.
func (u *usage) touch(account quota.Subject, end int64) {
	if u.account == "" {
		u.account, u.end = quota.Subject(strings.Clone(string(account))), end
	}
	u.touched = true
}

func (s *shard) markDirty(u *usage) {
	if !u.dirty {
		u.dirty = true
		s.dirty = append(s.dirty, u)
	}
}

// logRate adds to the frame that cost was added to the window.
func (s *shard) logRate(k windowKey, w *window, at, width, cost int64) {
	if w.name != 0 && w.width == width {
		s.log.frame = appendHit(s.log.frame, w.name, at, cost)
		return
	}
	s.log.names++
	w.name, w.width = s.log.names, width
	s.log.frame = appendNamedRate(s.log.frame, w.name, k, at, width, cost)
}

// logUsage adds the counter's totals to the frame.
func (s *shard) logUsage(u *usage) {
	if u.name != 0 {
		s.log.frame = appendTotals(s.log.frame, u.name, &u.tally)
		return
	}
	s.log.names++
	u.name = s.log.names
	s.log.frame = appendNamedUsage(s.log.frame, u.name, u.key, &u.tally)
}

// carry is what the retired epochs hold of a counter.
func (s *shard) carry(k quota.Key) int64 {
	var sum int64
	for _, tallies := range s.retired {
		if t := tallies[k]; t != nil {
			sum += t.net()
		}
	}
	return sum
}

// onceKnown reports whether the charge's Once was charged within its time.
func (s *shard) onceKnown(k onceKey, now int64) bool {
	if k.once == (quota.Digest{}) {
		return false
	}
	at, ok := s.once[k]
	return ok && now-at < quota.OnceTTL.Milliseconds()
}

// borrow is room for n refs, kept between calls.
func (s *shard) borrow(n int) []ref {
	if cap(s.refs) < n {
		s.refs = make([]ref, n)
	}
	s.refs = s.refs[:n]
	clear(s.refs)
	return s.refs
}

// sweep drops windows in which nothing is counted and what is too old to be
// known as a Once.
func (s *shard) sweep(now int64) {
	for k, w := range s.windows {
		if w.Width() == 0 || w.Sum(now, w.Width()) == 0 {
			delete(s.windows, k)
		}
	}
	for k, at := range s.once {
		if now-at >= quota.OnceTTL.Milliseconds() {
			delete(s.once, k)
		}
	}
}
