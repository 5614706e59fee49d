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

// QuotaUsage is how much of a quota was used.
type QuotaUsage struct {
	Metric    string
	Used      int64 // never negative
	Limit     int64 // 0 if Unlimited
	Unlimited bool
	Period    quota.Period
	// ResetAt is when the period ends; zero for a level.
	ResetAt time.Time
}

// Within reports whether anything is left.
func (u QuotaUsage) Within() bool { return u.Unlimited || u.Used < u.Limit }

// Remaining is what is left; 0 if Unlimited.
func (u QuotaUsage) Remaining() int64 { return max(0, u.Limit-u.Used) }

// CheckQuota is the state of one quota of the account. A metric that the
// account's plan does not name is unlimited, and counted by month;
// ErrUnknownMetric if no plan names it. The records lag behind the gateways by
// up to one flush.
func (s *Companion) CheckQuota(ctx context.Context, account quota.Subject, metric string) (QuotaUsage, error) {
	if err := checkAccount(account); err != nil {
		return QuotaUsage{}, err
	}
	var usage QuotaUsage
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		v, err := s.view(ctx, q, account, s.now())
		if err != nil {
			return err
		}
		if !v.knows(metric) {
			return fmt.Errorf("%w: %q", ErrUnknownMetric, metric)
		}
		usage, err = v.quotaUsage(ctx, q, metric)
		return err
	})
	if err != nil {
		return QuotaUsage{}, fmt.Errorf("checking quota: %w", err)
	}
	return usage, nil
}

// builtin are the metrics that every installation knows.
var builtin = [...]string{quota.MetricAPICalls, quota.MetricComputeSeconds, quota.MetricJobs, quota.MetricStorageBytes}

func (v *view) knows(metric string) bool {
	_, named := v.catalogue.counted[metric]
	return named || slices.Contains(builtin[:], metric)
}

func (v *view) quotaUsage(ctx context.Context, q *sqlgen.Queries, metric string) (QuotaUsage, error) {
	e := v.entitlement
	limit, ok := e.Quota(metric)
	if !ok {
		limit = quota.Quota{Unlimited: true, Period: quota.PeriodMonth}
		if v.isLevel(metric) {
			limit.Period = quota.PeriodNone
		}
	}
	start, end := limit.Period.Span(v.now, e.Anchor)
	key := quota.UsageKey{Metric: metric, Period: limit.Period}
	if !start.IsZero() {
		key.Start = start.Unix()
	}
	used, err := usageOf(ctx, q, e.Account, key)
	if err != nil {
		return QuotaUsage{}, err
	}
	return QuotaUsage{
		Metric: metric, Used: max(0, used), Limit: limit.Limit, Unlimited: limit.Unlimited, Period: limit.Period, ResetAt: end,
	}, nil
}

// isLevel reports whether the metric is a level: all plans that name it say so,
// and storage_bytes where none does.
func (v *view) isLevel(metric string) bool {
	if periods, ok := v.catalogue.counted[metric]; ok {
		return periods == quota.Periods(0).With(quota.PeriodNone)
	}
	return metric == quota.MetricStorageBytes
}

// UsageSummary is what an account has used.
type UsageSummary struct {
	// PeriodStart and PeriodEnd are the UTC month that Month totals.
	PeriodStart, PeriodEnd time.Time
	// Month are the month's totals of all counters, the built-in ones always.
	Month map[string]int64
	// Levels are the levels as they are, storage_bytes always.
	Levels map[string]int64
	// Quotas are those of the account's plan, with overrides, by metric.
	Quotas []QuotaUsage
}

// UsageSummary is the account's usage of this UTC month and of its quotas. An
// account without usage has zeros. The records lag behind the gateways by up to one flush.
func (s *Companion) UsageSummary(ctx context.Context, account quota.Subject) (*UsageSummary, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	var sum *UsageSummary
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		v, err := s.view(ctx, q, account, s.now())
		if err == nil {
			sum, err = v.summary(ctx, q)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("summing usage: %w", err)
	}
	return sum, nil
}

func (v *view) summary(ctx context.Context, q *sqlgen.Queries) (*UsageSummary, error) {
	e, id := v.entitlement, v.entitlement.Account.ID()
	sum := &UsageSummary{Month: map[string]int64{}, Levels: map[string]int64{}}
	sum.PeriodStart, sum.PeriodEnd = quota.PeriodMonth.Span(v.now, time.Time{})
	for _, metric := range builtin {
		if v.isLevel(metric) {
			sum.Levels[metric] = 0
		} else {
			sum.Month[metric] = 0
		}
	}
	month, err := q.PeriodTotals(ctx, sqlgen.PeriodTotalsParams{
		AccountID: id, Period: quota.PeriodMonth.String(), PeriodStart: column.At(sum.PeriodStart),
	})
	if err != nil {
		return nil, fmt.Errorf("summing usage_totals: %w", err)
	}
	for _, m := range month {
		sum.Month[m.Metric] = max(0, m.Used)
	}
	if err := addLevels(ctx, q, id, sum.Levels); err != nil {
		return nil, err
	}
	quotas := e.Quotas
	if quotas == nil {
		quotas = e.Plan.Quotas
	}
	for metric := range quotas {
		usage, err := v.quotaUsage(ctx, q, metric)
		if err != nil {
			return nil, err
		}
		sum.Quotas = append(sum.Quotas, usage)
	}
	slices.SortFunc(sum.Quotas, func(a, b QuotaUsage) int { return cmp.Compare(a.Metric, b.Metric) })
	return sum, nil
}

func addLevels(ctx context.Context, q *sqlgen.Queries, id string, levels map[string]int64) error {
	totals, err := q.PeriodTotals(ctx, sqlgen.PeriodTotalsParams{
		AccountID: id, Period: quota.PeriodNone.String(), PeriodStart: instant(0),
	})
	if err != nil {
		return fmt.Errorf("summing usage_totals: %w", err)
	}
	for _, t := range totals {
		levels[t.Metric] += t.Used
	}
	offsets, err := q.LevelOffsets(ctx, id)
	if err != nil {
		return fmt.Errorf("loading usage_levels: %w", err)
	}
	for _, o := range offsets {
		levels[o.Metric] += o.SetOffset
	}
	for metric, n := range levels {
		levels[metric] = max(0, n)
	}
	return nil
}

// usageOf is what was used over all epochs.
func usageOf(ctx context.Context, q *sqlgen.Queries, account quota.Subject, k quota.UsageKey) (int64, error) {
	var used quota.Used
	err := addUsage(ctx, q, account, k, nil, &used)
	return used.Amount, err
}
