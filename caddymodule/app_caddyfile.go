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
	"github.com/quotagate/quotagate/caddymodule/block"
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
		if err := block.NoArgs(d, "quota { ... }"); err != nil {
			return err
		}
		if err := block.Parse(d, "the global option quota", a.options()); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) options() map[string]block.Option {
	return map[string]block.Option{
		"records": {Usage: "records <engine> ...", Parse: func(d *caddyfile.Dispenser) (err error) {
			a.RecordsRaw, err = parseGuest(d, "records", "quota.records", "engine")
			return err
		}},
		"counters": {Usage: "counters <engine> ...", Parse: func(d *caddyfile.Dispenser) (err error) {
			a.CountersRaw, err = parseGuest(d, "counters", "quota.counters", "engine")
			return err
		}},
		"verify":       {Usage: "verify <kind> ...", Repeat: true, Parse: a.verifierParser()},
		"entitlements": {Parse: a.Entitlements.parse},
		"default_plan": {Usage: "default_plan <plan>", Min: 1, Max: 1, SetAt: a.setDefaultPlan},
		"ip_prefix":    {Usage: "ip_prefix <ipv4 bits> <ipv6 bits>", Min: 2, Max: 2, Set: a.IPPrefix.set},
		"upgrade_url":  block.One("upgrade_url <url>", text(&a.UpgradeURL, unlessPlaceholder(checkUpgradeURL))),
		"on_outage":    block.One("on_outage allow | deny", choice(&a.OnOutage, allow, deny)),
		"host":         {Parse: a.Host.parse},
		"host_redis":   block.Secret("host_redis <url>", text(&a.HostRedis, unlessPlaceholder(checkRedisURL))),
		"log_subjects": block.One("log_subjects on | off", onOff(&a.LogSubjects)),
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
	return text(&a.DefaultPlan, unlessPlaceholder(checkName))(args[0])
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
	if err := block.NoArgs(d, "entitlements { ttl <duration>; stale <duration>; grace <duration>; size <accounts> }, each on its line"); err != nil {
		return err
	}
	return block.Parse(d, "entitlements", map[string]block.Option{
		"ttl":   block.One("ttl <duration>", block.Duration(&e.TTL)),
		"stale": block.One("stale <duration>", block.Duration(&e.Stale)),
		"grace": block.One("grace <duration>", block.Duration(&e.Grace)),
		"size":  block.One("size <accounts>", integer(&e.Size, 1, maxEntitlements)),
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
	if err := block.NoArgs(d, "host { users <table> { ... }; sessions <table> { ... } }, each on its line"); err != nil {
		return err
	}
	return block.Parse(d, "host", map[string]block.Option{
		"users":    hostTable("users", &h.Users, userColumns()),
		"sessions": hostTable("sessions", &h.Sessions, sessionColumns()),
	})
}

// hostTable is the option that names one table of the host and its columns.
func hostTable(name string, target **HostTable, columns []string) block.Option {
	line := block.Option{Usage: name + " <table> { <our column> <host column> ... }", Min: 1, Max: 1}
	line.Parse = func(d *caddyfile.Dispenser) error {
		args, err := line.Args(d)
		if err != nil {
			return err
		}
		if err := checkTable(args[0]); err != nil {
			return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
		}
		t := &HostTable{Table: args[0]}
		*target = t
		options := make(map[string]block.Option, len(columns))
		for _, ours := range columns {
			options[ours] = block.One(ours+" <host column>", func(hosts string) error {
				if t.Columns == nil {
					t.Columns = make(map[string]string, len(columns))
				}
				t.Columns[ours] = hosts
				return checkColumn(ours, hosts, columns)
			})
		}
		return block.Parse(d, "the table "+name, options)
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
