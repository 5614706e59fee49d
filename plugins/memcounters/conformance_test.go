package memcounters

import (
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// fakeClock is a clock that a test moves.
type fakeClock struct {
	mu sync.Mutex
	t  time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{t: time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)}
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// openTest opens an engine that is closed when the test ends.
func openTest(t *testing.T, o Options) *Engine {
	t.Helper()
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestConformance(t *testing.T) {
	t.Parallel()
	gatetest.RunCounters(t, func(t *testing.T) *gatetest.Counters {
		clock := newFakeClock()
		e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
		return &gatetest.Counters{Engine: e, Now: clock.now, Advance: clock.advance}
	})
}

// TestConformancePlain counts with a log that is written to, not stored in.
func TestConformancePlain(t *testing.T) {
	t.Parallel()
	gatetest.RunCounters(t, func(t *testing.T) *gatetest.Counters {
		clock := newFakeClock()
		e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now, open: openPlain})
		return &gatetest.Counters{Engine: e, Now: clock.now, Advance: clock.advance}
	})
}

// TestConformanceRealClock also rewrites the log all the time.
func TestConformanceRealClock(t *testing.T) {
	t.Parallel()
	gatetest.RunCounters(t, func(t *testing.T) *gatetest.Counters {
		e := openTest(t, Options{Dir: t.TempDir(), SnapshotBytes: 1})
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					e.maintain()
				}
			}
		}()
		t.Cleanup(func() { close(stop); <-done })
		return &gatetest.Counters{Engine: e, Now: time.Now, Advance: time.Sleep, Real: true}
	})
}
