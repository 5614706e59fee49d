package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// maxBulk bounds the users of one request.
const maxBulk = 1000

type bulkInput struct{ Body bulkRequest }

type bulkRequest struct {
	IDs          []string    `json:"ids,omitempty" nullable:"true" minItems:"1" maxItems:"1000" doc:"Either these, or a filter."`
	Filter       *bulkFilter `json:"filter,omitempty" doc:"All that match now, at most 1000."`
	Action       string      `json:"action" enum:"suspend,activate,delete,restore,revoke_sessions,change_plan"`
	PlanName     string      `json:"plan_name,omitempty" maxLength:"64" doc:"For change_plan."`
	DurationDays int64       `json:"duration_days,omitempty" minimum:"1" maximum:"36500" doc:"For change_plan; without it: for ever."`
	Reason       string      `json:"reason" minLength:"1" maxLength:"2000"`
	DryRun       bool        `json:"dry_run,omitempty" doc:"Say what would become of each user, and change nothing."`
}

type bulkFilter struct {
	Search string `json:"search,omitempty" maxLength:"255"`
	Status string `json:"status,omitempty" maxLength:"64"`
	Plan   string `json:"plan,omitempty" maxLength:"64"`
}

// bulkAnswer is the answer of POST /v1/admin/users/bulk.
type bulkAnswer struct {
	DryRun    bool         `json:"dry_run"`
	Changed   int          `json:"changed" minimum:"0"`
	Unchanged int          `json:"unchanged" minimum:"0"`
	Failed    int          `json:"failed" minimum:"0"`
	Results   []bulkResult `json:"results" nullable:"false"`
}

type bulkResult struct {
	ID     string  `json:"id"`
	Result string  `json:"result" enum:"changed,unchanged,failed"`
	Error  *string `json:"error,omitempty" doc:"Why it has failed: not_found, cannot_modify_self, last_superadmin, stripe_managed, user_deleted, unavailable and the like."`
}

func registerBulk(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "change-users", Method: http.MethodPost, Path: "/v1/admin/users/bulk",
		Summary:     "Does the same to many users",
		Description: "Each user by itself: what fails for one is said in its result and keeps nobody else's from being done.",
	}, s.bulk)
}

func (s *service) bulk(ctx context.Context, st *store.Companion, in *bulkInput) (bulkAnswer, string, error) {
	b := &in.Body
	switch {
	case (len(b.IDs) > 0) == (b.Filter != nil):
		return bulkAnswer{}, "", api.Invalid("ids", "name either ids or a filter")
	case b.Filter != nil && *b.Filter == bulkFilter{}:
		return bulkAnswer{}, "", api.Invalid("filter", "is empty: it would be everybody")
	case (b.Action == "change_plan") != (b.PlanName != ""):
		return bulkAnswer{}, "", api.Invalid("plan_name", "goes with the action change_plan, and that with it")
	case b.DurationDays != 0 && b.PlanName == "":
		return bulkAnswer{}, "", api.Invalid("duration_days", "needs a plan_name")
	}
	_ = s.learn(ctx)
	ids, err := s.bulkIDs(ctx, st, b)
	if err != nil {
		return bulkAnswer{}, "", err
	}
	out := bulkAnswer{DryRun: b.DryRun, Results: make([]bulkResult, 0, len(ids))}
	for _, id := range ids {
		r := bulkResult{ID: id, Result: "unchanged"}
		done, err := s.bulkOne(ctx, st, b, id)
		switch {
		case err != nil:
			code := s.code(ctx, err)
			r.Result, r.Error = "failed", &code
			out.Failed++
		case done.Changed:
			r.Result = "changed"
			out.Changed++
		default:
			out.Unchanged++
		}
		out.Results = append(out.Results, r)
	}
	return out, "", nil
}

// bulkIDs are the users, each once.
func (s *service) bulkIDs(ctx context.Context, st *store.Companion, b *bulkRequest) ([]string, error) {
	if b.Filter == nil {
		ids := slices.Clone(b.IDs)
		slices.Sort(ids)
		return slices.Compact(ids), nil
	}
	const page = 200
	var ids []string
	p := store.UserPage{Sort: "id", Limit: page}
	for {
		users, err := st.ListUsers(ctx, store.UserFilter{Search: b.Filter.Search, Status: b.Filter.Status, Plan: b.Filter.Plan}, p)
		if err != nil {
			return nil, err
		}
		if users.Total > maxBulk {
			return nil, api.Invalid("filter", fmt.Sprintf("matches %d users: at most %d can be changed at once", users.Total, maxBulk))
		}
		for i := range users.Users {
			ids = append(ids, users.Users[i].ID)
		}
		if users.Next == "" || len(ids) > maxBulk {
			return ids[:min(len(ids), maxBulk)], nil
		}
		p.After = users.Next
	}
}

func (s *service) bulkOne(ctx context.Context, st *store.Companion, b *bulkRequest, id string) (*store.UserResult, error) {
	by, p := s.actor(ctx), store.Precondition{DryRun: b.DryRun}
	switch b.Action {
	case "suspend":
		return st.PatchUser(ctx, by, id, store.UserPatch{Precondition: p, Status: "suspended", Reason: b.Reason})
	case "activate":
		return st.PatchUser(ctx, by, id, store.UserPatch{Precondition: p, Status: "active", Reason: b.Reason})
	case "change_plan":
		return st.PatchUser(ctx, by, id, store.UserPatch{
			Precondition: p, Plan: b.PlanName, Duration: time.Duration(b.DurationDays) * 24 * time.Hour, Reason: b.Reason,
		})
	case "delete":
		return st.RemoveUser(ctx, by, id, store.Removal{Precondition: p, Reason: b.Reason, Seal: s.seal})
	case "restore":
		return st.RestoreUser(ctx, by, id, store.Restoration{Precondition: p, Reason: b.Reason, Open: s.unseal})
	}
	return st.LogOutUser(ctx, by, id, b.Reason, p)
}

// code is what one user's result says of an error.
func (s *service) code(ctx context.Context, err error) string {
	var answer *api.Error
	if !errors.As(s.failure(ctx, "change-users", err), &answer) {
		return "unavailable"
	}
	if d, ok := answer.Detail.(api.Refusal); ok {
		return d.Code
	}
	switch answer.GetStatus() {
	case http.StatusNotFound:
		return "not_found"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusUnprocessableEntity:
		return "invalid"
	}
	return "unavailable"
}
