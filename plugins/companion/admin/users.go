package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/accounts"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

// UserPath is the id of a user in a path: any text of 1 to 255 bytes.
type UserPath struct {
	ID string `path:"id" maxLength:"255" doc:"The user as its tokens name it."`
}

type userListInput struct {
	api.Page
	Search string `query:"search" maxLength:"255" doc:"Looked for as it stands, in any case, in e-mail and username; an id must be equal. No character is a wildcard."`
	Status string `query:"status" maxLength:"64" doc:"As the list shows it, such as active, suspended or deleted."`
	Plan   string `query:"plan" maxLength:"64" doc:"The name of the plan in effect, the default plan included."`
	Sort   string `query:"sort" default:"-created_at" enum:"id,-id,email,-email,username,-username,created_at,-created_at" doc:"With - in front: the reverse."`
	Cursor string `query:"cursor" maxLength:"2048" doc:"next_cursor of the page before: costs the same however far in the list that is. Not together with skip."`
}

// adminUserList is the answer of GET /v1/admin/users.
type adminUserList struct {
	Users      []adminUser `json:"users" nullable:"false"`
	Total      int64       `json:"total" minimum:"0" doc:"How many match."`
	Skip       int64       `json:"skip" minimum:"0"`
	Limit      int64       `json:"limit" minimum:"1"`
	NextCursor *string     `json:"next_cursor" doc:"null: this was the last page."`
}

type adminUser struct {
	ID                 string     `json:"id"`
	Email              *string    `json:"email" doc:"null where the directory has none."`
	Username           *string    `json:"username"`
	Status             string     `json:"status" doc:"deleted or suspended by an admin, else the host's own word, else active."`
	IsSuperadmin       bool       `json:"is_superadmin" doc:"Was granted the role, or is listed in the config: by an address, what the user's token says of that counts too."`
	Plan               string     `json:"plan" doc:"The plan in effect."`
	SubscriptionStatus *string    `json:"subscription_status" doc:"null without a subscription."`
	CreatedAt          *time.Time `json:"created_at"`
}

// userDetail is the answer of GET and PATCH /v1/admin/users/{id}.
type userDetail struct {
	User           adminUser              `json:"user"`
	Subscription   *accounts.Subscription `json:"subscription"`
	Usage          userUsage              `json:"usage"`
	ActiveSessions []userSession          `json:"active_sessions" nullable:"false" doc:"The host's sessions that were not revoked, the latest first, at most 200."`
	Controls       userControls           `json:"controls"`
	Orgs           []userOrg              `json:"orgs" nullable:"false"`
	// HostUpdated is there in the answer of what writes the host's row.
	HostUpdated *bool   `json:"host_updated,omitempty" doc:"After a change of status: whether the backend's own table has it too. The gateway enforces it all the same."`
	HostReason  *string `json:"host_reason,omitempty" doc:"Why the backend's own table was not updated."`
}

// TransformSchema implements huma.SchemaTransformer: a reference has no tag by
// which it could be null.
func (userDetail) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["subscription"] = &huma.Schema{
		Description: "null for an account that never had one: it has the default plan.",
		AnyOf:       []*huma.Schema{s.Properties["subscription"], {Type: "null"}},
	}
	return s
}

// userUsage is this month, with all quotas beside it.
type userUsage struct {
	accounts.Usage
	Limits accounts.UsageLimits  `json:"limits" doc:"Each for its quota's own period. null: unlimited."`
	Quotas []accounts.QuotaUsage `json:"quotas" nullable:"false" doc:"Each quota by metric, in the metric's own unit."`
}

type userSession struct {
	ID         string     `json:"id"`
	UserAgent  *string    `json:"user_agent"`
	IP         *string    `json:"ip"`
	CreatedAt  *time.Time `json:"created_at"`
	LastSeenAt *time.Time `json:"last_seen_at"`
}

