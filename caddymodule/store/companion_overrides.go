package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// MaxOverrides is how many overrides an account may have that are not over.
const MaxOverrides = 100

// ErrTooManyOverrides says that the account has MaxOverrides already (409).
var ErrTooManyOverrides = errors.New("too many overrides")

// QuotaOverride changes an account's limit of one metric for a time.
type QuotaOverride struct {
	ID, Metric string
	Mode       string // ModeSet or ModeAdd
	Limit      int64  // 0..quota.MaxAmount
	Unlimited  bool   // ModeSet only
	Starts     time.Time
	Expires    time.Time // zero: never
	Reason, By string
	// Matches is asked for the version of the overrides that the account has before
	// this one is added, see OverridesVersion; nil: any (ErrChanged).
	Matches func(version string) bool
}

// RateOverride takes the place of an account's limit of one scope for a time.
type RateOverride struct {
	ID, Scope  string
	Rate       quota.Rate // whole seconds
	Starts     time.Time
	Expires    time.Time // zero: never
	Reason, By string
	// Matches is asked for the version of the overrides that the account has before
	// this one is added, see OverridesVersion; nil: any (ErrChanged).
	Matches func(version string) bool
}

// AddQuotaOverride changes the account's limit of a metric for a time and
// returns the override's id. A zero Starts is now. Answers: ErrUnknownMetric,
// ErrTooManyOverrides, ErrChanged, *InvalidError.
func (s *Companion) AddQuotaOverride(ctx context.Context, by Actor, account quota.Subject, o QuotaOverride) (string, error) {
	id, err := s.addOverride(ctx, by, account, overriding{o.Metric, o.Starts, o.Expires, o.Reason, o.Matches}, func(q *sqlgen.Queries, id string, starts column.Time) (map[string]any, error) {
		switch {
		case o.Mode != ModeSet && o.Mode != ModeAdd:
			return nil, invalid("mode", "%q is neither %q nor %q", o.Mode, ModeSet, ModeAdd)
		case o.Unlimited && o.Mode != ModeSet:
			return nil, invalid("limit", "a top-up cannot be unlimited")
		}
		if err := quota.CheckAmount("limit", o.Limit); err != nil {
			return nil, &InvalidError{Field: "limit", Err: err}
		}
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return nil, err
		}
		if !(&view{catalogue: c}).knows(o.Metric) {
			return nil, fmt.Errorf("%w: %q", ErrUnknownMetric, o.Metric)
		}
		limit := sql.NullInt64{Int64: o.Limit, Valid: !o.Unlimited}
		err = q.InsertQuotaOverride(ctx, sqlgen.InsertQuotaOverrideParams{
			ID: id, AccountID: account.ID(), Metric: o.Metric, Mode: o.Mode, LimitValue: limit,
			StartsAt: starts, ExpiresAt: column.At(o.Expires), Reason: said(o.Reason), CreatedBy: text(by.who()),
		})
		return map[string]any{"metric": o.Metric, "mode": o.Mode, "limit": orUnlimited(limit)}, err
	})
	if err != nil {
		return "", fmt.Errorf("adding quota override: %w", err)
	}
	return id, nil
}

func orUnlimited(limit sql.NullInt64) any {
	if !limit.Valid {
		return Unlimited
	}
	return limit.Int64
}

// AddRateOverride changes the account's limit of a scope for a time and returns
// the override's id. A zero Starts is now. Answers: ErrTooManyOverrides,
// ErrChanged, *InvalidError.
func (s *Companion) AddRateOverride(ctx context.Context, by Actor, account quota.Subject, o RateOverride) (string, error) {
	id, err := s.addOverride(ctx, by, account, overriding{o.Scope, o.Starts, o.Expires, o.Reason, o.Matches}, func(q *sqlgen.Queries, id string, starts column.Time) (map[string]any, error) {
		if o.Rate.Window%time.Second != 0 {
			return nil, invalid("window", "%s is not a whole number of seconds", o.Rate.Window)
		}
		seconds := int64(o.Rate.Window / time.Second)
		if _, err := rateOf(o.Rate.Requests, seconds); err != nil {
			return nil, &InvalidError{Field: "window", Err: err}
		}
		err := q.InsertRateOverride(ctx, sqlgen.InsertRateOverrideParams{
			ID: id, AccountID: account.ID(), Scope: o.Scope, Requests: o.Rate.Requests, WindowSeconds: seconds,
			StartsAt: starts, ExpiresAt: column.At(o.Expires), Reason: said(o.Reason), CreatedBy: text(by.who()),
		})
		return map[string]any{"scope": o.Scope, "requests": o.Rate.Requests, "window": seconds}, err
	})
	if err != nil {
		return "", fmt.Errorf("adding rate override: %w", err)
	}
	return id, nil
}

// overriding is what both kinds of overrides say.
type overriding struct {
	name            string // of the metric or scope
	starts, expires time.Time
	reason          string
	matches         func(version string) bool
}

func (s *Companion) addOverride(ctx context.Context, by Actor, account quota.Subject, o overriding,
	insert func(q *sqlgen.Queries, id string, starts column.Time) (audited map[string]any, err error)) (string, error) {
	if err := checkAccount(account); err != nil {
		return "", err
	}
	if !quota.ValidName(o.name) {
		return "", invalid("name", "%q is not the name of a metric or scope", o.name)
	}
	now := column.At(s.now())
	from := column.At(o.starts)
	if from.IsZero() {
		from = now
	}
	if err := checkTerm(now, from, o.expires); err != nil {
		return "", err
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	return id, s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		p := sqlgen.LockAccountParams{ID: account.ID(), Kind: account.Kind(), FirstSeenAt: now}
		if err := q.LockAccount(ctx, p); err != nil {
			return fmt.Errorf("locking account: %w", err)
		}
		held, err := heldOverrides(ctx, q, account.ID())
		if err != nil {
			return err
		}
		if o.matches != nil && !o.matches(versionOf(held)) {
			return ErrChanged
		}
		n, err := q.CountOverrides(ctx, sqlgen.CountOverridesParams{AccountID: account.ID(), ExpiresAt: now})
		if err != nil {
			return fmt.Errorf("counting overrides: %w", err)
		}
		if n >= MaxOverrides {
			return ErrTooManyOverrides
		}
		what, err := insert(q, id, from)
		if err != nil {
			return err
		}
		what["starts_at"], what["expires_at"] = auditTime(from), auditTime(column.At(o.expires))
		log.override("override.created", account, id, nil, what, o.reason)
		return nil
	})
}

// checkTerm refuses an override that is over before it begins, or has a time that
// does not sort as text.
func checkTerm(now, from column.Time, expires time.Time) error {
	switch latest := now.Add(maxDuration); {
	case from.After(latest) || from.Year() < 1970:
		return invalid("starts_at", "is more than a hundred years away")
	case expires.IsZero():
		return nil
	case !expires.After(from.Time):
		return invalid("expires_at", "is not after the start")
	case !expires.After(now.Time):
		return invalid("expires_at", "is in the past")
	case expires.After(latest):
		return invalid("expires_at", "is more than a hundred years away")
	}
	return nil
}

// auditTime is an instant as the audit log has it; null for none.
func auditTime(t column.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// override notes what has become of an override.
func (a *auditor) override(action string, account quota.Subject, id string, before, after any, reason string) {
	a.add(AuditEvent{
		Action: action, ResourceType: "override", ResourceID: id, Account: account.ID(), Reason: reason,
		Changes: map[string]AuditChange{"override": {From: before, To: after}},
	})
}
