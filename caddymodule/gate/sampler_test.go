package gate

import (
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// clock is a zapcore.Clock that stands still.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time                         { return c.now }
func (c *clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

func TestSampled(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, thereafter uint64
		want              []int64 // of ten lines, in each of two ticks
	}{
		"first alone":     {1, 0, []int64{0, 10}},
		"none":            {0, 0, nil},
		"first and some":  {2, 3, []int64{0, 1, 4, 7, 10, 11, 14, 17}},
		"more than comes": {10, 0, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, lines := observer.New(zapcore.InfoLevel)
			c := &clock{time.Unix(1_000_000_000, 0)}
			log := Sampled(zap.New(core, zap.WithClock(c)), time.Second, tc.first, tc.thereafter)
			with := log.With(zap.Bool("with", true))
			for i := range int64(20) {
				if i == 10 {
					c.now = c.now.Add(time.Second)
				}
				log.Debug("seldom")
				if i%2 == 0 {
					log.Info("often", zap.Int64("i", i))
				} else {
					with.Info("often", zap.Int64("i", i)) // counts with the others
				}
			}
			log.Info("another")
			var got []int64
			for _, e := range lines.FilterMessage("often").All() {
				got = append(got, e.ContextMap()["i"].(int64))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if n := lines.FilterMessage("another").Len(); n != int(min(1, tc.first)) {
				t.Errorf("%d lines of another message", n)
			}
			if n := lines.FilterMessage("seldom").Len(); n != 0 {
				t.Errorf("%d lines below the level", n)
			}
		})
	}
}

// A config that was replaced may stay in memory for minutes, so its loggers must be small.
func TestSampledIsSmall(t *testing.T) {
	const loggers = 100
	kept := make([]*zap.Logger, loggers)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = Sampled(zap.NewNop(), time.Second, 20, 100)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / loggers; each > 16<<10 {
		t.Errorf("a sampled logger takes %d bytes", each)
	}
	runtime.KeepAlive(kept)
}
