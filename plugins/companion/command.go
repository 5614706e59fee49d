// Package companion is what stands beside the gateway: administration, accounts
// and billing. This package itself holds the commands of `caddy quota` that read
// and write the records; what is served over HTTP is in the packages below it.
package companion

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/spf13/cobra"
)

func init() {
	caddy.RegisterModule(AdminCommand{})
	caddy.RegisterModule(BillingCommand{})
	caddy.RegisterModule(PlansCommand{})
	caddy.RegisterModule(UsageCommand{})
}

// stored is implemented by records that are kept in package store.
type stored interface{ Store() *store.Store }

// storeOf is the store of the app's records, which are opened if they are not.
func storeOf(app *caddymodule.App) (*store.Companion, error) {
	records, err := app.Records()
	if err != nil {
		return nil, err
	}
	s, ok := records.(stored)
	if !ok {
		return nil, fmt.Errorf("the records of the config, %T, have no store", records)
	}
	return store.ForCompanion(s.Store()), nil
}

// withStore runs f with the records of the config that the command's flags
// name. The gateway may be running: it sees what was changed as it sees any change.
func withStore(cmd *cobra.Command, f func(*store.Companion) error) (err error) {
	app, closeApp, err := caddymodule.LoadApp(caddycmd.Flags{FlagSet: cmd.Flags()})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeApp(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing the records: %w", cerr))
		}
	}()
	s, err := storeOf(app)
	if err != nil {
		return err
	}
	return f(s)
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q: see %s --help", args[0], cmd.CommandPath())
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(below...)
	return cmd
}

// withJSON adds the flag --json.
func withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "Answer as JSON")
	return cmd
}

// answer writes v as JSON where --json asks for it, else the text.
func answer(cmd *cobra.Command, v any, text string) error {
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	if !asJSON {
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
	} else {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		err = e.Encode(v)
	}
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
