package companion

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
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
	if d.NextArg() {
		return d.Errf("unexpected argument %q; write: quota_companion { ... }", d.Val())
	}
	options := a.options()
	lines := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := options[name]
		if !ok {
			return d.Errf("unknown option %q in the global option quota_companion: want one of %s", name,
				strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if line, dup := lines[name]; dup {
			return d.Errf("duplicate option %q in the global option quota_companion: it stands in line %d already; keep one of them", name, line)
		}
		lines[name] = d.Line()
		if err := parse(d); err != nil {
			return err
		}
	}
	return nil
}

// options are the readers of the block's lines: each is called with the
// dispenser on the option's name.
func (a *App) options() map[string]func(*caddyfile.Dispenser) error {
	return map[string]func(*caddyfile.Dispenser) error{
		"admins":          a.parseAdmins,
		"admin_emails":    oneArg("admin_emails claimed | verified", a.setAdminEmails),
		"encryption_key":  oneArg("encryption_key <key>", func(s string) error { a.EncryptionKey = s; return nil }),
		"billing":         a.parseBilling,
		"audit_retention": oneArg("audit_retention <duration> | forever", a.setRetention),
	}
}

func (a *App) parseAdmins(d *caddyfile.Dispenser) error {
	a.Admins = d.RemainingArgs()
	if len(a.Admins) == 0 {
		return d.Err(`option "admins": an argument is missing; write: admins <user id or e-mail address>...`)
	}
	if slices.Contains(a.Admins, "") {
		return d.Err(`option "admins": a user id or e-mail address is empty`)
	}
	for i, admin := range a.Admins {
		if slices.Contains(a.Admins[:i], admin) {
			return d.Errf(`option "admins": %q stands there twice; keep one of them`, admin)
		}
	}
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

// oneArg is the reader of a line with one argument.
func oneArg(usage string, set func(string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		args := d.RemainingArgs()
		switch {
		case len(args) == 0 || args[0] == "":
			return d.Errf("option %q: an argument is missing; write: %s", name, usage)
		case len(args) > 1:
			return d.Errf("option %q: unexpected argument %q; write: %s", name, args[1], usage)
		}
		if err := set(args[0]); err != nil {
			return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
		}
		return nil
	}
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*App)(nil)
