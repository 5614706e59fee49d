package accounts

import (
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

const bytesPerMB = 1 << 20

// mine is the answer of /v1/subscription/me.
type mine struct {
	Subscription *subscription `json:"subscription" doc:"null for an account that never had one: it has the default plan"`
	Plan         plan          `json:"plan"`
}

type subscription struct {
	ID                 string     `json:"id"`
	UserID             string     `json:"user_id"`
	PlanID             *string    `json:"plan_id"`
	Plan               *string    `json:"plan" doc:"The plan's name"`
	Status             string     `json:"status" enum:"active,trial,past_due,cancelled,expired"`
	StartedAt          *time.Time `json:"started_at"`
	ExpiresAt          *time.Time `json:"expires_at"`
	CurrentPeriodStart *time.Time `json:"current_period_start"`
	CurrentPeriodEnd   *time.Time `json:"current_period_end"`
	CancelAtPeriodEnd  bool       `json:"cancel_at_period_end"`
	CancelledAt        *time.Time `json:"cancelled_at"`
	TrialEnd           *time.Time `json:"trial_end"`
	GraceUntil         *time.Time `json:"grace_until"`
	PendingPlan        *string    `json:"pending_plan"`
	CreatedAt          *time.Time `json:"created_at"`
	UpdatedAt          *time.Time `json:"updated_at"`
}

func subscriptionOf(s *store.Subscription) *subscription {
	if s == nil {
		return nil
	}
	return &subscription{
		ID: s.ID, UserID: s.Account.ID(), PlanID: orNull(s.PlanID), Plan: orNull(s.Plan), Status: string(s.Status),
		StartedAt: moment(s.StartedAt), ExpiresAt: moment(s.ExpiresAt),
		CurrentPeriodStart: moment(s.CurrentPeriodStart), CurrentPeriodEnd: moment(s.CurrentPeriodEnd),
		CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelledAt: moment(s.CancelledAt),
		TrialEnd: moment(s.TrialEnd), GraceUntil: moment(s.GraceUntil), PendingPlan: orNull(s.PendingPlan),
		CreatedAt: moment(s.CreatedAt), UpdatedAt: moment(s.UpdatedAt),
	}
}

// planList is the answer of /v1/subscription/plans.
type planList struct {
	Plans []plan `json:"plans" nullable:"false"`
}

type plan struct {
	ID                  string          `json:"id"`
	Name                string          `json:"name"`
	DisplayName         string          `json:"display_name"`
	Description         string          `json:"description"`
	PriceCents          int64           `json:"price_cents"`
	BillingPeriod       *string         `json:"billing_period" doc:"monthly, yearly, or null for a plan without a price"`
	Features            map[string]bool `json:"features"`
	RateLimitMultiplier float64         `json:"rate_limit_multiplier"`
	RateLimits          map[string]rate `json:"rate_limits"`
	MaxJobsPerMonth     *int64          `json:"max_jobs_per_month" doc:"null: unlimited"`
	MaxStorageMB        *int64          `json:"max_storage_mb" doc:"null: unlimited"`
	MaxAPICallsPerDay   *int64          `json:"max_api_calls_per_day" doc:"null: unlimited"`
	Quotas              []planQuota     `json:"quotas" nullable:"false"`
	IsActive            bool            `json:"is_active"`
	CreatedAt           *time.Time      `json:"created_at"`
	UpdatedAt           *time.Time      `json:"updated_at"`
}

type rate struct {
	Requests int64   `json:"requests"`
	Window   float64 `json:"window" doc:"Seconds"`
}

type planQuota struct {
	Metric         string `json:"metric"`
	Limit          *int64 `json:"limit" doc:"In the metric's own unit; null: unlimited"`
	Period         string `json:"period" enum:"day,month,billing,none"`
	ExceededStatus int    `json:"exceeded_status"`
}

func planOf(p *store.Plan) plan {
	cents, period := p.DisplayPrice()
	out := plan{
		ID: p.ID, Name: p.Name, DisplayName: p.DisplayName, Description: p.Description,
		PriceCents: cents, BillingPeriod: orNull(period), Features: p.Features,
		RateLimitMultiplier: float64(p.MultiplierPct) / 100, RateLimits: make(map[string]rate, len(p.RateLimits)),
		MaxJobsPerMonth:   limitIn(p.Quotas, quota.MetricJobs, quota.PeriodMonth, 1),
		MaxStorageMB:      limitIn(p.Quotas, quota.MetricStorageBytes, quota.PeriodNone, bytesPerMB),
		MaxAPICallsPerDay: limitIn(p.Quotas, quota.MetricAPICalls, quota.PeriodDay, 1),
		Quotas:            make([]planQuota, 0, len(p.Quotas)),
		IsActive:          p.IsActive, CreatedAt: moment(p.CreatedAt), UpdatedAt: moment(p.UpdatedAt),
	}
	if out.Features == nil {
		out.Features = map[string]bool{}
	}
	for scope, r := range p.RateLimits {
		out.RateLimits[scope] = rate{Requests: r.Requests, Window: r.Window.Seconds()}
	}
	for _, metric := range slices.Sorted(maps.Keys(p.Quotas)) {
		q := p.Quotas[metric]
		out.Quotas = append(out.Quotas, planQuota{
			Metric: metric, Limit: limitOf(q), Period: q.Period.String(), ExceededStatus: q.Status,
		})
	}
	return out
}

// limitIn is a plan's limit of a metric in whole units, floored; null if it is
// unlimited or counted in another period than the field's name says.
func limitIn(qs map[string]quota.Quota, metric string, p quota.Period, unit int64) *int64 {
	q, ok := qs[metric]
	if !ok || q.Unlimited || q.Period != p {
		return nil
	}
	n := q.Limit / unit
	return &n
}

func limitOf(q quota.Quota) *int64 {
	if q.Unlimited {
		return nil
	}
	return &q.Limit
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
