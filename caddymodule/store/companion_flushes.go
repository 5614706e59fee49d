package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

const (
	// flushLook is the interval between two looks at whether gateways have flushed.
	flushLook = 50 * time.Millisecond
	// flushPatience is how long gateways that live are waited for.
	flushPatience = 10 * time.Second
)

// ErrUnflushed says that a gateway lives and has not written what it had counted.
var ErrUnflushed = errors.New("a gateway that lives has not written in time what it has counted")

// AwaitFlushes returns when the records hold what gateways had counted before the
// call, all but the process own, which flushes by itself: whoever measures does not
// count it twice. Gateways write all that they have counted each second, in one flush
// or several, the last of which is numbered. One such round may be under way and lack
// the latest, so that the one after it is waited for. A gateway that falls silent for
// DeadAfter is waited for no longer. Errors: ErrUnflushed.
func (s *Companion) AwaitFlushes(ctx context.Context, own string) error {
	waiting, err := s.latestFlushes(ctx, own)
	if err != nil {
		return fmt.Errorf("waiting for flushes: %w", err)
	}
	patience := time.NewTimer(flushPatience)
	defer patience.Stop()
	look := time.NewTicker(flushLook)
	defer look.Stop()
	flushed := map[string]bool{} // once
	for len(waiting) > 0 {
		select {
		case <-look.C:
		case <-patience.C:
			return fmt.Errorf("waiting for flushes: %w", ErrUnflushed)
		case <-ctx.Done():
			return fmt.Errorf("waiting for flushes: %w", context.Cause(ctx))
		}
		now, err := s.latestFlushes(ctx, own)
		if err != nil {
			return fmt.Errorf("waiting for flushes: %w", err)
		}
		for process, before := range waiting {
			switch latest, lives := now[process]; {
			case lives && latest <= before:
			case lives && !flushed[process]:
				waiting[process], flushed[process] = latest, true
			default:
				delete(waiting, process)
			}
		}
	}
	return nil
}

// latestFlushes are the numbers of the latest round of each living process but own.
func (s *Companion) latestFlushes(ctx context.Context, own string) (map[string]int64, error) {
	latest := map[string]int64{}
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.LatestFlushes(ctx, sqlgen.LatestFlushesParams{LastSeenAt: column.At(now.Add(-DeadAfter)), Process: text(own)})
		for _, r := range rows {
			latest[r.Process] = r.FlushSeq
		}
		return err
	})
	return latest, err
}
