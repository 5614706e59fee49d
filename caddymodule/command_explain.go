package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// explainCommand asks the running gateway what would become of a request.
func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain <method> <url>",
		Short: "Says whether the running gateway would admit a request, and why",
		Long: `
Asks the running gateway what would become of a request: who the caller is, which
rules match, what each counter says. Nothing is charged, and nothing reaches a
backend. The gateway is asked through its admin API, by default at the address
that the config says.`,
		Example: `  caddy quota explain POST http://localhost:8080/jobs --user 42
  caddy quota explain GET /v1/auth/login --ip 203.0.113.7 --json`,
		Args: cobra.ExactArgs(2),
	}
	f := cmd.Flags()
	f.StringArrayP("header", "H", nil, `A field of the request, "Name: value"; may be repeated`)
	f.String("token", "", "Token of the caller, with its scheme before it if that is not Bearer")
	f.String("user", "", "Id of the caller, for whom a token is made as by 'caddy quota token'")
	f.String("ip", "", "Address that the request comes from (default 127.0.0.1)")
	f.String("listen", "", "Server to ask, by its name or address (default: by the URL's port, else all)")
	f.String("address", "", "Address of the gateway's admin API (default: the config's)")
	f.Bool("json", false, "Answer as JSON")
	cmd.MarkFlagsMutuallyExclusive("token", "user")
	cmd.RunE = runExplain
	return cmd
}

func runExplain(cmd *cobra.Command, args []string) error {
	fl := caddycmd.Flags{FlagSet: cmd.Flags()}
	ask := ExplainRequest{
		Method: strings.ToUpper(args[0]), URL: args[1], RemoteIP: fl.String("ip"), Listen: fl.String("listen"),
		Headers: map[string]HeaderValues{},
	}
	lines, err := cmd.Flags().GetStringArray("header")
	if err != nil {
		return err
	}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return fmt.Errorf("header %q: write \"Name: value\"", line)
		}
		ask.Headers[name] = append(ask.Headers[name], strings.TrimSpace(value))
	}
	config, err := readConfig(fl)
	if err != nil {
		return err
	}
	if err := config.addCredential(&ask, fl); err != nil {
		return err
	}
	address, err := config.adminAddress(fl.String("address"))
	if err != nil {
		return err
	}
	explained, err := askExplain(address, &ask)
	if err != nil {
		return err
	}
	if fl.Bool("json") {
		return writeJSON(cmd, explained)
	}
	return writeExplained(cmd.OutOrStdout(), explained)
}

// addCredential adds the token of --token or of --user.
func (c *fileConfig) addCredential(ask *ExplainRequest, fl caddycmd.Flags) error {
	scheme, token := credential(fl.String("token"))
	if user := fl.String("user"); user != "" {
		app, closeApp, err := c.app()
		if err != nil {
			return err
		}
		token, scheme, err = app.mint(user, nil, defaultTokenTTL)
		if err := errors.Join(err, closeApp()); err != nil {
			return err
		}
	}
	if token != "" {
		ask.Headers["Authorization"] = append(ask.Headers["Authorization"], scheme+" "+token)
	}
	return nil
}

// adminAddress is where the running gateway's admin API listens.
func (c *fileConfig) adminAddress(flag string) (string, error) {
	if flag == "" && c.Admin.Disabled {
		return "", fmt.Errorf("the config %s switches the admin API off, which explain asks: the gateway needs one, e.g. admin localhost:2019", c.file)
	}
	address, err := caddycmd.DetermineAdminAPIAddress(flag, c.raw, c.file, "")
	if err != nil {
		return "", fmt.Errorf("finding the admin API: %w", err)
	}
	return address, nil
}

func askExplain(address string, ask *ExplainRequest) (*Explained, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodPost, "/quota/explain", nil, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking the gateway at %s: %w (explain asks a running gateway: start it, or name its admin API with --address)", address, err)
	}
	var explained Explained
	err = json.NewDecoder(resp.Body).Decode(&explained)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the answer of the gateway at %s: %w", address, err)
	}
	return &explained, nil
}
