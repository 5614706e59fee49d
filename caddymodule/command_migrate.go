package caddymodule

import (
	"fmt"

	"github.com/spf13/cobra"
)

// migrateCommand brings the schema of the records up or down, or shows it.
func migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate up|down|status",
		Short: "Brings the schema of the records up to date, one step back, or shows it",
		Long: `
Changes the schema of the records: 'up' to what this build needs, 'down' by one
migration, which loses what stands in the tables that it drops. 'status' changes
nothing and lists the migrations, applied and pending.`,
		Example:   "  caddy quota migrate up --config /etc/caddy/Caddyfile",
		ValidArgs: []string{"up", "down", "status"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("want exactly one of up, down and status")
			}
			return checkChoice(args[0], "up", "down", "status")
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withApp(cmd, func(app *App) error {
			m, ok := app.records.(Migrator)
			if !ok {
				return fmt.Errorf("%T has no schema to migrate", app.records)
			}
			return m.Migrate(cmd.Context(), args[0], cmd.OutOrStdout())
		})
	}
	return cmd
}
