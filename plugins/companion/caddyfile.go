package companion

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
)

// parseGlobalOption reads the global option `quota_companion`.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option quota_companion stands twice; put all of its options in one block")
	}
	a := new(App)
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	value, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encoding the global option quota_companion: %w", err)
	}
	return httpcaddyfile.App{Name: "quota_companion", Value: value}, nil
}

// UnmarshalCaddyfile reads the global option:
//
//	quota_companion {
//	    admins          <user id or e-mail address>...
//	    admin_emails    claimed | verified
//	    encryption_key  <key>
//	    audit_retention <duration> | forever
//	    billing         none | <provider> ...
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if err := block.NoArgs(d, "quota_companion { ... }"); err != nil {
		return err
	}
	return block.Parse(d, "the global option quota_companion", map[string]block.Option{
		"admins":          {Usage: "admins <user id or e-mail address>...", Min: 1, Max: -1, Set: a.setAdmins},
		"admin_emails":    block.One("admin_emails claimed | verified", a.setAdminEmails),
		"encryption_key":  block.Secret("encryption_key <key>", block.Text(&a.EncryptionKey)),
		"audit_retention": block.One("audit_retention <duration> | forever", a.setRetention),
		"billing":         {Parse: a.parseBilling},
	})
}

func (a *App) setAdmins(args []string) error {
	if slices.Contains(args, "") {
		return errors.New("a user id or e-mail address is empty")
	}
	for i, admin := range args {
		if slices.Contains(args[:i], admin) {
			return fmt.Errorf("%q stands there twice; keep one of them", admin)
		}
	}
	a.Admins = args
	return nil
}

// billingModules is the namespace of payment providers.
const billingModules = "quota_companion.billing"

// parseBilling hands the rest of the line and its block to the payment provider
// that is named first on it.
func (a *App) parseBilling(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Errf(`option "billing": an argument is missing; write: billing %s`, providers())
	}
	name := d.Val()
	if name == "none" {
		if d.NextArg() {
			return d.Errf(`option "billing": unexpected argument %q after none`, d.Val())
		}
		return nil
	}
	id := billingModules + "." + name
	if _, err := caddy.GetModule(id); err != nil {
		return d.Errf(`option "billing": unknown provider %q; write: billing %s`, name, providers())
	}
	guest, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return err
	}
	var warnings []caddyconfig.Warning
	a.BillingRaw = caddyconfig.JSONModuleObject(guest, "provider", name, &warnings)
	if len(warnings) > 0 {
		return d.Errf(`option "billing": encoding %s: %s`, id, warnings[0].Message)
	}
	return nil
}

// providers are the words that may follow `billing`.
func providers() string {
	names := []string{"none"}
	for _, m := range caddy.GetModules(billingModules) {
		names = append(names, m.ID.Name())
	}
	slices.Sort(names[1:])
	return strings.Join(names, " | ")
}

func (a *App) setAdminEmails(s string) error {
	if s != emailsVerified && s != emailsClaimed {
		return fmt.Errorf("%q is neither %s nor %s", s, emailsClaimed, emailsVerified)
	}
	a.AdminEmails = s
	return nil
}

func (a *App) setRetention(s string) error {
	if s == "forever" {
		a.AuditRetention = 0
		return nil
	}
	dur, err := caddy.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a length of time: write a number with a unit, e.g. 365d, or forever", s)
	}
	a.AuditRetention = caddy.Duration(dur)
	if dur < minRetention {
		return fmt.Errorf("%s is below %s", s, minRetention)
	}
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*App)(nil)
