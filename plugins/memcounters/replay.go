package memcounters

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// loading is what Open learns from the log files.
type loading struct {
	epochs map[string]bool // named in a log and not dropped there
	newest int64           // ms
}

// load fills the shards from the log and begins a new epoch in each file.
func (e *Engine) load() error {
	l := loading{epochs: make(map[string]bool)}
	fresh := make([]bool, shards)
	for i := range e.shards {
		s := &e.shards[i]
		s.init(e.logPath(i), segmentFor(e.opts.SnapshotBytes))
		var err error
		if fresh[i], err = e.loadShard(s, i, &l); err != nil {
			return err
		}
	}
	e.opened = time.Now()
	if e.opts.Now != nil {
		e.opened = e.opts.Now()
	}
	e.base = e.opened.Round(0)
	if newest := time.UnixMilli(l.newest); newest.After(e.base) {
		e.opts.Log.Warn("the clock is behind the newest time in the counters' log: going on from there",
			zap.Time("clock", e.base), zap.Time("log", newest))
		e.base = newest
	}
	for id := range l.epochs {
		e.retiring = append(e.retiring, id)
	}
	slices.Sort(e.retiring)
	now := e.now()
	e.current, e.day = newEpoch(now), dayOf(now)
	for i := range e.shards {
		e.begin(i, fresh[i], now)
	}
	if err := syncDir(e.opts.Dir); err != nil {
		return fmt.Errorf("opening the counters' log: %w", err)
	}
	return nil
}

// begin writes the new epoch into a shard's file: behind what is there, or with
// all that was read where the file is a new one.
func (e *Engine) begin(index int, fresh bool, now time.Time) {
	s := &e.shards[index]
	s.sweep(now.UnixMilli())
	if fresh {
		image := e.image(s, index, now)
		s.log.write(image)
		s.log.base = int64(len(image))
		return
	}
	s.log.begin()
	s.log.frame = appendClock(s.log.frame, now.UnixMilli())
	s.log.frame = appendEpoch(s.log.frame, itemEpoch, e.current)
	s.log.commit()
}

// loadShard replays one file and opens it for appending. It reports whether the
// file is a new one.
func (e *Engine) loadShard(s *shard, index int, l *loading) (fresh bool, err error) {
	path := s.log.path
	if err := removeTemp(path); err != nil {
		return false, err
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the counters' log: %w", err)
	}
	fresh = unmade(b)
	if !fresh {
		if err := checkHeader(path, b, index); err != nil {
			return false, err
		}
		if fresh, err = e.replayFile(s, b, l); err != nil {
			return false, err
		}
	}
	s.log.file, err = e.opts.open(path, s.log.size, s.log.segment)
	if err != nil {
		return false, fmt.Errorf("opening the counters' log: %w", err)
	}
	return fresh, nil
}

// replayFile reads a file's frames. A torn end is cut off; a file that cannot be
// read to its end is set aside, and fresh is then true.
func (e *Engine) replayFile(s *shard, b []byte, l *loading) (fresh bool, err error) {
	path := s.log.path
	r := newReplay(s, l)
	end := readFrames(b, r.frame)
	for id := range r.epochs {
		l.epochs[id] = true
	}
	if end.corrupt {
		aside := path + ".corrupt"
		if err := os.Rename(path, aside); err != nil {
			return false, fmt.Errorf("setting a corrupt log aside: %w", err)
		}
		e.opts.Log.Warn("a counters' log is corrupt: what was counted behind the fault is lost; the file was set aside",
			zap.String("file", aside), zap.Int64("offset", end.good), zap.Int64("lost_bytes", int64(len(b))-end.good))
		return true, nil
	}
	if end.torn {
		if err := os.Truncate(path, end.good); err != nil {
			return false, fmt.Errorf("cutting off a torn record: %w", err)
		}
	}
	s.log.size, s.log.base = end.good, 0
	return false, nil
}

// unmade reports what a kill leaves of a file that was being made: the header is
// written last.
func unmade(b []byte) bool {
	return len(b) < headerSize || string(b[:headerSize]) == string(make([]byte, headerSize))
}

