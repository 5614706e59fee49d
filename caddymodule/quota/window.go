package quota

import "time"

// Buckets is how many sub-buckets divide a window. A window keeps one more than
// that, and the oldest counts whole: that is what makes the limit strict.
const Buckets = 10

// BucketWidth is the length of a window's sub-buckets: ceil(window / Buckets), in milliseconds.
func BucketWidth(window time.Duration) int64 {
	ms := window.Milliseconds()
	return (ms + Buckets - 1) / Buckets
}

// Window is the state of one strict sliding window, 11 sub-buckets aligned to
// the counter store's clock. Memory does not grow with the limit. The zero
// value is an empty window.
//
// Of any span of the window's length, wherever it begins, the buckets that are
// counted cover the whole: no more than the limit is ever admitted in it.
// The price is early denial: up to one bucket (a tenth of the window) longer
// than an exact log would.
type Window struct {
	width  int64 // bucket width in ms; 0 in a window that was never used
	newest int64 // index of the newest bucket: its time is index*width .. (index+1)*width
	counts [Buckets + 1]int64
}

// Sum is what counts against the limit at now (milliseconds of the store's clock).
func (w *Window) Sum(now, width int64) int64 {
	w.advance(now, width)
	var sum int64
	for _, c := range w.counts {
		sum += c
	}
	return sum
}

// Add counts cost at now. The caller has compared Sum with the limit.
func (w *Window) Add(now, width, cost int64) {
	w.advance(now, width)
	w.counts[slot(w.newest)] += cost
}

// Wait is how long it takes from now until enough of the oldest buckets have
// left for cost to fit below limit; negative if it never will.
func (w *Window) Wait(now, width, limit, cost int64) time.Duration {
	if cost > limit {
		return -1
	}
	sum := w.Sum(now, width)
	for i := w.newest - Buckets; i <= w.newest && sum+cost > limit; i++ {
		c := w.counts[slot(i)]
		if c == 0 {
			continue
		}
		sum -= c
		if sum+cost <= limit {
			return time.Duration((i+Buckets+1)*width-now) * time.Millisecond
		}
	}
	return 0
}

// Idle reports whether nothing is counted at now or later: the window may be dropped.
func (w *Window) Idle(now int64) bool {
	return w.width == 0 || now >= (w.newest+Buckets+1)*w.width
}

// advance drops the buckets that have left and makes now's the newest. A clock
// that went back counts into the newest bucket, never into an older one; if it went
// back by more than a window, what was counted ahead of it moves to now, or else it
// would be counted for as long as the clock was wrong.
func (w *Window) advance(now, width int64) {
	if w.width != width {
		w.rescale(now, width)
	}
	index := now / width
	if index <= w.newest {
		if w.newest-index > Buckets {
			w.restart(index)
		}
		return
	}
	if index-w.newest > Buckets {
		w.counts = [Buckets + 1]int64{}
	} else {
		for i := w.newest + 1; i <= index; i++ {
			w.counts[slot(i)] = 0
		}
	}
	w.newest = index
}

// rescale moves to buckets of another width when a plan's window changes:
// everything still counted moves to now, which errs on the side of the limit.
func (w *Window) rescale(now, width int64) {
	var kept int64
	if w.width != 0 {
		kept = w.Sum(now, w.width)
	}
	*w = Window{width: width, newest: now / width}
	w.counts[slot(w.newest)] = kept
}

// restart moves everything that is counted to one bucket.
func (w *Window) restart(index int64) {
	var kept int64
	for _, c := range w.counts {
		kept += c
	}
	*w = Window{width: w.width, newest: index}
	w.counts[slot(index)] = kept
}

func slot(index int64) int64 {
	s := index % (Buckets + 1)
	if s < 0 { // buckets before 1970 exist only in tests
		s += Buckets + 1
	}
	return s
}

// Events calls f for each bucket that still counts at now, oldest first, with
// an instant (ms) inside the bucket. Adding these to an empty window restores it.
func (w *Window) Events(now int64, f func(at, count int64)) {
	if w.width == 0 {
		return
	}
	for i := max(w.newest, now/w.width) - Buckets; i <= w.newest; i++ {
		if c := w.counts[slot(i)]; c != 0 {
			f(i*w.width, c)
		}
	}
}

// Width is the bucket width in milliseconds, 0 in an unused window.
func (w *Window) Width() int64 { return w.width }
