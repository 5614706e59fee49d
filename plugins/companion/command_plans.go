package companion

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/spf13/cobra"
)

// PlansCommand is `caddy quota plans export|apply`: the plans as one document
// that can be kept under version control.
type PlansCommand struct{}

// maxPlans bounds a plans document, in bytes.
const maxPlans = 4 << 20

// CaddyModule returns the module's information.
func (PlansCommand) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.commands.plans", New: func() caddy.Module { return new(PlansCommand) }}
}

// applied is the JSON answer of apply.
type applied struct {
	Created   []string `json:"created"`
	Updated   []string `json:"updated"`
	Unchanged []string `json:"unchanged"`
	Untouched []string `json:"untouched"`
}

// Command implements caddymodule.Commander.
func (*PlansCommand) Command() *cobra.Command {
	export := withJSON(&cobra.Command{
		Use: "export [<file>]", Short: "Writes all plans as YAML, to the file or to standard output",
		Args: cobra.MaximumNArgs(1), RunE: exportPlans,
	})
	apply := withJSON(&cobra.Command{
		Use: "apply <file>", Short: "Makes the plans what the document says, all of them or none",
		Long: `
Makes the plans that a YAML or JSON document names what it says of them; - is
standard input. The document is checked as a whole first, and written in one
transaction. Plans that it does not name stay as they are: nothing deletes a
plan. A running gateway judges by the new plans within 2 seconds.`,
		Example: `  caddy quota plans export plans.yaml
  caddy quota plans apply plans.yaml`,
		Args: cobra.ExactArgs(1), RunE: applyPlans,
	})
	return group("plans", "Shows and changes the plans", export, apply)
}

func exportPlans(cmd *cobra.Command, args []string) error {
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	return withStore(cmd, func(s *store.Companion) error {
		document, err := s.ExportPlans(cmd.Context())
		if err != nil {
			return err
		}
		b, err := document.YAML()
		if asJSON && err == nil {
			b, err = json.MarshalIndent(document, "", "  ")
			b = append(b, '\n')
		}
		if err != nil {
			return fmt.Errorf("encoding the plans: %w", err)
		}
		if len(args) == 0 || args[0] == "-" {
			_, err = cmd.OutOrStdout().Write(b)
		} else {
			err = os.WriteFile(args[0], b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("writing the plans: %w", err)
		}
		return nil
	})
}

func applyPlans(cmd *cobra.Command, args []string) error {
	b, err := readInput(cmd, args[0], maxPlans)
	if err != nil {
		return fmt.Errorf("reading the plans: %w", err)
	}
	document, err := store.ParsePlans(b)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return withStore(cmd, func(s *store.Companion) error {
		r, err := s.ApplyPlans(cmd.Context(), operator(), document)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		a := applied{some(r.Created), some(r.Updated), some(r.Unchanged), some(r.Untouched)}
		var text strings.Builder
		for _, l := range []struct {
			word  string
			plans []string
		}{{"created", a.Created}, {"updated", a.Updated}, {"unchanged", a.Unchanged}, {"untouched", a.Untouched}} {
			if len(l.plans) > 0 {
				fmt.Fprintf(&text, "%-9s %s\n", l.word, strings.Join(l.plans, ", "))
			}
		}
		return answer(cmd, a, text.String())
	})
}

// some is the list, never null.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// readInput reads a file of at most limit bytes; - is standard input.
func readInput(cmd *cobra.Command, name string, limit int64) (b []byte, err error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close() // it was only read
		in = f
	}
	b, err = io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return b, err
}

// Interface guard.
var _ caddymodule.Commander = (*PlansCommand)(nil)
