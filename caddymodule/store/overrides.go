package store

import (
	"context"
	"fmt"
	"maps"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// The modes of a quota override.
const (
	ModeSet = "set" // takes the place of the plan's limit
	ModeAdd = "add" // a top-up, on top of it
)

// applyOverrides puts the account's own limits over the plan's. Of several that
// set the same limit the one that started last counts; top-ups add up.
func applyOverrides(ctx context.Context, q *sqlgen.Queries, v *view) error {
	e := v.entitlement
	id := e.Account.ID()
	rates, err := q.ListRateOverrides(ctx, id)
	if err != nil {
		return fmt.Errorf("loading rate_limit_overrides, account %s: %w", id, err)
	}
	for _, row := range rates {
		rate, err := rateOf(row.Requests, row.WindowSeconds)
		if err != nil {
			return &RowError{"rate_limit_overrides", row.ID, "requests, window_seconds", err}
		}
		if !v.inForce(row.StartsAt, row.ExpiresAt) {
			continue
		}
		if e.RateOverrides == nil {
			e.RateOverrides = map[string]quota.Rate{}
		}
		e.RateOverrides[row.Scope] = rate
	}
	quotas, err := q.ListQuotaOverrides(ctx, id)
	if err != nil {
		return fmt.Errorf("loading quota_overrides, account %s: %w", id, err)
	}
	return v.applyQuotaOverrides(quotas)
}

func (v *view) applyQuotaOverrides(rows []sqlgen.QuotaOverride) error {
	e := v.entitlement
	var inForce []sqlgen.QuotaOverride
	for _, row := range rows {
		if err := checkQuotaOverride(&row); err != nil {
			return err
		}
		if v.inForce(row.StartsAt, row.ExpiresAt) {
			inForce = append(inForce, row)
		}
	}
	if len(inForce) == 0 {
		return nil
	}
	e.Quotas = maps.Clone(e.Plan.Quotas)
	for _, row := range inForce {
		if row.Mode == ModeSet {
			limit, ok := e.Quotas[row.Metric]
			if !ok {
				limit = v.shape(row.Metric)
			}
			limit.Limit, limit.Unlimited = row.LimitValue.Int64, !row.LimitValue.Valid
			e.Quotas[row.Metric] = limit
		}
	}
	for _, row := range inForce {
		// A top-up of a metric that nothing limits has nothing to add to.
		if limit, ok := e.Quotas[row.Metric]; ok && row.Mode == ModeAdd && !limit.Unlimited {
			limit.Limit = min(quota.MaxAmount, limit.Limit+row.LimitValue.Int64)
			e.Quotas[row.Metric] = limit
		}
	}
	return nil
}

// shape is the period and status of a metric that the account's plan does not
// name: those of the lowest plan that does, else a month and 402.
func (v *view) shape(metric string) quota.Quota {
	for i := range v.catalogue.rows {
		if p, err := v.catalogue.decode(&v.catalogue.rows[i]); err == nil {
			if q, ok := p.Quotas[metric]; ok {
				return q
			}
		}
	}
	return quota.Quota{Period: quota.PeriodMonth, Status: 402}
}

// inForce reports whether an override counts now, and notes when that changes.
func (v *view) inForce(starts, expires column.Time) bool {
	for _, at := range []column.Time{starts, expires} {
		if at.After(v.now) {
			v.entitlement.ValidUntil = earliest(v.entitlement.ValidUntil, at.Time)
		}
	}
	return !starts.After(v.now) && (expires.IsZero() || expires.After(v.now))
}

func checkQuotaOverride(row *sqlgen.QuotaOverride) error {
	if row.Mode != ModeSet && row.Mode != ModeAdd {
		return &RowError{"quota_overrides", row.ID, "mode", invalid("mode", "unknown mode %q", row.Mode)}
	}
	if row.Mode == ModeAdd && !row.LimitValue.Valid {
		return &RowError{"quota_overrides", row.ID, "limit_value", invalid("limit_value", "a top-up needs an amount")}
	}
	if err := quota.CheckAmount("limit", row.LimitValue.Int64); err != nil {
		return &RowError{"quota_overrides", row.ID, "limit_value", err}
	}
	return nil
}
