package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

type userPatchInput struct {
	UserPath
	api.Match
	Body userPatch
}

type userPatch struct {
	Status       *string `json:"status,omitempty" nullable:"true" enum:"active,suspended" doc:"To delete and restore users has operations of its own."`
	PlanName     *string `json:"plan_name,omitempty" nullable:"true" minLength:"1" maxLength:"64" doc:"The user has the plan at once. What was used stays used."`
	DurationDays *int64  `json:"duration_days,omitempty" nullable:"true" minimum:"1" maximum:"36500" doc:"How long the user has the plan; without it: for ever."`
	Force        bool    `json:"force,omitempty" doc:"Change a subscription that Stripe manages: Stripe may change it back."`
	Reason       *string `json:"reason,omitempty" nullable:"true" maxLength:"2000"`
}

// reasonInput is a change that only has a reason.
type reasonInput struct {
	UserPath
	api.Match
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"2000"`
	}
}

func (in *reasonInput) reason() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.Reason
}

// userRemoved is the answer of a deletion or a restoration.
type userRemoved struct {
	Message     string  `json:"message"`
	HostUpdated *bool   `json:"host_updated,omitempty" doc:"Whether the backend's own table has the status too. Absent: it was so before."`
	HostReason  *string `json:"host_reason,omitempty" doc:"Why it does not."`
	EmailMoved  *bool   `json:"email_moved,omitempty" doc:"Whether the e-mail address was freed, or given back. Absent: there is none."`
	EmailReason *string `json:"email_reason,omitempty" doc:"Why it was not."`
}

// sessionsRevoked is the answer of POST /v1/admin/users/{id}/revoke-sessions.
type sessionsRevoked struct {
	Message string `json:"message"`
	Count   int64  `json:"count" minimum:"0" doc:"Sessions of the backend's own table. All tokens that were issued up to now are refused, also where it has none."`
}

func registerUserChanges(a huma.API, s *service) {
	conflicts := []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed}
	add(a, s, huma.Operation{
		OperationID: "patch-user", Method: http.MethodPatch, Path: "/v1/admin/users/{id}",
		Summary: "Suspends or activates a user, or changes its plan", Errors: conflicts,
		Description: "All of it or nothing. 409: cannot_modify_self, last_superadmin, stripe_managed, plan_inactive, user_deleted.",
	}, s.patchUser)
	add(a, s, huma.Operation{
		OperationID: "delete-user", Method: http.MethodDelete, Path: "/v1/admin/users/{id}",
		Summary: "Keeps a user out as deleted", Errors: conflicts,
		Description: "Nothing of what the user has made is removed. Sessions end, and the e-mail address can be used again. " +
			"A user who is deleted stays so. 409: cannot_modify_self, last_superadmin.",
	}, s.deleteUser)
	add(a, s, huma.Operation{
		OperationID: "restore-user", Method: http.MethodPost, Path: "/v1/admin/users/{id}/restore",
		Summary: "Lets a deleted user in again", Errors: conflicts,
		Description: "With the e-mail address from before, if nobody else has that by now. Tokens from before stay revoked, and so does the role of an admin.",
	}, s.restoreUser)
	add(a, s, huma.Operation{
		OperationID: "revoke-user-sessions", Method: http.MethodPost, Path: "/v1/admin/users/{id}/revoke-sessions",
		Summary: "Logs a user out everywhere", Errors: conflicts,
	}, s.revokeSessions)
	add(a, s, huma.Operation{
		OperationID: "clear-user-rate-limits", Method: http.MethodPost, Path: "/v1/admin/users/{id}/clear-rate-limits",
		Summary: "Lets a user who has run into a rate limit try again", Errors: []int{http.StatusNotFound},
		Description: "Quotas stay as they are. Limits by address are not a user's and stay too.",
	}, s.clearRateLimits)
}

// precondition is what If-Match says.
func precondition(m api.Match, dryRun bool) store.Precondition {
	p := store.Precondition{DryRun: dryRun}
	if m.IfMatch != "" {
		p.Matches = func(version string) bool { return m.Matches(api.ETag(version)) }
	}
	return p
}

func (s *service) patchUser(ctx context.Context, st *store.Companion, in *userPatchInput) (userDetail, string, error) {
	p := store.UserPatch{
		Precondition: precondition(in.Match, false), Status: value(in.Body.Status), Plan: value(in.Body.PlanName),
		Duration: time.Duration(value(in.Body.DurationDays)) * 24 * time.Hour, Force: in.Body.Force, Reason: value(in.Body.Reason),
	}
	r, err := st.PatchUser(ctx, s.actor(ctx), in.ID, p)
	if err != nil {
		return userDetail{}, "", err
	}
	d, tag, err := s.detail(ctx, st, r.UserID)
	if r.Host != nil {
		d.HostUpdated, d.HostReason = &r.Host.Updated, orNull(r.Host.Reason)
	}
	return d, tag, err
}

func (s *service) deleteUser(ctx context.Context, st *store.Companion, in *struct {
	UserPath
	api.Match
}) (userRemoved, string, error) {
	r, err := st.RemoveUser(ctx, s.actor(ctx), in.ID, store.Removal{Precondition: precondition(in.Match, false), Seal: s.seal})
	return removed(r, "User deleted successfully"), "", err
}

func (s *service) restoreUser(ctx context.Context, st *store.Companion, in *reasonInput) (userRemoved, string, error) {
	r, err := st.RestoreUser(ctx, s.actor(ctx), in.ID, store.Restoration{
		Precondition: precondition(in.Match, false), Reason: in.reason(), Open: s.unseal,
	})
	return removed(r, "User restored successfully"), "", err
}

func removed(r *store.UserResult, message string) userRemoved {
	out := userRemoved{Message: message}
	if r == nil {
		return out
	}
	if r.Host != nil {
		out.HostUpdated, out.HostReason = &r.Host.Updated, orNull(r.Host.Reason)
	}
	if r.Email != nil {
		out.EmailMoved, out.EmailReason = &r.Email.Updated, orNull(r.Email.Reason)
	}
	return out
}

func (s *service) revokeSessions(ctx context.Context, st *store.Companion, in *reasonInput) (sessionsRevoked, string, error) {
	r, err := st.LogOutUser(ctx, s.actor(ctx), in.ID, in.reason(), precondition(in.Match, false))
	if err != nil {
		return sessionsRevoked{}, "", err
	}
	return sessionsRevoked{fmt.Sprintf("Revoked %d sessions", r.Sessions), r.Sessions}, "", nil
}

// actor is whoever asks, for the store.
func (s *service) actor(ctx context.Context) store.Actor {
	a := api.Actor(ctx)
	if c, err := api.Caller(ctx); err == nil {
		a.Bootstrap = s.bootstraps(c.Principal)
	}
	return a
}

func value[T any](p *T) T {
	var none T
	if p == nil {
		return none
	}
	return *p
}
