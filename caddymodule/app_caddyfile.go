package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// parseGlobalOption reads the global option `quota`.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	a := new(App)
	if existing != nil {
		d.Next()
		return nil, d.Err("the global option quota stands twice; put all of its options in one block")
	}
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	value, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encoding the global option quota: %w", err)
	}
	return httpcaddyfile.App{Name: "quota", Value: value}, nil
}

// UnmarshalCaddyfile reads the global option:
//
//	quota {
//	    records  <engine> ... { ... }
//	    counters <engine> ... { ... }
//	    verify   <kind> ... { ... }          # any number, in order
//	    entitlements {
//	        ttl   <duration>
//	        stale <duration>
//	        grace <duration>
//	        size  <accounts>
//	    }
//	    default_plan <plan>
//	    ip_prefix    <ipv4 bits> <ipv6 bits>
//	    upgrade_url  <url>
//	    on_outage    allow | deny
//	    host {
//	        users    <table> { <our column> <host column> ... }
//	        sessions <table> { <our column> <host column> ... }
//	    }
//	    host_redis   <url>
//	    log_subjects on | off
//	}
//
// What stands behind an engine or kind is read by its module.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() { // the option's name
		if err := unexpectedArgs(d, "quota { ... }"); err != nil {
			return err
		}
		if err := parseBlock(d, "the global option quota", a.options()); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) options() map[string]option {
	return map[string]option{
		"records": {usage: "records <engine> ...", parse: func(d *caddyfile.Dispenser) (err error) {
			a.RecordsRaw, err = parseGuest(d, "records", "quota.records", "engine")
			return err
		}},
		"counters": {usage: "counters <engine> ...", parse: func(d *caddyfile.Dispenser) (err error) {
			a.CountersRaw, err = parseGuest(d, "counters", "quota.counters", "engine")
			return err
		}},
		"verify":       {usage: "verify <kind> ...", repeat: true, parse: a.verifierParser()},
		"entitlements": {parse: a.Entitlements.parse},
		"default_plan": {usage: "default_plan <plan>", min: 1, max: 1, setAt: a.setDefaultPlan},
		"ip_prefix":    {usage: "ip_prefix <ipv4 bits> <ipv6 bits>", min: 2, max: 2, set: a.IPPrefix.set},
		"upgrade_url":  {usage: "upgrade_url <url>", min: 1, max: 1, set: text(&a.UpgradeURL, unlessPlaceholder(checkUpgradeURL))},
		"on_outage":    {usage: "on_outage allow | deny", min: 1, max: 1, set: choice(&a.OnOutage, allow, deny)},
		"host":         {parse: a.Host.parse},
		"host_redis":   {usage: "host_redis <url>", min: 1, max: 1, set: text(&a.HostRedis, unlessPlaceholder(checkRedisURL))},
		"log_subjects": {usage: "log_subjects on | off", min: 1, max: 1, set: onOff(&a.LogSubjects)},
	}
}

// verifierParser reads one verifier after the other, each of which has a name of
// its own, if it has one, and does something else than those before.
func (a *App) verifierParser() func(d *caddyfile.Dispenser) error {
	lines := make(map[string]int)
	return func(d *caddyfile.Dispenser) error {
		at := *d
		raw, err := parseGuest(d, "verify", "quota.verifiers", "kind")
		if err != nil {
			return err
		}
		if first, dup := lines[string(raw)]; dup {
			return at.Errf("duplicate verifier: the same stands in line %d already; keep one of them", first)
		}
		var guest struct{ Kind, Name string }
		if json.Unmarshal(raw, &guest) == nil && guest.Name != "" {
			title := guest.Kind + " " + guest.Name
			if first, dup := lines[title]; dup {
				return at.Errf("duplicate verifier %q: it stands in line %d already; give one of them another name", title, first)
			}
			lines[title] = at.Line()
		}
		lines[string(raw)] = at.Line()
		a.VerifiersRaw = append(a.VerifiersRaw, raw)
		return nil
	}
}

