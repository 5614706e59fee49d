package accounts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

// usageAnswer is the answer of /v1/subscription/usage.
type usageAnswer struct {
	Usage  usage        `json:"usage" doc:"This UTC month"`
	Limits usageLimits  `json:"limits" doc:"null: unlimited"`
	Quotas []quotaUsage `json:"quotas" nullable:"false" doc:"Each quota of the plan, in the metric's own unit"`
}

type usage struct {
	APICalls       int64     `json:"api_calls"`
	JobsCreated    int64     `json:"jobs_created"`
	StorageUsedMB  int64     `json:"storage_used_mb" doc:"Rounded up"`
	ComputeMinutes int64     `json:"compute_minutes" doc:"Rounded up"`
	PeriodStart    time.Time `json:"period_start"`
	PeriodEnd      time.Time `json:"period_end"`
}

type usageLimits struct {
	Jobs     *int64 `json:"jobs"`
	Storage  *int64 `json:"storage" doc:"MB, rounded down"`
	APICalls *int64 `json:"api_calls"`
	Compute  *int64 `json:"compute" doc:"Minutes, rounded down"`
}

type quotaUsage struct {
	Metric    string     `json:"metric"`
	Used      int64      `json:"used"`
	Limit     *int64     `json:"limit"`
	Remaining *int64     `json:"remaining"`
	Period    string     `json:"period" enum:"day,month,billing,none"`
	ResetAt   *time.Time `json:"reset_at" doc:"null for a level, which never resets"`
}

// usage answers GET /v1/subscription/usage with what the counters say now.
func (s *service) usage(ctx context.Context, st *store.Store) (usageAnswer, error) {
	c, err := api.Caller(ctx)
	if err != nil {
		return usageAnswer{}, err
	}
	now := time.Now()
	e := c.Entitlement
	charges := quota.UsageCharges(e, now)
	used, err := s.used(ctx, st, e.Account, charges)
	if err != nil {
		return usageAnswer{}, fmt.Errorf("loading usage: %w", err)
	}
	of := func(metric string, p quota.Period) int64 {
		for i := range charges {
			if charges[i].Key.Name == metric && charges[i].Key.Period == p {
				return max(0, used[i])
			}
		}
		return 0
	}
	start, end := quota.PeriodMonth.Span(now, time.Time{})
	out := usageAnswer{
		Usage: usage{
			APICalls:       of(quota.MetricAPICalls, quota.PeriodMonth),
			JobsCreated:    of(quota.MetricJobs, quota.PeriodMonth),
			StorageUsedMB:  ceil(of(quota.MetricStorageBytes, quota.PeriodNone), bytesPerMB),
			ComputeMinutes: ceil(of(quota.MetricComputeSeconds, quota.PeriodMonth), 60),
			PeriodStart:    start, PeriodEnd: end,
		},
		Limits: usageLimits{
			Jobs: limit(e, quota.MetricJobs, 1), Storage: limit(e, quota.MetricStorageBytes, bytesPerMB),
			APICalls: limit(e, quota.MetricAPICalls, 1), Compute: limit(e, quota.MetricComputeSeconds, 60),
		},
		Quotas: []quotaUsage{},
	}
	quotas := e.AllQuotas()
	for _, metric := range slices.Sorted(maps.Keys(quotas)) {
		q := quotas[metric]
		_, resetAt := q.Period.Span(now, e.Anchor)
		u := quotaUsage{
			Metric: metric, Used: of(metric, q.Period), Limit: limitOf(q),
			Period: q.Period.String(), ResetAt: moment(resetAt),
		}
		if u.Limit != nil {
			left := max(0, q.Limit-u.Used)
			u.Remaining = &left
		}
		out.Quotas = append(out.Quotas, u)
	}
	return out, nil
}

// used asks the counters, which know of the last request, and the records,
// which are a flush behind, only while the counters cannot be asked.
func (s *service) used(ctx context.Context, st *store.Store, account quota.Subject, cs []quota.Charge) ([]int64, error) {
	used := make([]int64, len(cs))
	g, err := s.gate()
	if err != nil {
		return nil, err
	}
	var d quota.Decision
	if err = g.Peek(ctx, account, cs, &d); err == nil {
		for i := range d.Outcomes {
			used[i] = d.Outcomes[i].Used
		}
		return used, nil
	}
	s.log.Warn("the counters cannot be asked; answering from the records", zap.Error(err))
	keys := make([]quota.UsageKey, len(cs))
	for i := range cs {
		keys[i] = quota.UsageKey{Metric: cs[i].Key.Name, Period: cs[i].Key.Period, Start: cs[i].Key.Start}
	}
	return st.Usage(ctx, account, keys, nil)
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
