package companion

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/spf13/cobra"
)

// AuditCommand is `caddy quota audit verify|head`: it proves that the audit log
// is what was written.
type AuditCommand struct{}

func init() { caddy.RegisterModule(AuditCommand{}) }

// CaddyModule returns the module's information.
func (AuditCommand) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.commands.audit", New: func() caddy.Module { return new(AuditCommand) }}
}

// auditVerified is the JSON answer of verify.
type auditVerified struct {
	First int64  `json:"first"` // the events that are there; 0: none
	Last  int64  `json:"last"`
	Head  string `json:"head"`
	// Cut is the last event that retention has removed, CutAt the event that says so; 0: none.
	Cut   int64 `json:"cut"`
	CutAt int64 `json:"cut_at"`
	// Known: the log was compared with a head that was known before.
	Known bool `json:"known"`
}

// Command implements caddymodule.Commander.
func (*AuditCommand) Command() *cobra.Command {
	verify := withJSON(&cobra.Command{
		Use: "verify [--head <seq>:<hash>]", Short: "Finds out whether the audit log was tampered with",
		Long: `
Computes the hash of every audit event anew. Given a head that was known before,
any event up to it that was altered, removed, inserted or moved is found: the
companion logs the head each minute and shows it as a metric, and
'caddy quota audit head' prints it. Keep it where the database's owner cannot
write. Without a head only what breaks the chain is found: whoever may write the
tables could have made all of it anew.`,
		Example: "  caddy quota audit verify --head 42:9f86d081884c7d65…",
		Args:    cobra.NoArgs, RunE: verifyAudit,
	})
	verify.Flags().String("head", "", "The newest event that is known, as <seq>:<hash>; of the hash 13 digits do")
	head := withJSON(&cobra.Command{Use: "head", Short: "Prints the newest audit event's number and hash", Args: cobra.NoArgs, RunE: printAuditHead})
	return group("audit", "Proves that the audit log is what was written", verify, head)
}

func verifyAudit(cmd *cobra.Command, _ []string) error {
	text, err := cmd.Flags().GetString("head")
	if err != nil {
		return err
	}
	var known *store.AuditHead
	if text != "" {
		head, err := store.ParseAuditHead(text)
		if err != nil {
			return err
		}
		known = &head
	}
	return withStore(cmd, func(s *store.Companion) error {
		r, err := s.VerifyAudit(cmd.Context(), known)
		if err != nil {
			return err
		}
		var b strings.Builder
		if r.Last == 0 {
			b.WriteString("the audit log is empty\n")
		} else {
			fmt.Fprintf(&b, "events %d to %d are whole\n", r.First, r.Last)
		}
		if r.Cut > 0 {
			fmt.Fprintf(&b, "retention has removed those up to %d, as event %d says\n", r.Cut, r.CutAt)
		}
		fmt.Fprintf(&b, "head %s\n", r.Head)
		if known == nil {
			b.WriteString("compared with no known head: whoever may write the tables could have made all of this anew\n")
		}
		return answer(cmd, auditVerified{r.First, r.Last, r.Head.String(), r.Cut, r.CutAt, known != nil}, b.String())
	})
}

func printAuditHead(cmd *cobra.Command, _ []string) error {
	return withStore(cmd, func(s *store.Companion) error {
		head, err := s.AuditHead(cmd.Context())
		if err != nil {
			return err
		}
		return answer(cmd, struct {
			Seq  int64  `json:"seq"`
			Hash string `json:"hash"`
		}{head.Seq, head.Hash}, head.String()+"\n")
	})
}

// Interface guard.
var _ caddymodule.Commander = (*AuditCommand)(nil)
