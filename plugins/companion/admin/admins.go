package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// adminList is the answer of GET /v1/admin/admins.
type adminList struct {
	Admins []adminEntry `json:"admins" nullable:"false"`
}

type adminEntry struct {
	UserID    string    `json:"user_id"`
	Role      string    `json:"role" enum:"superadmin"`
	GrantedBy string    `json:"granted_by"`
	GrantedAt time.Time `json:"granted_at"`
}

func registerAdmins(a huma.API, s *service) {
	add(a, s, huma.Operation{
		OperationID: "list-admins", Method: http.MethodGet, Path: "/v1/admin/admins",
		Summary:     "Who administers",
		Description: "Those who were granted the role. Bootstrap admins stand in the config and not here.",
	}, func(ctx context.Context, st *store.Companion, _ *struct{}) (adminList, string, error) {
		admins, err := st.ListAdmins(ctx)
		list := adminList{Admins: make([]adminEntry, len(admins))}
		for i, a := range admins {
			list.Admins[i] = adminEntry{a.UserID, a.Role, a.GrantedBy, a.GrantedAt.UTC()}
		}
		return list, "", err
	})
}
