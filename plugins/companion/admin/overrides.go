package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// AccountPath is the part of a path that says whose account is meant. Huma reads
// embedded structs only if their names are exported.
type AccountPath struct {
	ID string `path:"id" maxLength:"255" doc:"A user's id as tokens carry it, or an organization's."`
}

// account is who is meant, if there is such an account.
func (in *AccountPath) account(ctx context.Context, st *store.Companion) (quota.Subject, error) {
	return st.Account(ctx, in.ID)
}

// overrideList is the answer of GET .../overrides.
type overrideList struct {
	Overrides []override `json:"overrides" nullable:"false" doc:"Those that were not revoked, those to come and those over included, of quotas first, by their start."`
	Total     int        `json:"total"`
}

type override struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind" enum:"quota,rate"`
	Metric    *string    `json:"metric" doc:"Of a quota."`
	Mode      *string    `json:"mode" doc:"Of a quota: set takes the place of the plan's limit, add is a top-up."`
	Limit     *int64     `json:"limit" doc:"Of a quota. null: unlimited."`
	Scope     *string    `json:"scope" doc:"Of a rate."`
	Requests  *int64     `json:"requests" doc:"Of a rate."`
	Window    *int64     `json:"window" doc:"Of a rate, in seconds."`
	Status    string     `json:"status" enum:"scheduled,active,expired" doc:"As of now."`
	StartsAt  time.Time  `json:"starts_at"`
	ExpiresAt *time.Time `json:"expires_at" doc:"null: never."`
	Reason    string     `json:"reason"`
	CreatedBy string     `json:"created_by"`
}

type createOverrideInput struct {
	AccountPath
	api.Match
	Body struct {
		Metric    string     `json:"metric,omitempty" maxLength:"64" example:"jobs" doc:"Changes a quota: say mode, and limit or unlimited."`
		Mode      string     `json:"mode,omitempty" enum:"set,add" doc:"set takes the place of the plan's limit, add is a top-up."`
		Limit     *int64     `json:"limit,omitempty" minimum:"0"`
		Unlimited bool       `json:"unlimited,omitempty" doc:"With mode set."`
		Scope     string     `json:"scope,omitempty" maxLength:"64" example:"api" doc:"Changes a rate: say requests and window."`
		Requests  *int64     `json:"requests,omitempty" minimum:"0"`
		Window    *int64     `json:"window,omitempty" minimum:"1" maximum:"34560000" doc:"Seconds."`
		StartsAt  *time.Time `json:"starts_at,omitempty" doc:"Default: now."`
		ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Default: never."`
		Reason    string     `json:"reason,omitempty" maxLength:"2000"`
	}
}

type revokeOverridesInput struct {
	AccountPath
	api.Match
}

type revokeOverrideInput struct {
	AccountPath
	api.Match
	Override string `path:"override_id" maxLength:"255"`
}

// revoked is the answer to the end of overrides.
type revokedOverrides struct {
	Message string `json:"message"`
	Count   int    `json:"count"`
}