func removeTemp(path string) error {
	if err := os.Remove(tempPath(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an unfinished snapshot: %w", err)
	}
	return nil
}

// checkHeader refuses a file that this version would misread: to begin anew
// over it would forget what was counted.
func checkHeader(path string, b []byte, index int) error {
	want := appendHeader(nil, index, shards)
	got := b[:headerSize]
	if string(got) == string(want) {
		return nil
	}
	if string(got[:len(logMagic)]) == logMagic && got[len(logMagic)] != logVersion {
		return fmt.Errorf("reading the counters' log: %s has version %d, this build reads version %d: "+
			"use the build that wrote it, or move the folder away (rate windows and unflushed usage in it are then lost)",
			path, got[len(logMagic)], logVersion)
	}
	return fmt.Errorf("reading the counters' log: %s is not a log file of these counters: "+
		"give them a folder of their own (counters memory { log <dir> })", path)
}

// replay applies the frames of one file to its shard.
type replay struct {
	shard   *shard
	loading *loading
	epochs  map[string]bool
	epoch   string // that usage items belong to
	items   []item
	// names are the first items of what has a name in this file.
	names map[uint64]item
}

func newReplay(s *shard, l *loading) *replay {
	return &replay{shard: s, loading: l, epochs: make(map[string]bool), names: make(map[uint64]item)}
}

// frame applies one frame: all of its items or, where one is malformed, none.
func (r *replay) frame(payload []byte) error {
	r.items = r.items[:0]
	d := decoder{b: payload}
	epoch := r.epoch
	for len(d.b) > 0 {
		it, err := d.next()
		if err == nil {
			it, err = r.named(it)
		}
		if err != nil {
			return err
		}
		switch {
		case it.kind == itemEpoch:
			epoch = it.id
		case it.kind == itemUsage && epoch == "":
			return fmt.Errorf("%w: usage outside an epoch", errCorrupt)
		}
		r.items = append(r.items, it)
	}
	for i := range r.items {
		r.apply(&r.items[i])
	}
	return nil
}

// named is the item in full, as one without a name.
func (r *replay) named(it item) (item, error) {
	first := it
	switch it.kind {
	case itemNamedRate, itemNamedUsage:
		r.names[it.name] = it
		r.shard.log.names = max(r.shard.log.names, it.name)
	case itemHit, itemTotals:
		first = r.names[it.name] // of no kind where there is none
		first.at, first.cost, first.spent, first.refunded = it.at, it.cost, it.spent, it.refunded
	default:
		return it, nil
	}
	switch {
	case first.kind == itemNamedRate && it.kind != itemTotals:
		first.kind = itemRate
	case first.kind == itemNamedUsage && it.kind != itemHit:
		first.kind = itemUsage
	default:
		return it, fmt.Errorf("%w: item %q has a name that nothing was given", errCorrupt, it.kind)
	}
	return first, nil
}

func (r *replay) apply(it *item) {
	s := r.shard
	switch it.kind {
	case itemEpoch:
		r.epoch = it.id
		r.epochs[it.id] = true
	case itemDropped:
		delete(r.epochs, it.id)
		delete(s.retired, it.id)
	case itemClock:
		r.seen(it.at)
	case itemRate:
		r.seen(it.at)
		w := s.windows[it.window]
		if w == nil {
			w = new(window)
			s.windows[it.window] = w
		}
		w.Add(it.at, it.width, it.cost)
	case itemReset:
		delete(s.windows, it.window)
	case itemUsage:
		r.usage(it)
	case itemOnce:
		r.seen(it.at)
		s.once[onceKey{it.key, it.once}] = it.at
	case itemForgot:
		delete(s.once, onceKey{it.key, it.once})
	}
}

func (r *replay) seen(at int64) { r.loading.newest = max(r.loading.newest, at) }

func (r *replay) usage(it *item) {
	tallies := r.shard.retired[r.epoch]
	if tallies == nil {
		tallies = make(map[quota.Key]*tally)
		r.shard.retired[r.epoch] = tallies
	}
	tallies[it.key] = &tally{
		account: quota.Subject(it.account), end: it.end,
		spent: it.spent, refunded: it.refunded, dirty: true,
	}
}
