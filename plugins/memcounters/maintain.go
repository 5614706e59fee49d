package memcounters

import (
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// run keeps the log short and on the disk, and memory bounded, until Close.
func (e *Engine) run() {
	defer close(e.done)
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-t.C:
			e.maintain()
		}
	}
}

// maintain does what is due. Faults are logged when they begin and reported by
// Ping while they last.
func (e *Engine) maintain() {
	e.maintaining.Lock()
	defer e.maintaining.Unlock()
	if dayOf(e.now()) > e.day {
		e.rotate()
	}
	e.report(e.keepAll())
	now := e.now().UnixMilli()
	// One shard each tick: a sweep holds its lock.
	s := &e.shards[e.sweeping]
	e.sweeping = (e.sweeping + 1) % shards
	s.mu.Lock()
	s.sweep(now)
	s.mu.Unlock()
}

// keepAll keeps all log files.
func (e *Engine) keepAll() error {
	var first error
	swapped := false
	for i := range e.shards {
		done, err := e.keep(i)
		if err != nil && first == nil {
			first = err
		}
		swapped = swapped || done
	}
	if swapped {
		if err := syncDir(e.opts.Dir); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// report logs when the log begins to fail, and when it works again.
func (e *Engine) report(err error) {
	switch {
	case err != nil && !e.failing:
		e.opts.Log.Error("the counters' log cannot be kept: counting goes on in memory, "+
			"and a restart would lose what is not in the log", zap.String("dir", e.opts.Dir), zap.Error(err))
	case err == nil && e.failing:
		e.opts.Log.Info("the counters' log is whole again", zap.String("dir", e.opts.Dir))
	}
	e.failing = err != nil
}

// keep brings one log file to the disk, or rewrites it where it is long or
// broken. It reports whether the file was replaced.
func (e *Engine) keep(index int) (swapped bool, err error) {
	s := &e.shards[index]
	s.mu.Lock()
	rewrite := s.log.broken != nil || s.log.full(e.opts.SnapshotBytes)
	f, unsynced := s.log.file, s.log.unsynced
	s.log.unsynced = false
	s.mu.Unlock()
	if rewrite {
		return e.snapshot(index)
	}
	if !unsynced {
		return false, nil
	}
	if err = f.Sync(); err != nil {
		s.mu.Lock()
		s.log.unsynced = true
		if s.log.broken == nil { // after a failed fsync the file's content is unknown
			s.log.broken = err
		}
		s.mu.Unlock()
	}
	return false, err
}

// snapshot rewrites a shard's file with what is still true. Requests wait while
// the shard is copied in memory, never for the disk.
func (e *Engine) snapshot(index int) (swapped bool, err error) {
	s := &e.shards[index]
	s.mu.Lock()
	image := e.image(s, index, e.now())
	s.log.copying, s.log.tail = true, s.log.tail[:0]
	path, segment := s.log.path, s.log.segment
	s.mu.Unlock()

	f, err := writeImage(e.opts.open, path, segment, image)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.copying = false
	if err != nil {
		s.log.unsynced = true
		return false, err
	}
	old := s.log.file
	err = s.log.swap(f, int64(len(image)))
	if err != nil {
		s.log.unsynced = true
	}
	return s.log.file != old, err
}

// image is a whole log file that holds what is true of the shard now.
func (e *Engine) image(s *shard, index int, now time.Time) []byte {
	w := imageWriter{b: appendHeader(nil, index, shards)}
	ms := now.UnixMilli()
	w.frame = appendClock(w.room(), ms)
	for _, id := range e.retiring {
		w.frame = appendEpoch(w.room(), itemEpoch, id)
		for k, t := range s.retired[id] {
			w.frame = appendUsage(w.room(), k, t)
		}
	}
	w.frame = appendEpoch(w.room(), itemEpoch, e.current)
	for k, u := range s.usage {
		w.usage(k, u)
	}
	for k, window := range s.windows {
		w.window(k, window, ms)
	}
	for k, at := range s.once {
		w.frame = appendOnce(w.room(), k, at)
	}
	w.flush()
	return w.b
}

// imageWriter cuts items into frames of moderate size.
type imageWriter struct {
	b     []byte
	frame []byte
}

// room is a frame to append one item to.
func (w *imageWriter) room() []byte {
	if len(w.frame) >= imageFrame {
		w.flush()
	}
	if len(w.frame) == 0 {
		w.frame = beginFrame(w.frame)
	}
	return w.frame
}

// usage writes the totals of a counter under its name. What has none gets none:
// the old file, which is in use until the image is whole, would not know it. Nor
// does the image know a counter that it leaves out.
func (w *imageWriter) usage(k quota.Key, u *usage) {
	switch {
	case u.spent == 0 && u.refunded == 0:
		u.name = 0
	case u.name == 0:
		w.frame = appendUsage(w.room(), k, &u.tally)
	default:
		w.frame = appendNamedUsage(w.room(), u.name, k, &u.tally)
	}
}

// window writes what is counted in a window, likewise.
func (w *imageWriter) window(k windowKey, of *window, now int64) {
	width, name := of.Width(), of.name
	if of.width != width {
		name = 0
	}
	of.name = 0
	of.Events(now, func(at, count int64) {
		switch {
		case name == 0:
			w.frame = appendRate(w.room(), k, at, width, count)
		case of.name == 0:
			of.name = name
			w.frame = appendNamedRate(w.room(), name, k, at, width, count)
		default:
			w.frame = appendHit(w.room(), name, at, count)
		}
	})
}

func (w *imageWriter) flush() {
	w.frame = endFrame(w.frame)
	w.b = append(w.b, w.frame...)
	w.frame = w.frame[:0]
}

// dayOf is the UTC day of t, counted from 1970.
func dayOf(t time.Time) int64 {
	const day = 24 * 60 * 60
	return t.Unix() / day
}

// rotate ends the current epoch and begins another: what it counted goes to the
// records a last time. Counters keep what is used; those whose period has ended,
// or that nobody touched since the last rotation, leave memory. All requests
// wait for it, once a day.
func (e *Engine) rotate() {
	e.ledger.Lock()
	defer e.ledger.Unlock()
	e.lockAll()
	defer e.unlockAll()
	now := e.now()
	ended := e.current
	e.retiring = append(e.retiring, ended)
	e.current, e.day = newEpoch(now), dayOf(now)
	gen := e.generation.Add(1)
	for i := range e.shards {
		s := &e.shards[i]
		s.retire(ended, now.Unix())
		s.minGen = gen
		s.log.begin()
		s.log.frame = appendEpoch(s.log.frame, itemEpoch, e.current)
		s.log.commit()
	}
}

// retire moves the tallies of the current epoch to the ended ones.
func (s *shard) retire(epoch string, now int64) {
	tallies := make(map[quota.Key]*tally)
	for k, u := range s.usage {
		if u.spent != 0 || u.refunded != 0 {
			t := u.tally
			tallies[k] = &t
		}
		if !u.touched || (u.key.Period != quota.PeriodNone && u.end <= now) {
			delete(s.usage, k)
			continue
		}
		u.spent, u.refunded, u.dirty, u.touched = 0, 0, false, false
	}
	s.retired[epoch] = tallies
	clear(s.dirty)
	s.dirty = s.dirty[:0]
}
