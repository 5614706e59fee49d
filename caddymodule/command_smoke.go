package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/quotagate/quotagate/caddymodule/smoke"
	"github.com/spf13/cobra"
)

// smokeUser is whose token is made where none is given: an account of its own,
// on the default plan, that no backend knows.
const smokeUser = "quotagate-smoke"

const (
	smokeTimeout  = 10 * time.Second // of one request
	smokePatience = 3 * time.Second  // for usage to show
)

// healthPort is where the Caddyfiles that come with Quotagate answer for health.
const healthPort = "9090"

// smokeCommand checks a gateway from outside after it was deployed.
func smokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "smoke <url>",
		Short: "Checks from outside that a gateway is well, verifies, limits and counts",
		Long: `
Asks the gateway at the URL, as a client does: whether it is well, whether it
refuses a bad token and accepts a good one, whether a limit shrinks with each
request, and whether usage rises. It takes a few requests of one user.

Without --token one is made for the user "` + smokeUser + `", as 'caddy quota token'
does, from the same config as the gateway's. The exit code is 1 if a check fails.`,
		Example: `  caddy quota smoke http://localhost:8080
  caddy quota smoke https://api.example.com --health http://10.0.0.5:9090 --token "$TOKEN" --path /items`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().String("token", "", "A valid token, with its scheme before it if that is not Bearer; by default one is made from the config")
	cmd.Flags().String("health", "", "Where /livez and /readyz are, by default port 9090 of the URL's host")
	cmd.Flags().String("path", "/", "What to ask for with the token, by GET")
	cmd.Flags().Bool("json", false, "Answer as JSON")
	cmd.RunE = runSmoke
	return cmd
}

func runSmoke(cmd *cobra.Command, args []string) error {
	target, err := smokeTarget(cmd, args[0])
	if err != nil {
		return err
	}
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	checks := smoke.Run(cmd.Context(), target)
	if asJSON {
		err = writeJSON(cmd, map[string]any{"ok": !smoke.Failed(checks), "checks": checks})
	} else {
		err = writeChecks(cmd, checks)
	}
	if err == nil && smoke.Failed(checks) {
		err = errors.New("the gateway did not pass")
	}
	return err
}

func writeChecks(cmd *cobra.Command, checks []smoke.Check) error {
	for _, c := range checks {
		word := "ok  "
		if !c.OK {
			word = "FAIL"
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %-18s %s\n", word, c.Name, c.Detail); err != nil {
			return fmt.Errorf("writing the answer: %w", err)
		}
	}
	return nil
}

func smokeTarget(cmd *cobra.Command, address string) (smoke.Target, error) {
	t := smoke.Target{URL: address, Patience: smokePatience, Client: &http.Client{
		Timeout:       smokeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return t, fmt.Errorf("%q is not a URL: write for example http://localhost:8080", address)
	}
	if t.Health, err = cmd.Flags().GetString("health"); err != nil {
		return t, err
	}
	t.Health = cmp.Or(t.Health, "http://"+net.JoinHostPort(u.Hostname(), healthPort))
	if t.Path, err = cmd.Flags().GetString("path"); err != nil {
		return t, err
	}
	given, err := cmd.Flags().GetString("token")
	if err != nil {
		return t, err
	}
	if t.Scheme, t.Token = credential(given); t.Token != "" {
		return t, nil
	}
	err = withApp(cmd, func(app *App) error {
		t.Token, t.Scheme, err = app.mint(smokeUser, nil, defaultTokenTTL)
		return err
	})
	return t, err
}
