package companion

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/spf13/cobra"
)

// BillingCommand is `caddy quota billing drift`: in what the records and the
// payment provider differ.
type BillingCommand struct{}

// CaddyModule returns the module's information.
func (BillingCommand) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.commands.billing", New: func() caddy.Module { return new(BillingCommand) }}
}

// Command implements caddymodule.Commander.
func (*BillingCommand) Command() *cobra.Command {
	drift := withJSON(&cobra.Command{
		Use: "drift", Short: "Shows in what the records and the payment provider differ",
		Long: `
Shows what the last nightly comparison of all subscriptions has found; with --now
the payment provider is asked now. Nothing is changed: what differs is mended by
the companion, which reads those customers again.`,
		Args: cobra.NoArgs, RunE: showDrift,
	})
	drift.Flags().Bool("now", false, "Compare now")
	return group("billing", "Looks at what was sold", drift)
}

// driftAnswer is the JSON answer of drift.
type driftAnswer struct {
	ComparedAt *time.Time `json:"compared_at"` // null: never
	billing.Comparison
}

func showDrift(cmd *cobra.Command, _ []string) (err error) {
	now, err := cmd.Flags().GetBool("now")
	if err != nil {
		return err
	}
	quotaApp, beside, closeApps, err := caddymodule.LoadCompanion(caddycmd.Flags{FlagSet: cmd.Flags()})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeApps(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing the records: %w", cerr))
		}
	}()
	app, _ := beside.(*App)
	if app == nil || app.billing == nil {
		return errors.New("the config has no payment provider: see the option billing of quota_companion")
	}
	var a driftAnswer
	if now {
		c, err := app.billing.Compare(cmd.Context())
		if err != nil {
			return err
		}
		at := time.Now().UTC()
		a = driftAnswer{&at, *c}
	} else {
		s, err := storeOf(quotaApp)
		if err != nil {
			return err
		}
		at, c, err := billing.LastComparison(cmd.Context(), s)
		if err != nil {
			return err
		}
		a.Comparison = c
		if !at.IsZero() {
			a.ComparedAt = &at
		}
	}
	return answer(cmd, a, a.text())
}

func (a *driftAnswer) text() string {
	if a.ComparedAt == nil {
		return "nothing was compared yet: the companion does so each night, or use --now\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d subscriptions compared at %s, %d differ\n", a.Compared, a.ComparedAt.UTC().Format(time.RFC3339), a.Drifted)
	for _, d := range a.Drifts {
		fmt.Fprintf(&b, "%-8s %s of account %s %s\n", d.Kind, d.Subscription, d.Account, strings.Join(d.Fields, ", "))
	}
	if more := a.Drifted - len(a.Drifts); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	return b.String()
}

// Interface guard.
var _ caddymodule.Commander = (*BillingCommand)(nil)
