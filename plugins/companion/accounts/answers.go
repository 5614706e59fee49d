package accounts

import (
	"maps"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// The units of answers.
const (
	bytesPerMB       = 1 << 20
	secondsPerMinute = 60
)

// subscriptionAnswer is the answer of /v1/subscription/me.
type subscriptionAnswer struct {
	Subscription *Subscription `json:"subscription"`
	Plan         plan          `json:"plan"`
}

// TransformSchema implements huma.SchemaTransformer: a reference has no tag by
// which it could be null.
func (subscriptionAnswer) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["subscription"] = &huma.Schema{
		Description: "null for an account that never had one: it has the default plan.",
		AnyOf:       []*huma.Schema{s.Properties["subscription"], {Type: "null"}},
	}
	return s
}

// Subscription is an account's subscription in the words of the API.
type Subscription struct {
	ID                 string     `json:"id"`
	UserID             string     `json:"user_id" doc:"The user as its tokens name it."`
	PlanID             *string    `json:"plan_id" doc:"null if its price belongs to no plan."`
	Plan               *string    `json:"plan" doc:"The name of the subscription's own plan, also when it is no longer in effect."`
	Status             string     `json:"status" enum:"active,trial,past_due,cancelled,expired" doc:"As of now: a trial, a paid period and a grace end by themselves."`
	StartedAt          *time.Time `json:"started_at"`
	ExpiresAt          *time.Time `json:"expires_at" doc:"When it ends, or ended, by itself; null: it goes on."`
	CurrentPeriodStart *time.Time `json:"current_period_start"`
	CurrentPeriodEnd   *time.Time `json:"current_period_end"`
	CancelAtPeriodEnd  bool       `json:"cancel_at_period_end"`
	CancelledAt        *time.Time `json:"cancelled_at"`
	TrialEnd           *time.Time `json:"trial_end"`
	GraceUntil         *time.Time `json:"grace_until" doc:"When a past-due subscription loses its plan."`
	PendingPlan        *string    `json:"pending_plan" doc:"The name of the plan that follows."`
	CreatedAt          time.Time  `json:"created_at"`
	UpdatedAt          time.Time  `json:"updated_at"`
}

// SubscriptionOf is the answer for a subscription; nil for none.
func SubscriptionOf(s *store.Subscription) *Subscription {
	if s == nil {
		return nil
	}
	return &Subscription{
		ID: s.ID, UserID: s.Account.ID(), PlanID: orNull(s.PlanID), Plan: orNull(s.Plan), Status: string(s.Status),
		StartedAt: moment(s.StartedAt), ExpiresAt: moment(s.ExpiresAt),
		CurrentPeriodStart: moment(s.CurrentPeriodStart), CurrentPeriodEnd: moment(s.CurrentPeriodEnd),
		CancelAtPeriodEnd: s.CancelAtPeriodEnd, CancelledAt: moment(s.CancelledAt),
		TrialEnd: moment(s.TrialEnd), GraceUntil: moment(s.GraceUntil), PendingPlan: orNull(s.PendingPlan),
		CreatedAt: s.CreatedAt.UTC(), UpdatedAt: s.UpdatedAt.UTC(),
	}
}

// planList is the answer of /v1/subscription/plans.
type planList struct {
	Plans []plan `json:"plans" nullable:"false"`
}

type plan struct {
	ID                  string               `json:"id"`
	Name                string               `json:"name"`
	DisplayName         string               `json:"display_name"`
	Description         string               `json:"description"`
	PriceCents          int64                `json:"price_cents" minimum:"0" doc:"In the currency's minor unit, for one billing_period; 0: free."`
	BillingPeriod       *string              `json:"billing_period" doc:"monthly or yearly; null for a plan without a price."`
	Features            map[string]bool      `json:"features"`
	RateLimitMultiplier float64              `json:"rate_limit_multiplier" doc:"Scales the limits of scopes that rate_limits does not name."`
	RateLimits          map[string]rateLimit `json:"rate_limits" doc:"By scope."`
	MaxJobsPerMonth     *int64               `json:"max_jobs_per_month" minimum:"0" doc:"null: unlimited, or counted in another period, see quotas."`
	MaxStorageMB        *int64               `json:"max_storage_mb" minimum:"0" doc:"In units of 1048576 bytes, rounded down. null: unlimited."`
	MaxAPICallsPerDay   *int64               `json:"max_api_calls_per_day" minimum:"0" doc:"null: unlimited, or counted in another period, see quotas."`
	Quotas              []planQuota          `json:"quotas" nullable:"false" doc:"The plan's own quotas by metric, without what the account was granted beside it."`
	IsActive            bool                 `json:"is_active" doc:"Whether it can be chosen anew."`
	CreatedAt           time.Time            `json:"created_at"`
	UpdatedAt           time.Time            `json:"updated_at"`
}

type rateLimit struct {
	Requests int64 `json:"requests" minimum:"0" doc:"Admitted in any window of that length; 0: none."`
	Window   int64 `json:"window" minimum:"1" doc:"Seconds."`
}

type planQuota struct {
	Metric         string `json:"metric" example:"jobs"`
	Limit          *int64 `json:"limit" minimum:"0" doc:"In the metric's own unit: bytes, seconds, or a number. null: unlimited."`
	Period         string `json:"period" enum:"day,month,billing,none" doc:"In which it is counted, in UTC. none: a level, which never resets."`
	ExceededStatus int    `json:"exceeded_status" enum:"402,403,413,429" doc:"Of the answer to a request that would exceed it."`
}

func planOf(p *store.Plan) plan {
	cents, period := store.DisplayPrice(p)
	out := plan{
		ID: p.ID, Name: p.Name, DisplayName: p.DisplayName, Description: p.Description,
		PriceCents: cents, BillingPeriod: orNull(period), Features: p.Features,
		RateLimitMultiplier: float64(p.MultiplierPct) / 100, RateLimits: make(map[string]rateLimit, len(p.RateLimits)),
		MaxJobsPerMonth:   limitIn(p.Quotas, quota.MetricJobs, quota.PeriodMonth, 1),
		MaxStorageMB:      limitIn(p.Quotas, quota.MetricStorageBytes, quota.PeriodNone, bytesPerMB),
		MaxAPICallsPerDay: limitIn(p.Quotas, quota.MetricAPICalls, quota.PeriodDay, 1),
		Quotas:            make([]planQuota, 0, len(p.Quotas)),
		IsActive:          p.IsActive, CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC(),
	}
	if out.Features == nil {
		out.Features = map[string]bool{}
	}
	for scope, r := range p.RateLimits {
		out.RateLimits[scope] = rateLimit{Requests: r.Requests, Window: int64(r.Window / time.Second)}
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
