package pgrecords

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// channel is what the triggers of our tables notify, with the number of the change.
const channel = "quotagate_changes"

const (
	// listenAgain is the pause before a listener that failed connects again.
	listenAgain = time.Second
	// deafAfter is how many looks in a row may find changes of which nobody told
	// before the connection is taken for dead and made again.
	deafAfter = 2
)

// listener tells of changes as they are announced. Nothing depends on it: what
// it misses is found by looking.
type listener struct {
	config *pgx.ConnConfig
	every  time.Duration
	log    *zap.Logger

	newest atomic.Int64  // the highest number that was announced
	told   chan struct{} // has a place for one
	// begun: it listens from now on, and what was changed before has to be looked for.
	begun atomic.Bool
	deaf  chan struct{} // has a place for one: connect again
	look  <-chan struct{}

	// Of wait alone.
	seen   int64 // what the look before had found
	timed  bool  // the latest wait ended by its time
	missed int
}

func newListener(r *Records, look <-chan struct{}) *listener {
	return &listener{
		config: r.m.listener, every: time.Duration(r.m.PollInterval), log: r.log,
		told: make(chan struct{}, 1), deaf: make(chan struct{}, 1), look: look,
	}
}

// wait returns when a change beyond after was announced, somebody asks to look,
// the poll interval is over, or ctx ends.
func (l *listener) wait(ctx context.Context, after int64) {
	if l.timed && after > l.seen && l.newest.Load() < after {
		if l.missed++; l.missed == deafAfter {
			signal(l.deaf)
		}
	} else if l.newest.Load() >= after {
		l.missed = 0
	}
	l.seen, l.timed = after, false
	timer := time.NewTimer(l.every)
	defer timer.Stop()
	for {
		select {
		case <-l.told:
			if l.begun.Swap(false) || l.newest.Load() > after {
				return
			}
		case <-l.look:
			return
		case <-timer.C:
			l.timed = true
			return
		case <-ctx.Done():
			return
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run listens until ctx ends, and connects again whenever it is cut off.
func (l *listener) run(ctx context.Context) {
	down := false
	for {
		heard := func() {
			if down {
				l.log.Info("changes of the records are announced again")
			}
			down = false
		}
		err := l.listen(ctx, heard)
		if ctx.Err() != nil {
			return
		}
		if !down {
			l.log.Warn("changes of the records are not announced; they are looked for instead",
				zap.Duration("every", l.every), zap.Error(err))
		}
		down = true
		select {
		case <-time.After(listenAgain):
		case <-ctx.Done():
			return
		}
	}
}

// listen is one connection, from its making to its end.
func (l *listener) listen(ctx context.Context, heard func()) error {
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing of it is needed any more
	}()
	starting, cancel := context.WithTimeout(ctx, l.config.ConnectTimeout)
	_, err = conn.Exec(starting, "LISTEN "+channel)
	cancel()
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	heard()
	l.begun.Store(true)
	signal(l.told)
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	stopped := make(chan struct{})
	defer func() { giveUp(); <-stopped }()
	go func() {
		defer close(stopped)
		select {
		case <-l.deaf:
			giveUp()
		case <-waiting.Done():
		}
	}()
	for {
		n, err := conn.WaitForNotification(waiting)
		if err != nil {
			if ctx.Err() == nil && waiting.Err() != nil {
				return fmt.Errorf("nothing was heard of changes that were made")
			}
			return fmt.Errorf("waiting for notifications: %w", err)
		}
		if seq, err := strconv.ParseInt(n.Payload, 10, 64); err == nil && seq > l.newest.Load() {
			l.newest.Store(seq)
		}
		signal(l.told)
	}
}