func registerOverrides(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "list-overrides", Method: http.MethodGet, Path: "/v1/admin/accounts/{id}/overrides", Summary: "An account's own limits",
		Errors: []int{http.StatusNotFound},
	}, s.listOverrides)
	add(a, s, huma.Operation{
		OperationID: "create-override", Method: http.MethodPost, Path: "/v1/admin/accounts/{id}/overrides",
		Summary: "Give an account a limit of its own, or a top-up", DefaultStatus: http.StatusCreated,
		Description: "Of several that set the same limit the one that started last counts; top-ups add up.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, s.createOverride)
	add(a, s, huma.Operation{
		OperationID: "revoke-override", Method: http.MethodDelete, Path: "/v1/admin/accounts/{id}/overrides/{override_id}", Summary: "End one of them",
		Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, func(ctx context.Context, st *store.Companion, in *revokeOverrideInput) (revokedOverrides, string, error) {
		return revokeOverrides(ctx, st, &in.AccountPath, in.Match, in.Override)
	})
	add(a, s, huma.Operation{
		OperationID: "revoke-overrides", Method: http.MethodDelete, Path: "/v1/admin/accounts/{id}/overrides", Summary: "End all of them",
		Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, func(ctx context.Context, st *store.Companion, in *revokeOverridesInput) (revokedOverrides, string, error) {
		return revokeOverrides(ctx, st, &in.AccountPath, in.Match, "")
	})
}

func (s *service) listOverrides(ctx context.Context, st *store.Companion, in *AccountPath) (overrideList, string, error) {
	account, err := in.account(ctx, st)
	if err != nil {
		return overrideList{}, "", err
	}
	list, err := s.overridesOf(ctx, st, account)
	return overrideList{Overrides: list, Total: len(list)}, tagOf(list), err
}

// tagOf is the ETag of an account's overrides.
func tagOf(list []override) string {
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return api.ETag(store.OverridesVersion(ids))
}

func (s *service) overridesOf(ctx context.Context, st *store.Companion, account quota.Subject) ([]override, error) {
	quotas, rates, err := st.ListOverrides(ctx, account)
	list := make([]override, 0, len(quotas)+len(rates))
	now := s.now()
	for _, q := range quotas {
		o := override{
			ID: q.ID, Kind: "quota", Metric: &q.Metric, Mode: &q.Mode, Status: term(q.Starts, q.Expires, now),
			StartsAt: q.Starts.UTC(), ExpiresAt: moment(q.Expires), Reason: q.Reason, CreatedBy: q.By,
		}
		if !q.Unlimited {
			o.Limit = &q.Limit
		}
		list = append(list, o)
	}
	for _, r := range rates {
		window := int64(r.Rate.Window / time.Second)
		list = append(list, override{
			ID: r.ID, Kind: "rate", Scope: &r.Scope, Requests: &r.Rate.Requests, Window: &window, Status: term(r.Starts, r.Expires, now),
			StartsAt: r.Starts.UTC(), ExpiresAt: moment(r.Expires), Reason: r.Reason, CreatedBy: r.By,
		})
	}
	return list, err
}

// term is where now lies.
func term(starts, expires, now time.Time) string {
	switch {
	case starts.After(now):
		return "scheduled"
	case !expires.IsZero() && !expires.After(now):
		return "expired"
	}
	return "active"
}

func (s *service) createOverride(ctx context.Context, st *store.Companion, in *createOverrideInput) (override, string, error) {
	b := &in.Body
	switch {
	case (b.Metric == "") == (b.Scope == ""):
		return override{}, "", api.Invalid("metric", "want either a metric, whose quota is changed, or a scope, whose rate is")
	case b.Metric != "" && (b.Requests != nil || b.Window != nil):
		return override{}, "", api.Invalid("requests", "a quota has none")
	case b.Metric != "" && (b.Limit == nil) != b.Unlimited:
		return override{}, "", api.Invalid("limit", "want a number, or unlimited: true")
	case b.Scope != "" && (b.Limit != nil || b.Unlimited || b.Mode != ""):
		return override{}, "", api.Invalid("limit", "a rate has none: want requests and window")
	case b.Scope != "" && (b.Requests == nil || b.Window == nil):
		return override{}, "", api.Invalid("requests", "want requests and window")
	}
	account, err := in.account(ctx, st)
	if err != nil {
		return override{}, "", err
	}
	var starts, expires time.Time
	set(&starts, b.StartsAt)
	set(&expires, b.ExpiresAt)
	matches := precondition(in.Match, false).Matches
	var id string
	if b.Metric != "" {
		o := store.QuotaOverride{Metric: b.Metric, Mode: b.Mode, Unlimited: b.Unlimited, Starts: starts, Expires: expires, Reason: b.Reason, Matches: matches}
		set(&o.Limit, b.Limit)
		id, err = st.AddQuotaOverride(ctx, api.Actor(ctx), account, o)
	} else {
		id, err = st.AddRateOverride(ctx, api.Actor(ctx), account, store.RateOverride{
			Scope: b.Scope, Rate: quota.Rate{Requests: *b.Requests, Window: time.Duration(*b.Window) * time.Second},
			Starts: starts, Expires: expires, Reason: b.Reason, Matches: matches,
		})
	}
	if err != nil {
		return override{}, "", err
	}
	list, err := s.overridesOf(ctx, st, account)
	for _, o := range list {
		if o.ID == id {
			return o, tagOf(list), nil
		}
	}
	if err == nil {
		err = store.ErrOverrideNotFound // somebody has revoked it already
	}
	return override{}, "", err
}

func revokeOverrides(ctx context.Context, st *store.Companion, in *AccountPath, match api.Match, id string) (revokedOverrides, string, error) {
	account, err := in.account(ctx, st)
	if err != nil {
		return revokedOverrides{}, "", err
	}
	n, err := st.RevokeOverrides(ctx, api.Actor(ctx), account, store.Revocation{ID: id, Matches: precondition(match, false).Matches})
	message := "Override revoked"
	if id == "" {
		message = "All overrides revoked"
	}
	return revokedOverrides{message, n}, "", err
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
