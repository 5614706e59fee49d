package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// AddQuotaOverride changes the account's limit of a metric for a time and
// returns the override's id. A zero Starts is now.
func (s *Store) AddQuotaOverride(ctx context.Context, account quota.Subject, o QuotaOverride) (string, error) {
	id, err := s.addOverride(ctx, account, o.Metric, o.Starts, o.Expires, func(q *sqlgen.Queries, id string, starts column.Time) error {
		if o.Mode != ModeSet && o.Mode != ModeAdd {
			return invalid("mode", "%q is neither %q nor %q", o.Mode, ModeSet, ModeAdd)
		}
		if o.Unlimited && o.Mode != ModeSet {
			return invalid("limit", "a top-up cannot be unlimited")
		}
		if err := quota.CheckAmount("limit", o.Limit); err != nil {
			return &InvalidError{Field: "limit", Err: err}
		}
		return q.InsertQuotaOverride(ctx, sqlgen.InsertQuotaOverrideParams{
			ID: id, AccountID: account.ID(), Metric: o.Metric, Mode: o.Mode,
			LimitValue: sql.NullInt64{Int64: o.Limit, Valid: !o.Unlimited}, StartsAt: starts, ExpiresAt: column.At(o.Expires),
			Reason: text(o.Reason), CreatedBy: text(o.By),
		})
	})
	if err != nil {
		return "", fmt.Errorf("adding quota override: %w", err)
	}
	return id, nil
}

// AddRateOverride changes the account's limit of a scope for a time and returns
// the override's id. A zero Starts is now.
func (s *Store) AddRateOverride(ctx context.Context, account quota.Subject, o RateOverride) (string, error) {
	id, err := s.addOverride(ctx, account, o.Scope, o.Starts, o.Expires, func(q *sqlgen.Queries, id string, starts column.Time) error {
		if o.Rate.Window%time.Second != 0 {
			return invalid("window", "%s is not a whole number of seconds", o.Rate.Window)
		}
		seconds := int64(o.Rate.Window / time.Second)
		if _, err := rateOf(o.Rate.Requests, seconds); err != nil {
			return &InvalidError{Field: "rate", Err: err}
		}
		return q.InsertRateOverride(ctx, sqlgen.InsertRateOverrideParams{
			ID: id, AccountID: account.ID(), Scope: o.Scope, Requests: o.Rate.Requests, WindowSeconds: seconds,
			StartsAt: starts, ExpiresAt: column.At(o.Expires), Reason: text(o.Reason), CreatedBy: text(o.By),
		})
	})
	if err != nil {
		return "", fmt.Errorf("adding rate override: %w", err)
	}
	return id, nil
}

func (s *Store) addOverride(ctx context.Context, account quota.Subject, name string, starts, expires time.Time,
	insert func(q *sqlgen.Queries, id string, starts column.Time) error) (string, error) {
	if err := checkAccount(account); err != nil {
		return "", err
	}
	if !quota.ValidName(name) {
		return "", invalid("name", "%q is not the name of a metric or scope", name)
	}
	now := column.At(s.now())
	from := column.At(starts)
	if from.IsZero() {
		from = now
	}
	if !expires.IsZero() && !expires.After(from.Time) {
		return "", invalid("expires", "is not after the start")
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	return id, s.write(ctx, func(q *sqlgen.Queries) error {
		p := sqlgen.LockAccountParams{ID: account.ID(), Kind: account.Kind(), FirstSeenAt: now}
		if err := q.LockAccount(ctx, p); err != nil {
			return fmt.Errorf("locking account: %w", err)
		}
		return insert(q, id, from)
	})
}

// RevokeOverride ends an override of either kind; ErrOverrideNotFound if the
// account has none of that id in force.
func (s *Store) RevokeOverride(ctx context.Context, account quota.Subject, id string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now := column.At(s.now())
		n, err := q.RevokeQuotaOverride(ctx, sqlgen.RevokeQuotaOverrideParams{ID: id, AccountID: account.ID(), RevokedAt: now})
		if err != nil || n > 0 {
			return err
		}
		n, err = q.RevokeRateOverride(ctx, sqlgen.RevokeRateOverrideParams{ID: id, AccountID: account.ID(), RevokedAt: now})
		if err == nil && n == 0 {
			err = ErrOverrideNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("revoking override: %w", err)
	}
	return nil
}

// ListOverrides are the account's overrides that were not revoked, those to come and those over included.
func (s *Store) ListOverrides(ctx context.Context, account quota.Subject) (quotas []QuotaOverride, rates []RateOverride, err error) {
	err = s.read(ctx, func(q *sqlgen.Queries) error {
		rows, err := q.ListQuotaOverrides(ctx, account.ID())
		if err != nil {
			return err
		}
		for _, r := range rows {
			quotas = append(quotas, QuotaOverride{
				ID: r.ID, Metric: r.Metric, Mode: r.Mode, Limit: r.LimitValue.Int64, Unlimited: !r.LimitValue.Valid,
				Starts: r.StartsAt.Time, Expires: r.ExpiresAt.Time, Reason: r.Reason.String, By: r.CreatedBy.String,
			})
		}
		rateRows, err := q.ListRateOverrides(ctx, account.ID())
		for _, r := range rateRows {
			rates = append(rates, RateOverride{
				ID: r.ID, Scope: r.Scope, Rate: quota.Rate{Requests: r.Requests, Window: time.Duration(r.WindowSeconds) * time.Second},
				Starts: r.StartsAt.Time, Expires: r.ExpiresAt.Time, Reason: r.Reason.String, By: r.CreatedBy.String,
			})
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing overrides: %w", err)
	}
	return quotas, rates, nil
}
