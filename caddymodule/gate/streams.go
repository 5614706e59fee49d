package gate

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"golang.org/x/sync/errgroup"
)

// sweepEvery bounds how long a stream outlives its caller's right to it where
// no change was announced (a revocation by time or in the host's own tables).
const sweepEvery = 2 * time.Second

// sweepers is how many callers are looked up at a time.
const sweepers = 8

// Streams are the open answers that may last: event streams and hijacked
// connections. They are closed when their caller is suspended or its session
// revoked.
type Streams struct {
	rt     *Runtime
	mu     sync.Mutex
	open   map[*Stream]struct{}
	wakeup chan struct{}
}

// Stream is one open answer.
type Stream struct {
	principal *quota.Principal
	streams   *Streams
	mu        sync.Mutex // held while close runs: Done waits, so the answer is still there
	close     func()     // nil once it was called or is not to be
}

func newStreams(rt *Runtime) *Streams {
	return &Streams{rt: rt, open: map[*Stream]struct{}{}, wakeup: make(chan struct{}, 1)}
}

// Add registers an answer to p; closeNow is called at most once, from another
// goroutine, and never after Done has returned. It must not call Done.
func (s *Streams) Add(p *quota.Principal, closeNow func()) *Stream {
	st := &Stream{principal: p, close: closeNow, streams: s}
	s.mu.Lock()
	s.open[st] = struct{}{}
	s.mu.Unlock()
	return st
}

// Done ends the registration.
func (st *Stream) Done() {
	st.streams.mu.Lock()
	delete(st.streams.open, st)
	st.streams.mu.Unlock()
	st.mu.Lock()
	st.close = nil
	st.mu.Unlock()
}

// interrupt closes the answer, unless it has ended.
func (st *Stream) interrupt() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.close != nil {
		st.streams.rt.Stats.StreamsClosed.Add(1)
		st.close()
		st.close = nil
	}
}

// Len is the number of open streams.
func (s *Streams) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *Streams) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

func (s *Streams) run(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var closing sync.WaitGroup
	defer closing.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.wakeup:
		}
		for _, st := range s.sweep(ctx) {
			// Each by itself: closing may wait for a client that does not read.
			closing.Go(st.interrupt)
		}
	}
}

// sweep takes the streams out whose callers have lost the right to them.
func (s *Streams) sweep(ctx context.Context) []*Stream {
	callers := s.callers(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []*Stream
	for st := range s.open {
		e := callers[st.principal.Subject]
		if e != nil && (e.Control != quota.ControlActive || e.Revoked(st.principal)) {
			lost = append(lost, st)
			delete(s.open, st)
		}
	}
	return lost
}

// callers are the entitlements of all who have a stream open, looked up side by
// side: after a change of a plan all of them are loaded.
func (s *Streams) callers(ctx context.Context) map[quota.Subject]*quota.Entitlement {
	found := map[quota.Subject]*quota.Entitlement{}
	s.mu.Lock()
	for st := range s.open {
		found[st.principal.Subject] = nil
	}
	s.mu.Unlock()
	var (
		mu sync.Mutex
		g  errgroup.Group
	)
	g.SetLimit(sweepers)
	for _, subject := range slices.Collect(maps.Keys(found)) {
		g.Go(func() error {
			e := s.rt.Entitlements.Get(ctx, subject, "")
			mu.Lock()
			found[subject] = e
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // Get does not fail
	return found
}
