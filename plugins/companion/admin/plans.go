package admin

import (
	"cmp"
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// adminPlans is the answer of GET /v1/admin/plans.
type adminPlans struct {
	Plans []adminPlan `json:"plans" nullable:"false" doc:"The lowest tier first."`
	Total int         `json:"total"`
}

type adminPlan struct {
	ID                  string              `json:"id"`
	Name                string              `json:"name"`
	DisplayName         string              `json:"display_name"`
	Description         string              `json:"description"`
	Tier                int64               `json:"tier" doc:"Higher is more."`
	IsDefault           bool                `json:"is_default" doc:"Of accounts without a subscription, unless the config names another plan."`
	IsActive            bool                `json:"is_active" doc:"Whether it can be chosen anew."`
	IsPublic            bool                `json:"is_public" doc:"Whether users are shown it."`
	TrialDays           int64               `json:"trial_days"`
	Features            map[string]bool     `json:"features"`
	RateLimitMultiplier float64             `json:"rate_limit_multiplier"`
	RateLimits          map[string]planRate `json:"rate_limits" doc:"By scope."`
	Quotas              []planQuotaLimit    `json:"quotas" nullable:"false"`
	Prices              []planPrice         `json:"prices" nullable:"false" doc:"Those that can be chosen, and old ones, which still belong to their subscriptions."`
	Version             int64               `json:"version" doc:"Rises with each edit; in quotes it is the ETag."`
	CreatedAt           time.Time           `json:"created_at"`
	UpdatedAt           time.Time           `json:"updated_at"`
}

type planRate struct {
	Requests int64 `json:"requests" minimum:"0" doc:"Admitted in any window of that length; 0: none."`
	Window   int64 `json:"window" minimum:"1" doc:"Seconds."`
}

type planQuotaLimit struct {
	Metric         string `json:"metric" minLength:"1" maxLength:"64" example:"jobs"`
	Limit          *int64 `json:"limit" minimum:"0" doc:"In the metric's own unit. null: unlimited."`
	Period         string `json:"period" enum:"day,month,billing,none"`
	ExceededStatus int    `json:"exceeded_status" enum:"402,403,413,429"`
}

type planPrice struct {
	ID string `json:"id"`
	PlanPriceTerms
	IsActive bool `json:"is_active"`
}

// PlanPriceTerms are what a price says.
type PlanPriceTerms struct {
	Interval        string `json:"interval" enum:"month,year"`
	Currency        string `json:"currency" minLength:"3" maxLength:"3" example:"usd"`
	UnitAmount      int64  `json:"unit_amount" minimum:"0" doc:"In the currency's minor unit."`
	PerSeat         bool   `json:"per_seat,omitempty"`
	StripeLookupKey string `json:"stripe_lookup_key,omitempty" maxLength:"200"`
	StripePriceID   string `json:"stripe_price_id,omitempty" maxLength:"255"`
	Livemode        bool   `json:"livemode,omitempty"`
}

// PlanEdit is what can be said of a plan. What is left out stays as it is.
type PlanEdit struct {
	DisplayName         *string             `json:"display_name,omitempty" maxLength:"200"`
	Description         *string             `json:"description,omitempty" maxLength:"2000"`
	Tier                *int64              `json:"tier,omitempty"`
	IsDefault           *bool               `json:"is_default,omitempty" doc:"true takes it from the plan that has it."`
	IsActive            *bool               `json:"is_active,omitempty"`
	IsPublic            *bool               `json:"is_public,omitempty"`
	TrialDays           *int64              `json:"trial_days,omitempty" minimum:"0" maximum:"3650"`
	Features            map[string]bool     `json:"features,omitempty" doc:"All of them: what is not named is gone."`
	RateLimitMultiplier *float64            `json:"rate_limit_multiplier,omitempty" minimum:"0.01" maximum:"100" doc:"At most two decimal places."`
	RateLimits          map[string]planRate `json:"rate_limits,omitempty" doc:"All of them, by scope."`
	Quotas              []planQuotaLimit    `json:"quotas,omitempty" maxItems:"200" doc:"All of them."`
	Prices              []PlanPriceTerms    `json:"prices,omitempty" maxItems:"100" doc:"All that can be chosen. What is not named becomes inactive."`
	Reason              string              `json:"reason,omitempty" maxLength:"2000" doc:"For the audit log."`
}

type createPlanInput struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"64" pattern:"^[a-z0-9][a-z0-9_-]*$" doc:"For ever."`
		PlanEdit
	}
}

// PlanPath is the part of a path that says which plan is meant.
type PlanPath struct {
	ID string `path:"id" maxLength:"255"`
}

type changePlanInput struct {
	PlanPath
	api.Match
	Body PlanEdit
}

func registerPlans(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "list-all-plans", Method: http.MethodGet, Path: "/v1/admin/plans", Summary: "All plans, also those that users are not shown",
	}, listPlans)
	add(a, s, huma.Operation{
		OperationID: "get-plan", Method: http.MethodGet, Path: "/v1/admin/plans/{id}", Summary: "A plan, with its ETag",
		Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, st *store.Companion, in *PlanPath) (adminPlan, string, error) {
		return planAnswer(st.PlanByID(ctx, in.ID))
	})
	add(a, s, huma.Operation{
		OperationID: "create-plan", Method: http.MethodPost, Path: "/v1/admin/plans", Summary: "Make a plan", DefaultStatus: http.StatusCreated,
		Description: "By the rules of `caddy quota plans apply`. Nothing deletes a plan: make it inactive, and nobody can choose it any more.",
		Errors:      []int{http.StatusConflict, http.StatusUnprocessableEntity},
	}, createPlan)
	add(a, s, huma.Operation{
		OperationID: "change-plan", Method: http.MethodPatch, Path: "/v1/admin/plans/{id}", Summary: "Change a plan",
		Description: "Those who have the plan are judged by it within 2 seconds, and keep what they have used.",
		Errors:      []int{http.StatusNotFound, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, changePlan)
}

func listPlans(ctx context.Context, st *store.Companion, _ *struct{}) (adminPlans, string, error) {
	plans, err := st.ListPlans(ctx, store.PlanFilter{})
	out := adminPlans{Plans: make([]adminPlan, len(plans)), Total: len(plans)}
	for i, p := range plans {
		out.Plans[i] = adminPlanOf(p)
	}
	return out, "", err
}

func planAnswer(p *store.Plan, err error) (adminPlan, string, error) {
	if err != nil {
		return adminPlan{}, "", err
	}
	return adminPlanOf(p), planTag(p.Version), nil
}

// planTag is a plan's ETag.
func planTag(version int64) string { return strconv.Quote(strconv.FormatInt(version, 10)) }

func createPlan(ctx context.Context, st *store.Companion, in *createPlanInput) (adminPlan, string, error) {
	if in.Body.RateLimitMultiplier == nil {
		return adminPlan{}, "", api.Invalid("rate_limit_multiplier", "is missing: 1 is the config's own limits")
	}
	d := store.PlanDocument{Name: in.Body.Name}
	if err := in.Body.check(); err != nil {
		return adminPlan{}, "", err
	}
	in.Body.apply(&d)
	return planAnswer(st.CreatePlan(ctx, api.Actor(ctx), d, in.Body.Reason))
}

func changePlan(ctx context.Context, st *store.Companion, in *changePlanInput) (adminPlan, string, error) {
	if err := in.Body.check(); err != nil {
		return adminPlan{}, "", err
	}
	matches := func(version int64) bool {
		// A bare number is what the body of an answer shows.
		return in.Matches(planTag(version)) || in.IfMatch == strconv.FormatInt(version, 10)
	}
	return planAnswer(st.ChangePlan(ctx, api.Actor(ctx), in.ID, matches, in.Body.apply, in.Body.Reason))
}

// check refuses what the document could not hold.
func (e *PlanEdit) check() error {
	if m := e.RateLimitMultiplier; m != nil && math.Abs(*m*100-math.Round(*m*100)) > 1e-6 {
		return api.Invalid("rate_limit_multiplier", "has more than two decimal places")
	}
	seen := map[string]bool{}
	for _, q := range e.Quotas {
		if seen[q.Metric] {
			return api.Invalid("quotas", q.Metric+" is named twice")
		}
		seen[q.Metric] = true
	}
	return nil
}

// apply makes the document what is said of it.
func (e *PlanEdit) apply(d *store.PlanDocument) {
	set(&d.DisplayName, e.DisplayName)
	set(&d.Description, e.Description)
	set(&d.Tier, e.Tier)
	set(&d.IsDefault, e.IsDefault)
	set(&d.TrialDays, e.TrialDays)
	if e.IsActive != nil {
		d.IsActive = e.IsActive
	}
	if e.IsPublic != nil {
		d.IsPublic = e.IsPublic
	}
	if e.Features != nil {
		d.Features = e.Features
	}
	if e.RateLimitMultiplier != nil {
		d.Multiplier = store.Multiplier(math.Round(*e.RateLimitMultiplier * 100))
	}
	if e.RateLimits != nil {
		d.RateLimits = make(map[string]store.RateDocument, len(e.RateLimits))
		for scope, r := range e.RateLimits {
			d.RateLimits[scope] = store.RateDocument{Requests: &r.Requests, Window: &r.Window}
		}
	}
	if e.Quotas != nil {
		d.Quotas = make(map[string]store.QuotaDocument, len(e.Quotas))
		for _, q := range e.Quotas {
			limit := store.LimitDocument{Given: true, Unlimited: q.Limit == nil}
			set(&limit.Value, q.Limit)
			d.Quotas[q.Metric] = store.QuotaDocument{Limit: limit, Period: q.Period, Status: q.ExceededStatus}
		}
	}
	if e.Prices != nil {
		d.Prices = make([]store.PriceDocument, len(e.Prices))
		for i, p := range e.Prices {
			d.Prices[i] = store.PriceDocument{
				Interval: p.Interval, Currency: strings.ToLower(p.Currency), UnitAmount: &p.UnitAmount, PerSeat: p.PerSeat,
				LookupKey: p.StripeLookupKey, PriceID: p.StripePriceID, Livemode: p.Livemode,
			}
		}
	}
}

// set is what is said, if anything is.
func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func adminPlanOf(p *store.Plan) adminPlan {
	out := adminPlan{
		ID: p.ID, Name: p.Name, DisplayName: p.DisplayName, Description: p.Description, Tier: p.Tier,
		IsDefault: p.IsDefault, IsActive: p.IsActive, IsPublic: p.IsPublic, TrialDays: p.TrialDays,
		Features: map[string]bool{}, RateLimitMultiplier: float64(p.MultiplierPct) / 100, RateLimits: map[string]planRate{},
		Quotas: []planQuotaLimit{}, Prices: []planPrice{},
		Version: p.Version, CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC(),
	}
	maps.Copy(out.Features, p.Features)
	for scope, r := range p.RateLimits {
		out.RateLimits[scope] = planRate{r.Requests, int64(r.Window / time.Second)}
	}
	for metric, q := range p.Quotas {
		limit := planQuotaLimit{Metric: metric, Period: q.Period.String(), ExceededStatus: q.Status}
		if !q.Unlimited {
			limit.Limit = &q.Limit
		}
		out.Quotas = append(out.Quotas, limit)
	}
	slices.SortFunc(out.Quotas, func(a, b planQuotaLimit) int { return cmp.Compare(a.Metric, b.Metric) })
	for _, price := range p.Prices {
		out.Prices = append(out.Prices, planPrice{price.ID, PlanPriceTerms{
			price.Interval, price.Currency, price.UnitAmount, price.PerSeat, price.LookupKey, price.PriceID, price.Livemode,
		}, price.IsActive})
	}
	return out
}
