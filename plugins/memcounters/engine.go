package memcounters

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// ErrClosed answers calls after Close.
var ErrClosed = errors.New("the counters are closed")

// DefaultSnapshotBytes is how long a log file grows before it is rewritten.
const DefaultSnapshotBytes = 4 << 20

// Room in a log file is reserved by segments of this length, less where files are
// rewritten before they have grown so long.
const (
	minSegment = 4 << 10
	maxSegment = 256 << 10
)

func segmentFor(snapshotBytes int64) int64 {
	return max(minSegment, min(maxSegment, snapshotBytes/minSegment*minSegment))
}

// tick is how often log files are brought to the disk: the most that a power
// loss may take.
const tick = time.Second

// Options says where and how an Engine counts.
type Options struct {
	// Dir is the folder of the log, made where it is missing. One process may use it.
	Dir string
	// Log gets what an operator should know; nil: nothing.
	Log *zap.Logger
	// Now is the clock; nil: time.Now. Only its differences are used after Open.
	Now func() time.Time
	// SnapshotBytes is how long a log file grows before it is rewritten; 0: DefaultSnapshotBytes.
	SnapshotBytes int64

	open fileOpener // for tests
}

// Engine counts in memory and in a log. It is a gate.Engine and safe for
// concurrent use. Locks are taken in this order: maintaining, ledger, shards by index.
type Engine struct {
	opts Options
	lock *os.File
	// opened is the clock's reading at Open, base the engine's time then: the
	// wall's, but never before the newest time in the log.
	opened, base time.Time

	shards [shards]shard
	// generation counts what makes loads in flight untrue; see quota.ColdError.
	generation atomic.Uint64

	// maintaining serializes snapshots: the ticker's and those that tests ask for.
	maintaining sync.Mutex
	sweeping    int  // the shard that is swept next
	failing     bool // the log could not be kept the last time

	// ledger serializes what changes or reads the epochs. current, retiring and
	// closed change only while all shards are locked too: one lock is enough to read them.
	ledger   sync.Mutex
	current  string
	retiring []string // oldest first
	closed   bool
	day      int64 // in which current began, of the engine's time

	stop chan struct{}
	done chan struct{}
}

// Open reads the log in the folder and begins a new epoch. What the log holds
// of earlier ones is in Totals until it is acknowledged. It refuses a folder
// that another process uses, and a log of another version.
func Open(o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.SnapshotBytes <= 0 {
		o.SnapshotBytes = DefaultSnapshotBytes
	}
	if o.open == nil {
		o.open = openLogFile
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the counters' log: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{opts: o, lock: lock, stop: make(chan struct{}), done: make(chan struct{})}
	if err := e.load(); err != nil {
		return nil, errors.Join(err, e.closeFiles(), unlockDir(lock))
	}
	go e.run()
	return e, nil
}

// Close brings the log to the disk and gives the folder free.
func (e *Engine) Close() error {
	e.ledger.Lock()
	e.lockAll()
	already := e.closed
	e.closed = true
	e.unlockAll()
	e.ledger.Unlock()
	if already {
		return nil
	}
	close(e.stop)
	<-e.done
	err := errors.Join(e.closeFiles(), unlockDir(e.lock))
	if err != nil {
		return fmt.Errorf("closing the counters' log: %w", err)
	}
	return nil
}

func (e *Engine) closeFiles() error {
	var errs []error
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		if s.log.file != nil {
			if s.log.unsynced {
				errs = append(errs, s.log.file.Sync())
			}
			errs = append(errs, s.log.file.Close())
			s.log.broken = ErrClosed
		}
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Ping reports that the counters are closed, or that they count without a log:
// a kill would then lose what was counted since.
func (e *Engine) Ping(context.Context) error {
	var first error
	var broken int
	for i := range e.shards {
		s := &e.shards[i]
		s.mu.Lock()
		if e.closed {
			s.mu.Unlock()
			return ErrClosed
		}
		if err := s.log.broken; err != nil {
			broken++
			if first == nil {
				first = err
			}
		}
		s.mu.Unlock()
	}
	if first != nil {
		return fmt.Errorf("counting in memory only, %d of %d log files cannot be written: %w", broken, shards, first)
	}
	return nil
}

// now is the engine's time.
func (e *Engine) now() time.Time {
	if e.opts.Now == nil {
		return e.base.Add(time.Since(e.opened)) // reads one clock, where time.Now reads two
	}
	return e.base.Add(e.opts.Now().Sub(e.opened))
}

func shardIndex(d quota.Digest) int { return int(d[0]) % shards }

func (e *Engine) shard(d quota.Digest) *shard { return &e.shards[shardIndex(d)] }

// lockSet locks the shards of a set, in the order of their index: two callers
// never wait for each other.
func (e *Engine) lockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].mu.Lock()
	}
}

func (e *Engine) unlockSet(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].mu.Unlock()
	}
}

func (e *Engine) lockAll() {
	for i := range e.shards {
		e.shards[i].mu.Lock()
	}
}

func (e *Engine) unlockAll() {
	for i := range e.shards {
		e.shards[i].mu.Unlock()
	}
}

func (e *Engine) beginFrames(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].log.begin()
	}
}

func (e *Engine) commitFrames(set uint64) {
	for ; set != 0; set &= set - 1 {
		e.shards[bits.TrailingZeros64(set)].log.commit()
	}
}

// newEpoch is a UUIDv7 (RFC 9562, section 5.7) of the engine's time.
func newEpoch(now time.Time) string {
	var u uuid.UUID
	_, _ = rand.Read(u[:]) // never fails: crypto/rand ends the process instead
	ms := now.UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}

func (e *Engine) logPath(shard int) string {
	return filepath.Join(e.opts.Dir, fmt.Sprintf("%02d.log", shard))
}

// Interface guards.
var _ gate.Engine = (*Engine)(nil)
