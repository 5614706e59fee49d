package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/spf13/cobra"
)

// doctorTimeout bounds the whole examination: a server that does not answer is a finding.
const doctorTimeout = 30 * time.Second

// doctorCommand examines what the config leads to.
func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Looks at what the config leads to, and says what to configure",
		Long: `
Looks at the database, the backends' own tables in it, the counters and the keys
that the config names, and says of each whether it is well (ok), could be better
(warn) or does not do what the config asks for (fail), and what to write or to run
about it. Nothing is changed. The gateway may be running, or be yet to be started.

With --token it also says which verifier claims a token of your auth backend, whom
it names, and what the others have against it.

The exit code is 1 if a check fails.`,
		Example: `  caddy quota doctor
  caddy quota doctor --config /etc/quotagate/Caddyfile --token "$TOKEN" --json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("token", "", "A token as the auth backend issues it")
	cmd.Flags().Bool("json", false, "Answer as JSON")
	cmd.RunE = runDoctor
	return cmd
}

func runDoctor(cmd *cobra.Command, _ []string) error {
	token, err := cmd.Flags().GetString("token")
	if err != nil {
		return err
	}
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	return withApp(cmd, func(app *App) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), doctorTimeout)
		defer cancel()
		findings := app.examine(ctx)
		if token != "" {
			findings = append(findings, app.examineToken(ctx, token)...)
		}
		if asJSON {
			err = writeJSON(cmd, map[string]any{"ok": !doctor.Failed(findings), "findings": findings})
		} else {
			err = writeFindings(cmd.OutOrStdout(), findings)
		}
		if err == nil && doctor.Failed(findings) {
			err = errors.New("something does not do what the config asks for")
		}
		return err
	})
}

func writeFindings(w io.Writer, findings []doctor.Finding) error {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-4s %-14s %s\n", f.Level, f.Check, f.Detail)
		if f.Configure != "" {
			b.WriteString("\n\t" + strings.ReplaceAll(f.Configure, "\n", "\n\t") + "\n\n")
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// examine asks each guest that can say something about itself.
func (a *App) examine(ctx context.Context) []doctor.Finding {
	guests := []any{a.records, a.counters}
	for _, v := range a.verifiers {
		guests = append(guests, v)
	}
	var findings []doctor.Finding
	for _, g := range guests {
		if e, ok := g.(Examiner); ok {
			findings = append(findings, e.Examine(ctx, a.runtime.env)...)
		}
	}
	if len(a.verifiers) == 0 {
		findings = append(findings, doctor.Doubt("verify", "no verifier: every caller is anonymous, and has base limits by address").
			Do("verify jwt {\n\tsecret {env.JWT_SECRET}\n\talgorithms HS256\n}"))
	}
	return findings
}

// examineToken asks the verifiers in their order, as a request does: the first
// that claims the token decides.
func (a *App) examineToken(ctx context.Context, token string) []doctor.Finding {
	_, token = credential(token)
	var findings []doctor.Finding
	for _, v := range a.verifiers {
		e, ok := v.(TokenExaminer)
		if !ok {
			continue
		}
		claimed, fs := e.ExamineToken(ctx, token)
		findings = append(findings, fs...)
		if claimed {
			return findings
		}
	}
	if len(a.verifiers) == 0 {
		return append(findings, doctor.Fault("token", "there is no verifier: a request with it is anonymous"))
	}
	return append(findings, doctor.Fault("token", "no verifier claims it: a request with it gets 401"))
}
