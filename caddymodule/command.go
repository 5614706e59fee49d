package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "quota",
		Usage: "<command> [--config <path>] [--adapter <name>]",
		Short: "Looks at and changes what Quotagate knows",
		Long: `
Looks at and changes what Quotagate knows: its schema, plans, admins and usage.

Every command reads the quota options of the same config as 'caddy run' does:
the Caddyfile in this folder, or the file that --config names. The gateway may
be running meanwhile.`,
		CobraFunc: quotaCommand,
	})
}

// Commander is a module in the namespace quota.commands: a subcommand of
// `caddy quota` that needs more than the host knows. It has no config.
type Commander interface {
	caddy.Module
	Command() *cobra.Command
}

// The flags that all subcommands share, as of `caddy run`.
const (
	flagConfig  = "config"
	flagAdapter = "adapter"
)

func quotaCommand(cmd *cobra.Command) {
	cmd.PersistentFlags().StringP(flagConfig, "c", "", "Configuration file, by default the Caddyfile in this folder")
	cmd.PersistentFlags().StringP(flagAdapter, "a", "", "Name of the config adapter to apply")
	cmd.AddCommand(migrateCommand(), tokenCommand(), explainCommand(), smokeCommand(), doctorCommand())
	for _, m := range caddy.GetModules("quota.commands") {
		if c, ok := m.New().(Commander); ok {
			cmd.AddCommand(c.Command())
		}
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q: see %s --help", args[0], cmd.CommandPath())
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// fileConfig is what the commands read of a config file.
type fileConfig struct {
	raw  []byte // as JSON; nil where there is no file
	file string

	Admin struct {
		Disabled bool `json:"disabled"`
	} `json:"admin"`
	Apps struct {
		Quota     json.RawMessage `json:"quota"`
		Companion json.RawMessage `json:"quota_companion"`
	} `json:"apps"`
}

// readConfig adapts the file that the flags name. Caddy's lines about the way
// there are not what a command was called for: its log begins at warnings.
func readConfig(fl caddycmd.Flags) (*fileConfig, error) {
	if _, err := caddy.ProvisionContext(quietConfig()); err != nil {
		return nil, fmt.Errorf("setting up the log: %w", err)
	}
	raw, file, _, err := caddycmd.LoadConfig(fl.String(flagConfig), fl.String(flagAdapter))
	if err != nil {
		return nil, err
	}
	c := &fileConfig{raw: raw, file: file}
	if raw == nil {
		return c, nil
	}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("reading the config %s: %w", file, err)
	}
	return c, nil
}

// LoadApp is the app `quota` of the config file that the flags name, for a
// command: provisioned, with its records opened when they are asked for, and
// without listeners, an admin API or anything that runs in the background. The
// counters in memory belong to the running gateway and must not be opened. The
// function that is returned closes what was opened.
func LoadApp(fl caddycmd.Flags) (*App, func() error, error) {
	c, err := readConfig(fl)
	if err != nil {
		return nil, nil, err
	}
	return c.app()
}

// LoadCompanion is LoadApp, with the app quota_companion of the same config
// beside it, provisioned and not started; nil where the config has none.
func LoadCompanion(fl caddycmd.Flags) (*App, caddy.App, func() error, error) {
	c, err := readConfig(fl)
	if err != nil {
		return nil, nil, nil, err
	}
	const name = "quota_companion"
	beside := caddy.ModuleMap{}
	if c.Apps.Companion != nil {
		beside[name] = c.Apps.Companion
	}
	app, ctx, err := c.provision(beside)
	if err != nil {
		return nil, nil, nil, err
	}
	var companion caddy.App
	if c.Apps.Companion != nil {
		v, err := ctx.AppIfConfigured(name)
		if err != nil {
			return nil, nil, nil, errors.Join(fmt.Errorf("loading the %s options of %s: %w", name, c.file, err), app.Cleanup())
		}
		companion = v.(caddy.App)
	}
	return app, companion, func() error {
		var err error
		if cleaner, ok := companion.(caddy.CleanerUpper); ok {
			err = cleaner.Cleanup()
		}
		return errors.Join(err, app.Cleanup())
	}, nil
}

func (c *fileConfig) app() (*App, func() error, error) {
	app, _, err := c.provision(caddy.ModuleMap{})
	if err != nil {
		return nil, nil, err
	}
	return app, app.Cleanup, nil
}

// provision makes the app `quota`, and those beside it.
func (c *fileConfig) provision(apps caddy.ModuleMap) (*App, caddy.Context, error) {
	if c.raw == nil {
		return nil, caddy.Context{}, errors.New("there is no Caddyfile in this folder: name the config with --config")
	}
	apps["quota"] = c.Apps.Quota
	if c.Apps.Quota == nil {
		apps["quota"] = json.RawMessage("{}") // the defaults, as for a directive without the option
	}
	config := quietConfig()
	config.AppsRaw = apps
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, ctx, fmt.Errorf("loading the quota options of %s: %w", c.file, err)
	}
	v, err := ctx.AppIfConfigured("quota")
	if err != nil {
		return nil, ctx, fmt.Errorf("loading the quota options of %s: %w", c.file, err)
	}
	app, ok := v.(*App)
	if !ok {
		return nil, ctx, fmt.Errorf("loading the quota options of %s: the app is a %T", c.file, v)
	}
	return app, ctx, nil
}

func quietConfig() *caddy.Config {
	return &caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{Level: "WARN"}}}},
	}
}

// withApp runs f with the app, and closes what it has opened.
func withApp(cmd *cobra.Command, f func(*App) error) (err error) {
	app, closeApp, err := LoadApp(caddycmd.Flags{FlagSet: cmd.Flags()})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeApp(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing: %w", cerr))
		}
	}()
	return f(app)
}

// writeJSON writes an answer that a program may read.
func writeJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
