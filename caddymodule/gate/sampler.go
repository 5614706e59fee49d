package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Sampled limits how often the log writes the same message: in each tick the
// first lines, then every thereafter-th; 0: none.
//
// It does what zap's own sampler does, in a few bytes where that takes half a
// megabyte. Each config has several, and a replaced config stays in memory as
// long as a connection to its backends is open, so that frequent reloads added
// up. It keeps one entry per message, so messages must be constants.
func Sampled(log *zap.Logger, tick time.Duration, first, thereafter uint64) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return &sampler{c, &sampling{tick: int64(tick), first: first, thereafter: thereafter}}
	}))
}

// sampler is a core with a sampling, which the cores made by With share.
type sampler struct {
	zapcore.Core
	*sampling
}

type sampling struct {
	tick              int64 // nanoseconds
	first, thereafter uint64
	messages          sync.Map // of *occurrences, by message
}

type occurrences struct {
	until atomic.Int64 // end of the tick, in nanoseconds of the Unix epoch
	n     atomic.Uint64
}

// With implements zapcore.Core.
func (s *sampler) With(fields []zapcore.Field) zapcore.Core {
	return &sampler{s.Core.With(fields), s.sampling}
}

// Check implements zapcore.Core.
func (s *sampler) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !s.Enabled(e.Level) || !s.passes(e.Message, e.Time.UnixNano()) {
		return ce
	}
	return s.Core.Check(e, ce)
}

func (s *sampling) passes(message string, now int64) bool {
	v, ok := s.messages.Load(message)
	if !ok {
		v, _ = s.messages.LoadOrStore(message, new(occurrences))
	}
	o, ok := v.(*occurrences)
	if !ok {
		return true // nothing else is stored
	}
	// Of those who meet the end of a tick one begins the next: the others count in it.
	if until := o.until.Load(); now >= until && o.until.CompareAndSwap(until, now+s.tick) {
		o.n.Store(0)
	}
	n := o.n.Add(1)
	return n <= s.first || s.thereafter > 0 && (n-s.first)%s.thereafter == 0
}
