package companion

import (
	"errors"
	"fmt"
	"os/user"
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

// operator is whoever has typed a command, for the audit log.
func operator() store.Actor {
	a := store.Actor{Type: store.ActorCLI}
	if u, err := user.Current(); err == nil { // only a label
		a.Label = u.Username
	}
	return a
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
	grant := withJSON(&cobra.Command{
		Use: "grant <user id>", Short: "Makes a user a superadmin", Args: cobra.ExactArgs(1), RunE: grantAdmin,
	})
	revoke := withJSON(&cobra.Command{
		Use: "revoke <user id> | --all", Short: "Takes the role of superadmin away",
		Long: `
Takes the role of superadmin away from a user, or with --all from everybody. The
last superadmin keeps it unless --all says that nobody is to have it: then only
bootstrap admins of the config are left.`,
		Args: cobra.MaximumNArgs(1), RunE: revokeAdmin,
	})
	revoke.Flags().Bool("all", false, "From everybody, the last one included")
	list := withJSON(&cobra.Command{Use: "list", Short: "Lists the superadmins", Args: cobra.NoArgs, RunE: listAdmins})
	return group("admin", "Says who may use the admin API", grant, revoke, list)
}

func grantAdmin(cmd *cobra.Command, args []string) error {
	return withStore(cmd, func(s *store.Companion) error {
		changed, err := s.GrantAdmin(cmd.Context(), args[0], operator())
		if err != nil {
			return err
		}
		text := "was a superadmin before"
		if changed {
			text = "is a superadmin now"
		}
		return answer(cmd, adminChange{args[0], changed}, fmt.Sprintf("%s %s\n", args[0], text))
	})
}

func revokeAdmin(cmd *cobra.Command, args []string) error {
	all, err := cmd.Flags().GetBool("all")
	if err != nil {
		return err
	}
	if all == (len(args) == 1) {
		return errors.New("name one user id, or write --all")
	}
	return withStore(cmd, func(s *store.Companion) error {
		if all {
			return revokeAllAdmins(cmd, s)
		}
		changed, err := s.RevokeAdmin(cmd.Context(), args[0], operator())
		if errors.Is(err, store.ErrLastSuperadmin) {
			return fmt.Errorf("%s is the last superadmin: grant the role to somebody else first, or write --all to leave nobody", args[0])
		}
		if err != nil {
			return err
		}
		text := "was no superadmin"
		if changed {
			text = "is no superadmin any more"
		}
		return answer(cmd, adminChange{args[0], changed}, fmt.Sprintf("%s %s\n", args[0], text))
	})
}

func revokeAllAdmins(cmd *cobra.Command, s *store.Companion) error {
	users, err := s.RevokeAllAdmins(cmd.Context(), operator())
	if err != nil {
		return err
	}
	changes := make([]adminChange, len(users))
	var text strings.Builder
	for i, id := range users {
		changes[i] = adminChange{id, true}
		fmt.Fprintf(&text, "%s is no superadmin any more\n", id)
	}
	if len(users) == 0 {
		text.WriteString("nobody was a superadmin\n")
	}
	return answer(cmd, changes, text.String())
}

func listAdmins(cmd *cobra.Command, _ []string) error {
	return withStore(cmd, func(s *store.Companion) error {
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
