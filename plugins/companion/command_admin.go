package companion

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/spf13/cobra"
)

// AdminCommand is `caddy quota admin grant|revoke|list`: who may use the admin
// API. It is how the first admin comes to be.
type AdminCommand struct{}

// CaddyModule returns the module's information.
func (AdminCommand) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.commands.admin", New: func() caddy.Module { return new(AdminCommand) }}
}

// adminChange is the JSON answer of grant and revoke.
type adminChange struct {
	UserID string `json:"user_id"`
	// Changed is false where it was so before.
	Changed bool `json:"changed"`
}

// adminItem is one admin in the JSON answer of list.
type adminItem struct {
	UserID    string    `json:"user_id"`
	Role      string    `json:"role"`
	GrantedBy string    `json:"granted_by"`
	GrantedAt time.Time `json:"granted_at"`
}

// Command implements caddymodule.Commander.
func (*AdminCommand) Command() *cobra.Command {
	grant := adminChanger("grant <user id>", "Makes a user a superadmin", "is a superadmin now", "was a superadmin before",
		func(ctx context.Context, s *store.Store, user string) (bool, error) {
			return s.GrantAdmin(ctx, user, byOperator)
		})
	revoke := adminChanger("revoke <user id>", "Takes the role of superadmin away", "is no superadmin any more", "was no superadmin",
		func(ctx context.Context, s *store.Store, user string) (bool, error) { return s.RevokeAdmin(ctx, user) })
	list := withJSON(&cobra.Command{Use: "list", Short: "Lists the superadmins", Args: cobra.NoArgs, RunE: listAdmins})
	return group("admin", "Says who may use the admin API", grant, revoke, list)
}

func adminChanger(use, short, done, already string,
	change func(context.Context, *store.Store, string) (bool, error),
) *cobra.Command {
	return withJSON(&cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, func(s *store.Store) error {
				changed, err := change(cmd.Context(), s, args[0])
				if err != nil {
					return err
				}
				text := already
				if changed {
					text = done
				}
				return answer(cmd, adminChange{args[0], changed}, fmt.Sprintf("%s %s\n", args[0], text))
			})
		},
	})
}

func listAdmins(cmd *cobra.Command, _ []string) error {
	return withStore(cmd, func(s *store.Store) error {
		admins, err := s.ListAdmins(cmd.Context())
		if err != nil {
			return err
		}
		items := make([]adminItem, len(admins))
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		for i, a := range admins {
			items[i] = adminItem{a.UserID, a.Role, a.GrantedBy, a.GrantedAt.UTC()}
			fmt.Fprintf(t, "%s\t%s\t%s\tby %s\n", a.UserID, a.Role, a.GrantedAt.UTC().Format(time.RFC3339), a.GrantedBy)
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("formatting the list: %w", err)
		}
		if len(admins) == 0 {
			b.WriteString("nobody: grant the role with caddy quota admin grant <user id>\n")
		}
		return answer(cmd, items, b.String())
	})
}

// Interface guard.
var _ caddymodule.Commander = (*AdminCommand)(nil)
