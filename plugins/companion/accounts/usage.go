package accounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

// UsageAnswer is the answer of /v1/subscription/usage.
type UsageAnswer struct {
	Usage  Usage        `json:"usage" doc:"What was used in this UTC month, and the storage in use."`
	Limits UsageLimits  `json:"limits" doc:"The account's limits, each for its quota's own period. null: unlimited."`
	Quotas []QuotaUsage `json:"quotas" nullable:"false" doc:"Each quota of the account by metric, in the metric's own unit."`
}

// Usage is what was used in a UTC month.
type Usage struct {
	APICalls       int64     `json:"api_calls" minimum:"0" doc:"In the month, whatever period its limit has."`
	JobsCreated    int64     `json:"jobs_created" minimum:"0"`
	StorageUsedMB  int64     `json:"storage_used_mb" minimum:"0" doc:"In units of 1048576 bytes, rounded up."`
	ComputeMinutes int64     `json:"compute_minutes" minimum:"0" doc:"Rounded up."`
	PeriodStart    time.Time `json:"period_start"`
	PeriodEnd      time.Time `json:"period_end" doc:"The first moment of the next month."`
}

// UsageLimits are limits in the units that people read.
type UsageLimits struct {
	Jobs     *int64 `json:"jobs" minimum:"0"`
	Storage  *int64 `json:"storage" minimum:"0" doc:"In units of 1048576 bytes, rounded down."`
	APICalls *int64 `json:"api_calls" minimum:"0"`
	Compute  *int64 `json:"compute" minimum:"0" doc:"Minutes, rounded down."`
}

// QuotaUsage is one quota and what was used of it.
type QuotaUsage struct {
	Metric    string     `json:"metric" example:"jobs"`
	Used      int64      `json:"used" minimum:"0"`
	Limit     *int64     `json:"limit" minimum:"0" doc:"null: unlimited."`
	Remaining *int64     `json:"remaining" minimum:"0" doc:"null: unlimited."`
	Period    string     `json:"period" enum:"day,month,billing,none"`
	ResetAt   *time.Time `json:"reset_at" doc:"null for a level, which never resets."`
}

// usage answers GET /v1/subscription/usage with what the counters say now.
func (s *service) usage(ctx context.Context, st *store.Companion) (UsageAnswer, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return UsageAnswer{}, err
	}
	return s.meter().Usage(ctx, st, c.Entitlement)
}

func (s *service) meter() *Meter { return &Meter{Peek: s.peek, Now: s.now, Log: s.log} }

// Meter reads what accounts have used.
type Meter struct {
	// Peek asks the counters, as gate.Gate.Peek does.
	Peek func(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error
	Now  func() time.Time
	Log  *zap.Logger
}

// Usage is what the account has used, and of how much.
func (m *Meter) Usage(ctx context.Context, st *store.Companion, e *quota.Entitlement) (UsageAnswer, error) {
	if e.Plan == nil {
		// Its quotas would read as unlimited.
		return UsageAnswer{}, errors.New("loading usage: the account's plan is not known while the records are down")
	}
	now := m.Now()
	charges := quota.UsageCharges(e, now)
	amounts, err := m.amounts(ctx, st, e.Account, charges)
	if err != nil {
		return UsageAnswer{}, fmt.Errorf("loading usage: %w", err)
	}
	used := func(metric string, p quota.Period) int64 {
		for i := range charges {
			if charges[i].Key.Name == metric && charges[i].Key.Period == p {
				return max(0, amounts[i]) // a level in the records may be set below what an epoch still holds
			}
		}
		return 0
	}
	return UsageAnswer{
		Usage: monthOf(now, used),
		Limits: UsageLimits{
			Jobs: limit(e, quota.MetricJobs, 1), Storage: limit(e, quota.MetricStorageBytes, bytesPerMB),
			APICalls: limit(e, quota.MetricAPICalls, 1), Compute: limit(e, quota.MetricComputeSeconds, secondsPerMinute),
		},
		Quotas: quotasOf(e, now, used),
	}, nil
}

func monthOf(now time.Time, used func(string, quota.Period) int64) Usage {
	start, end := quota.PeriodMonth.Span(now, time.Time{})
	return Usage{
		APICalls:       used(quota.MetricAPICalls, quota.PeriodMonth),
		JobsCreated:    used(quota.MetricJobs, quota.PeriodMonth),
		StorageUsedMB:  ceil(used(quota.MetricStorageBytes, quota.PeriodNone), bytesPerMB),
		ComputeMinutes: ceil(used(quota.MetricComputeSeconds, quota.PeriodMonth), secondsPerMinute),
		PeriodStart:    start, PeriodEnd: end,
	}
}

func quotasOf(e *quota.Entitlement, now time.Time, used func(string, quota.Period) int64) []QuotaUsage {
	quotas := e.AllQuotas()
	out := make([]QuotaUsage, 0, len(quotas))
	for _, metric := range slices.Sorted(maps.Keys(quotas)) {
		q := quotas[metric]
		_, resetAt := q.Period.Span(now, e.Anchor)
		u := QuotaUsage{
			Metric: metric, Used: used(metric, q.Period), Limit: limitOf(q),
			Period: q.Period.String(), ResetAt: moment(resetAt),
		}
		if u.Limit != nil {
			left := max(0, q.Limit-u.Used)
			u.Remaining = &left
		}
		out = append(out, u)
	}
	return out
}

// amounts asks the counters, which know of the last request, and the records,
// which are a flush behind, only while the counters cannot be asked.
func (m *Meter) amounts(ctx context.Context, st *store.Companion, account quota.Subject, cs []quota.Charge) ([]int64, error) {
	var d quota.Decision
	fault := m.Peek(ctx, account, cs, &d)
	if fault == nil && len(d.Outcomes) != len(cs) {
		fault = fmt.Errorf("%d outcomes of %d charges", len(d.Outcomes), len(cs))
	}
	if fault == nil {
		used := make([]int64, len(cs))
		for i := range d.Outcomes {
			used[i] = d.Outcomes[i].Used
		}
		return used, nil
	}
	keys := make([]quota.UsageKey, len(cs))
	for i := range cs {
		keys[i] = quota.UsageKey{Metric: cs[i].Key.Name, Period: cs[i].Key.Period, Start: cs[i].Key.Start}
	}
	recorded, err := st.Usage(ctx, account, keys, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("asking the counters: %w", fault), err)
	}
	used := make([]int64, len(recorded))
	for i := range recorded {
		used[i] = recorded[i].Amount
	}
	m.Log.Warn("the counters cannot be asked; answering from the records", zap.Error(fault))
	return used, nil
}

// limit is the account's limit of a metric in whole units, floored.
func limit(e *quota.Entitlement, metric string, unit int64) *int64 {
	q, ok := e.Quota(metric)
	if !ok || q.Unlimited {
		return nil
	}
	n := q.Limit / unit
	return &n
}

func ceil(n, unit int64) int64 { return (n + unit - 1) / unit }
