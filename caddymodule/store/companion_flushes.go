package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// flushLook is the interval between two looks at whether gateways have flushed.
const flushLook = 50 * time.Millisecond

// AwaitFlushes returns when the records hold what gateways had counted before the
// call, all but the process own, which flushes by itself: whoever measures does not
// count it twice. Gateways flush each second; a flush may be under way and lack the
// latest, so that the one after it is waited for. One that is silent for DeadAfter
// is waited for no longer.
func (s *Companion) AwaitFlushes(ctx context.Context, own string) error {
	waiting, err := s.heartbeats(ctx, own)
	if err != nil {
		return fmt.Errorf("waiting for flushes: %w", err)
	}
	enough := time.NewTimer(DeadAfter)
	defer enough.Stop()
	look := time.NewTicker(flushLook)
	defer look.Stop()
	flushed := map[string]bool{} // once
	for len(waiting) > 0 {
		select {
		case <-look.C:
		case <-enough.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("waiting for flushes: %w", context.Cause(ctx))
		}
		now, err := s.heartbeats(ctx, own)
		if err != nil {
			return fmt.Errorf("waiting for flushes: %w", err)
		}
		for process, before := range waiting {
			switch latest, lives := now[process]; {
			case lives && !latest.After(before.Time):
			case lives && !flushed[process]:
				waiting[process], flushed[process] = latest, true
			default:
				delete(waiting, process)
			}
		}
	}
	return nil
}

// heartbeats are the latest of each living process but own. Each flush is one.
func (s *Companion) heartbeats(ctx context.Context, own string) (map[string]column.Time, error) {
	latest := map[string]column.Time{}
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.Heartbeats(ctx, sqlgen.HeartbeatsParams{LastSeenAt: column.At(now.Add(-DeadAfter)), Process: text(own)})
		for _, r := range rows {
			latest[r.Process] = r.LastSeenAt
		}
		return err
	})
	return latest, err
}