func (a *App) setDefaultPlan(place string, args []string) error {
	if plan, _ := quota.SeedPlan(args[0]); plan == nil {
		a.DefaultPlanAt = place
	}
	return text(&a.DefaultPlan, unlessPlaceholder(checkName))(args)
}

// parseGuest hands the rest of the line and its block to the module that is
// named first on it, and answers the module's JSON.
func parseGuest(d *caddyfile.Dispenser, name, namespace, inlineKey string) (json.RawMessage, error) {
	if !d.NextArg() {
		return nil, d.Errf("option %q: the module's name is missing: %s", name, linked(namespace))
	}
	guest := d.Val()
	id := namespace + "." + guest
	if _, err := caddy.GetModule(id); err != nil {
		return nil, d.Errf("option %q: unknown module %q: %s", name, guest, linked(namespace))
	}
	unmarshaler, err := caddyfile.UnmarshalModule(d, id)
	if err != nil {
		return nil, err
	}
	var warnings []caddyconfig.Warning
	raw := caddyconfig.JSONModuleObject(unmarshaler, inlineKey, guest, &warnings)
	if len(warnings) > 0 {
		return nil, d.Errf("option %q: encoding %s: %s", name, id, warnings[0].Message)
	}
	return raw, nil
}

func (e *Entitlements) parse(d *caddyfile.Dispenser) error {
	if err := unexpectedArgs(d, "entitlements { ttl <duration>; stale <duration>; grace <duration>; size <accounts> }, each on its line"); err != nil {
		return err
	}
	return parseBlock(d, "entitlements", map[string]option{
		"ttl":   {usage: "ttl <duration>", min: 1, max: 1, set: duration(&e.TTL)},
		"stale": {usage: "stale <duration>", min: 1, max: 1, set: duration(&e.Stale)},
		"grace": {usage: "grace <duration>", min: 1, max: 1, set: duration(&e.Grace)},
		"size":  {usage: "size <accounts>", min: 1, max: 1, set: integer(&e.Size, 1, maxEntitlements)},
	})
}

func (p *IPPrefix) set(args []string) (err error) {
	if p.IPv4, err = parseInt(args[0], 1, 32); err != nil {
		return fmt.Errorf("IPv4: %w", err)
	}
	if p.IPv6, err = parseInt(args[1], 1, 128); err != nil {
		return fmt.Errorf("IPv6: %w", err)
	}
	return nil
}

func (h *Host) parse(d *caddyfile.Dispenser) error {
	if err := unexpectedArgs(d, "host { users <table> { ... }; sessions <table> { ... } }, each on its line"); err != nil {
		return err
	}
	return parseBlock(d, "host", map[string]option{
		"users":    hostTable("users", &h.Users, userColumns()),
		"sessions": hostTable("sessions", &h.Sessions, sessionColumns()),
	})
}

// hostTable is the option that names one table of the host and its columns.
func hostTable(name string, target **HostTable, columns []string) option {
	line := option{usage: name + " <table> { <our column> <host column> ... }", min: 1, max: 1}
	line.parse = func(d *caddyfile.Dispenser) error {
		args, err := line.args(d)
		if err != nil {
			return err
		}
		if err := checkTable(args[0]); err != nil {
			return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
		}
		t := &HostTable{Table: args[0]}
		*target = t
		options := make(map[string]option, len(columns))
		for _, ours := range columns {
			options[ours] = option{usage: ours + " <host column>", min: 1, max: 1, set: func(args []string) error {
				if t.Columns == nil {
					t.Columns = make(map[string]string, len(columns))
				}
				t.Columns[ours] = args[0]
				return checkColumn(ours, args[0], columns)
			}}
		}
		return parseBlock(d, "the table "+name, options)
	}
	return line
}

// unlessPlaceholder checks a value now, unless it is known only when the config is loaded.
func unlessPlaceholder(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return errors.New("the value is empty")
		}
		if strings.Contains(s, "{") {
			return nil
		}
		return check(s)
	}
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*App)(nil)
