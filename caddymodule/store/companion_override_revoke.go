package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Revocation says which overrides of an account end.
type Revocation struct {
	ID     string // of either kind; empty: all of them
	Reason string
	// Matches is asked for the version of the account's overrides, see
	// OverridesVersion; nil: any (ErrChanged).
	Matches func(version string) bool
}

// RevokeOverrides ends overrides of the account and says how many. Answers:
// ErrOverrideNotFound for an ID, ErrChanged.
func (s *Companion) RevokeOverrides(ctx context.Context, by Actor, account quota.Subject, r Revocation) (int, error) {
	if err := checkAccount(account); err != nil {
		return 0, err
	}
	n := 0
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		n = 0
		all, err := heldOverrides(ctx, q, account.ID())
		if err != nil {
			return err
		}
		if r.Matches != nil && !r.Matches(versionOf(all)) {
			return ErrChanged
		}
		now := column.At(s.now())
		for _, o := range all {
			if r.ID != "" && r.ID != o.id {
				continue
			}
			rows, err := o.revoke(now)
			if err != nil {
				return fmt.Errorf("writing an override: %w", err)
			}
			if rows > 0 { // nobody else was quicker
				n++
				log.override("override.revoked", account, o.id, o.was, nil, r.Reason)
			}
		}
		if r.ID != "" && n == 0 {
			return ErrOverrideNotFound
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("revoking overrides: %w", err)
	}
	return n, nil
}

// OverridesVersion is another whenever an account has other overrides: they are
// added and revoked, and never edited.
func OverridesVersion(ids []string) string {
	return strings.Join(slices.Sorted(slices.Values(ids)), " ")
}

func versionOf(held []heldOverride) string {
	ids := make([]string, len(held))
	for i := range held {
		ids[i] = held[i].id
	}
	return OverridesVersion(ids)
}

// heldOverride is an override that was not revoked.
type heldOverride struct {
	id     string
	was    map[string]any
	revoke func(at column.Time) (rows int64, err error)
}

func heldOverrides(ctx context.Context, q *sqlgen.Queries, account string) ([]heldOverride, error) {
	quotas, err := q.ListQuotaOverrides(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("loading quota_overrides: %w", err)
	}
	rates, err := q.ListRateOverrides(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("loading rate_limit_overrides: %w", err)
	}
	held := make([]heldOverride, 0, len(quotas)+len(rates))
	for _, r := range quotas {
		held = append(held, heldOverride{r.ID, map[string]any{
			"metric": r.Metric, "mode": r.Mode, "limit": orUnlimited(r.LimitValue),
			"starts_at": auditTime(r.StartsAt), "expires_at": auditTime(r.ExpiresAt),
		}, func(at column.Time) (int64, error) {
			return q.RevokeQuotaOverride(ctx, sqlgen.RevokeQuotaOverrideParams{ID: r.ID, AccountID: account, RevokedAt: at})
		}})
	}
	for _, r := range rates {
		held = append(held, heldOverride{r.ID, map[string]any{
			"scope": r.Scope, "requests": r.Requests, "window": r.WindowSeconds,
			"starts_at": auditTime(r.StartsAt), "expires_at": auditTime(r.ExpiresAt),
		}, func(at column.Time) (int64, error) {
			return q.RevokeRateOverride(ctx, sqlgen.RevokeRateOverrideParams{ID: r.ID, AccountID: account, RevokedAt: at})
		}})
	}
	return held, nil
}

// ListOverrides are the account's overrides that were not revoked, those to come and those over included.
func (s *Companion) ListOverrides(ctx context.Context, account quota.Subject) (quotas []QuotaOverride, rates []RateOverride, err error) {
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
