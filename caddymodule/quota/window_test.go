package quota

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

type event struct{ at, cost int64 }

// drawWindow favours lengths that the bucket width does not divide.
func drawWindow(t *rapid.T) int64 {
	return rapid.OneOf(
		rapid.SampledFrom([]int64{10, 11, 12, 19, 20, 21, 99, 100, 101, 999, 1000, 60_000, 3_600_000}),
		rapid.Int64Range(10, 100_000),
	).Draw(t, "window")
}

// drawStart is an instant at, before or after a bucket's edge.
func drawStart(t *rapid.T, width int64) int64 {
	return 1_700_000_000_000/width*width + rapid.SampledFrom([]int64{0, 1, width / 2, width - 1}).Draw(t, "phase")
}

// drawGap is mostly one of the distances at which windows of the usual kinds
// admit too much; random gaps do not find those.
func drawGap(t *rapid.T, window, width int64) int64 {
	return rapid.OneOf(
		rapid.SampledFrom([]int64{
			0, 0, 1, window / 2, window - 1, window, window + 1,
			width - 1, width, width + 1, Buckets * width, (Buckets + 1) * width, (Buckets+1)*width - 1, 2 * window,
		}),
		rapid.Int64Range(0, 2*window),
	).Draw(t, "gap")
}

// TestWindowModel compares the window with a log of all that was admitted.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		length := drawWindow(t)
		width := BucketWidth(time.Duration(length) * time.Millisecond)
		limit := rapid.Int64Range(1, 30).Draw(t, "limit")
		now := drawStart(t, width)
		var (
			w   Window
			log []event
		)
		for range rapid.IntRange(1, 120).Draw(t, "requests") {
			now += drawGap(t, length, width)
			cost := rapid.SampledFrom([]int64{1, 1, 1, 2, 3, limit, limit + 1}).Draw(t, "cost")
			var counted, within, idle int64
			for _, e := range log {
				if e.at/width >= now/width-Buckets {
					counted += e.cost
				}
				if e.at >= now-length {
					within += e.cost
				}
				if e.at > now-2*length {
					idle += e.cost
				}
			}
			sum := w.Sum(now, width)
			if sum != counted {
				t.Fatalf("sum %d, the log says %d", sum, counted)
			}
			if sum+cost <= limit {
				// Strict: the span is closed at both ends, a millisecond more than promised.
				if within+cost > limit {
					t.Fatalf("%d admitted within %d ms, the limit is %d", within+cost, length, limit)
				}
				if wait := w.Wait(now, width, limit, cost); wait != 0 {
					t.Fatalf("a wait of %s for what fits", wait)
				}
				w.Add(now, width, cost)
				log = append(log, event{now, cost})
				continue
			}
			if cost <= limit && idle+cost <= limit {
				t.Fatalf("refused though only %d were admitted within two windows", idle)
			}
			checkWait(t, w, now, width, limit, cost)
		}
		checkRestored(t, w, now, width)
	})
}

// checkWait proves that the wait is true to the millisecond. w is a copy.
func checkWait(t *rapid.T, w Window, now, width, limit, cost int64) {
	wait := w.Wait(now, width, limit, cost)
	if cost > limit {
		if wait >= 0 {
			t.Fatalf("a wait of %s for a cost above the limit", wait)
		}
		return
	}
	if wait <= 0 || wait%time.Millisecond != 0 {
		t.Fatalf("a wait of %s for what does not fit", wait)
	}
	ms := wait.Milliseconds()
	if early := w; early.Sum(now+ms-1, width)+cost <= limit {
		t.Fatalf("it fits 1 ms before %d ms have passed", ms)
	}
	if w.Sum(now+ms, width)+cost > limit {
		t.Fatalf("it does not fit after %d ms", ms)
	}
}

// checkRestored proves that the events restore the window. w is a copy.
func checkRestored(t *rapid.T, w Window, now, width int64) {
	var restored Window
	last := int64(-1)
	w.Events(now, func(at, count int64) {
		if at <= last || at > now || count <= 0 {
			t.Fatalf("event %d at %d after %d, now %d", count, at, last, now)
		}
		last = at
		restored.Add(at, width, count)
	})
	for ; !w.Idle(now); now += width {
		for _, at := range []int64{now, now + 1, now + width - 1} {
			a, b := w, restored
			if a, b := a.Sum(at, width), b.Sum(at, width); a != b {
				t.Fatalf("restored %d at %d, was %d", b, at, a)
			}
		}
	}
	if sum := w.Sum(now, width); sum != 0 {
		t.Fatalf("an idle window counts %d", sum)
	}
}

// TestWindowEven: half of the limit, evenly spaced, is never refused.
func TestWindowEven(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		length := drawWindow(t)
		width := BucketWidth(time.Duration(length) * time.Millisecond)
		half := rapid.Int64Range(1, min(length, 200)).Draw(t, "half")
		gap := (length + half - 1) / half
		now := drawStart(t, width)
		var w Window
		for i := range 5 * half {
			if sum := w.Sum(now, width); sum+1 > 2*half {
				t.Fatalf("request %d of one each %d ms is refused at %d of %d", i, gap, sum, 2*half)
			}
			w.Add(now, width, 1)
			now += gap
		}
	})
}

