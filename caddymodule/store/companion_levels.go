package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Level is what an account holds of a metric that never resets, as somebody has
// measured it.
type Level struct {
	Account quota.Subject
	Metric  string
	Value   int64 // 0..quota.MaxAmount
	// MeasuredAt is now where it is zero.
	MeasuredAt time.Time
}

// LevelError says which level could not be set.
type LevelError struct {
	Index int // of the levels given to SetLevels
	Err   error
}

func (e *LevelError) Error() string { return fmt.Sprintf("level %d: %v", e.Index, e.Err) }

// Unwrap is what is wrong with the level.
func (e *LevelError) Unwrap() error { return e.Err }

// SetLevels says what accounts hold of levels, by a reconciler's measurement, all
// of them or none; what gateways count from then on is added to it. It answers
// ErrNotLevel for a metric that is counted per period: a *LevelError says which one
// stands in the way. The audit log has one event for all of them.
func (s *Companion) SetLevels(ctx context.Context, by Actor, levels []Level) error {
	order := make([]int, len(levels))
	for i := range levels {
		if err := checkLevel(&levels[i]); err != nil {
			return fmt.Errorf("setting levels: %w", &LevelError{i, err})
		}
		order[i] = i
	}
	// By account, so that two imports never wait for each other's rows in turn.
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(levels[a].Account, levels[b].Account)
	})
	now := column.At(s.now())
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		v := &view{catalogue: c}
		log.add(AuditEvent{Action: "usage.imported", ResourceType: "usage", Metadata: map[string]any{"levels": len(levels)}})
		for _, i := range order {
			if err := putLevel(ctx, q, v, &levels[i], now); err != nil {
				return &LevelError{i, err}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("setting levels: %w", err)
	}
	return nil
}

func checkLevel(l *Level) error {
	if err := checkAccount(l.Account); err != nil {
		return err
	}
	if !quota.ValidName(l.Metric) {
		return fmt.Errorf("%w: %q", ErrUnknownMetric, l.Metric)
	}
	if err := quota.CheckAmount("value", l.Value); err != nil {
		return &InvalidError{Field: "value", Err: err}
	}
	return nil
}

func putLevel(ctx context.Context, q *sqlgen.Queries, v *view, l *Level, now column.Time) error {
	if !v.knows(l.Metric) {
		return fmt.Errorf("%w: %q", ErrUnknownMetric, l.Metric)
	}
	if !v.isLevel(l.Metric) {
		return fmt.Errorf("%w: %q", ErrNotLevel, l.Metric)
	}
	id := l.Account.ID()
	if err := q.LockAccount(ctx, sqlgen.LockAccountParams{ID: id, Kind: l.Account.Kind(), FirstSeenAt: now}); err != nil {
		return fmt.Errorf("locking the account: %w", err)
	}
	at := now
	if !l.MeasuredAt.IsZero() {
		at = column.At(l.MeasuredAt)
	}
	err := q.PutLevel(ctx, sqlgen.PutLevelParams{AccountID: id, Metric: l.Metric, Value: l.Value, MeasuredAt: at})
	if err != nil {
		return fmt.Errorf("writing usage_levels: %w", err)
	}
	return nil
}

// MeasureLevel sets one level by an admin, audited with what it was before.
func (s *Companion) MeasureLevel(ctx context.Context, by Actor, l Level, reason string) (before int64, err error) {
	if err := checkLevel(&l); err != nil {
		return 0, err
	}
	now := s.now()
	if l.MeasuredAt.After(now.Add(maxSkew)) {
		return 0, invalid("measured_at", "is in the future")
	}
	if !l.MeasuredAt.IsZero() && l.MeasuredAt.Year() < 1970 {
		return 0, invalid("measured_at", "is before 1970")
	}
	err = s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		// First: what another admin sets meanwhile is what was before.
		account := sqlgen.LockAccountParams{ID: l.Account.ID(), Kind: l.Account.Kind(), FirstSeenAt: column.At(now)}
		if err := q.LockAccount(ctx, account); err != nil {
			return fmt.Errorf("locking the account: %w", err)
		}
		key := quota.UsageKey{Metric: l.Metric, Period: quota.PeriodNone}
		if before, err = usageOf(ctx, q, l.Account, key); err != nil {
			return err
		}
		if err := putLevel(ctx, q, &view{catalogue: c}, &l, column.At(now)); err != nil {
			return err
		}
		before = max(0, before)
		log.add(AuditEvent{
			Action: "usage.level_set", ResourceType: "account", ResourceID: l.Account.ID(), Account: l.Account.ID(), Reason: reason,
			Changes:  map[string]AuditChange{l.Metric: {From: before, To: l.Value}},
			Metadata: map[string]any{"measured_at": auditTime(column.At(l.MeasuredAt))},
		})
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("setting level: %w", err)
	}
	return before, nil
}

// maxSkew is by how much another clock may be ahead of ours.
const maxSkew = 5 * time.Minute