// userControls is what admins have decided.
type userControls struct {
	State            string     `json:"state" enum:"active,suspended,deleted"`
	Reason           *string    `json:"reason"`
	Until            *time.Time `json:"until" doc:"null: no end."`
	TokensValidAfter *time.Time `json:"tokens_valid_after" doc:"Tokens that were issued up to then are refused. null: none were revoked."`
	UpdatedBy        *string    `json:"updated_by"`
	UpdatedAt        *time.Time `json:"updated_at"`
}

type userOrg struct {
	ID   string `json:"id"`
	Role string `json:"role"`
}

func registerUsers(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/v1/admin/users", Summary: "The users",
		Description: "The backend's own table of users, where it can be read, else the callers whose tokens were seen.",
	}, s.listUsers)
	add(a, s, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/v1/admin/users/{id}", Summary: "One user, with everything about it",
		Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, st *store.Companion, in *UserPath) (userDetail, string, error) {
		return s.detail(ctx, st, in.ID)
	})
	registerUserChanges(a, s)
	registerBulk(a, s)
}

func (s *service) listUsers(ctx context.Context, st *store.Companion, in *userListInput) (adminUserList, string, error) {
	if in.Cursor != "" && in.Skip > 0 {
		return adminUserList{}, "", api.InvalidQuery("skip", "cannot be used together with cursor")
	}
	if in.Cursor == "" && in.Skip == 0 {
		_ = s.learn(ctx)
	}
	users, err := st.ListUsers(ctx, store.UserFilter{Search: in.Search, Status: in.Status, Plan: in.Plan}, store.UserPage{
		Sort: in.Sort, Limit: int(in.Limit), Skip: int(in.Skip), After: in.Cursor,
	})
	if err != nil {
		return adminUserList{}, "", api.QueryError(err)
	}
	list := adminUserList{
		Users: make([]adminUser, len(users.Users)), Total: users.Total, Skip: in.Skip, Limit: in.Limit, NextCursor: orNull(users.Next),
	}
	for i := range users.Users {
		list.Users[i] = s.userOf(&users.Users[i])
	}
	return list, "", nil
}

func (s *service) userOf(u *store.DirectoryUser) adminUser {
	email := ""
	if u.Email != nil {
		email = *u.Email
	}
	return adminUser{
		ID: u.ID, Email: u.Email, Username: u.Username, Status: u.Status, IsSuperadmin: u.Superadmin || s.lists(u.ID, email),
		Plan: u.Plan, SubscriptionStatus: orNull(string(u.Subscription)), CreatedAt: moment(u.CreatedAt),
	}
}

// detail is one user and the tag of its version.
func (s *service) detail(ctx context.Context, st *store.Companion, id string) (userDetail, string, error) {
	d, err := st.UserDetail(ctx, id)
	if err != nil {
		return userDetail{}, "", err
	}
	meter := accounts.Meter{Peek: s.peek, Now: s.now, Log: s.log}
	u, err := meter.Usage(ctx, st, d.State.Entitlement)
	if err != nil {
		return userDetail{}, "", err
	}
	sessions, err := st.UserSessions(ctx, d.User.ID)
	if err != nil {
		return userDetail{}, "", err
	}
	out := userDetail{
		User: s.userOf(&d.User), Subscription: accounts.SubscriptionOf(d.State.Subscription),
		Usage:          userUsage{Usage: u.Usage, Limits: u.Limits, Quotas: u.Quotas},
		ActiveSessions: make([]userSession, len(sessions)), Controls: controlsOf(&d.Control), Orgs: []userOrg{},
	}
	for i, v := range sessions {
		out.ActiveSessions[i] = userSession{v.ID, v.UserAgent, v.IP, moment(v.CreatedAt), moment(v.LastSeenAt)}
	}
	return out, api.ETag(d.Version), nil
}

func controlsOf(c *store.UserControl) userControls {
	state := map[quota.Control]string{
		quota.ControlActive: "active", quota.ControlSuspended: "suspended", quota.ControlDeleted: "deleted",
	}[c.State]
	return userControls{
		State: state, Reason: orNull(c.Reason), Until: moment(c.Until), TokensValidAfter: moment(c.TokensValidAfter),
		UpdatedBy: orNull(c.UpdatedBy), UpdatedAt: moment(c.UpdatedAt),
	}
}