// TestWindowIdle: two idle windows give back the whole limit, whatever was before.
func TestWindowIdle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		length := drawWindow(t)
		width := BucketWidth(time.Duration(length) * time.Millisecond)
		now := drawStart(t, width)
		var w Window
		for range rapid.IntRange(1, 20).Draw(t, "requests") {
			w.Add(now, width, 1)
			now += rapid.Int64Range(0, length).Draw(t, "gap")
		}
		w.Add(now, width, 1)
		if sum := w.Sum(now+2*length, width); sum != 0 {
			t.Fatalf("%d of the limit are missing after two windows of %d ms", sum, length)
		}
	})
}

// TestWindowChange: a window that is lengthened, shortened or restored to what
// it was stays strict for everything admitted since, and forgets nothing that counted.
func TestWindowChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 20).Draw(t, "limit")
		now := int64(1_700_000_000_000)
		var (
			w   Window
			log []event
		)
		for range rapid.IntRange(2, 5).Draw(t, "changes") {
			length := drawWindow(t)
			width := BucketWidth(time.Duration(length) * time.Millisecond)
			if w.Width() != 0 {
				old := w
				before := old.Sum(now, w.Width())
				if after := w.Sum(now, width); after != before {
					t.Fatalf("%d counted before the change, %d after", before, after)
				}
			}
			log = log[:0]
			for range rapid.IntRange(0, 40).Draw(t, "requests") {
				now += drawGap(t, length, width)
				if w.Sum(now, width)+1 > limit {
					continue
				}
				w.Add(now, width, 1)
				log = append(log, event{now, 1})
				var within int64
				for _, e := range log {
					if e.at >= now-length {
						within++
					}
				}
				if within > limit {
					t.Fatalf("%d admitted within %d ms, the limit is %d", within, length, limit)
				}
			}
		}
	})
}

// TestWindowClockBack: a clock that goes back within a window gives nothing back and counts into the newest bucket.
func TestWindowClockBack(t *testing.T) {
	t.Parallel()
	const width = 100
	var w Window
	w.Add(5_000, width, 3)
	for _, back := range []int64{4_999, 4_500, 4_000} {
		if sum := w.Sum(back, width); sum != 3 {
			t.Errorf("%d counted at %d", sum, back)
		}
	}
	w.Add(4_000, width, 2)
	if sum := w.Sum(6_099, width); sum != 5 {
		t.Errorf("%d counted in the last millisecond of the newest bucket", sum)
	}
	if sum := w.Sum(6_100, width); sum != 0 {
		t.Errorf("%d counted when the newest bucket has left", sum)
	}
}

func TestWindowZero(t *testing.T) {
	t.Parallel()
	var w Window
	if !w.Idle(0) || w.Width() != 0 {
		t.Error("the zero window is in use")
	}
	w.Events(0, func(int64, int64) { t.Error("the zero window has events") })
	for _, now := range []int64{0, 1, -1, -1_000_000} {
		var w Window
		w.Add(now, 10, 1)
		if sum := w.Sum(now, 10); sum != 1 {
			t.Errorf("%d counted at %d", sum, now)
		}
	}
}

func TestBucketWidth(t *testing.T) {
	t.Parallel()
	for window, want := range map[time.Duration]int64{
		10 * time.Millisecond: 1, 11 * time.Millisecond: 2, 20 * time.Millisecond: 2, 21 * time.Millisecond: 3,
		time.Second: 100, time.Minute: 6_000, time.Hour: 360_000, MaxWindow: 3_456_000_000,
	} {
		if got := BucketWidth(window); got != want {
			t.Errorf("%s: %d ms, want %d", window, got, want)
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	var w Window
	now := int64(1_700_000_000_000)
	b.ReportAllocs()
	for b.Loop() {
		now += 7
		if w.Sum(now, 6_000)+1 <= 1_000 {
			w.Add(now, 6_000, 1)
		}
	}
}

// A clock that was ahead by more than a window holds nobody up for longer than
// that, and forgets nothing.
func TestWindowOfAClockThatWentBack(t *testing.T) {
	t.Parallel()
	const width, window = 100, 1000
	var w Window
	w.Add(50_000_000, width, 3)
	w.Add(50_000_150, width, 4)
	now := int64(1_000_000)
	if got := w.Sum(now, width); got != 7 {
		t.Errorf("%d are counted, want all 7", got)
	}
	wait := w.Wait(now, width, 7, 1)
	if wait <= 0 || wait > (window+width)*time.Millisecond {
		t.Errorf("waits %s for a window of %d ms", wait, window)
	}
	if got := w.Sum(now+wait.Milliseconds()-1, width); got != 7 {
		t.Errorf("%d are counted before the end", got)
	}
	if got := w.Sum(now+wait.Milliseconds(), width); got != 0 {
		t.Errorf("%d are counted after it", got)
	}
}
