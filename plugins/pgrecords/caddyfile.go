package pgrecords

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the records from:
//
//	postgres <dsn> {
//	    password        <password>
//	    migrate         check | auto
//	    connections     <number>
//	    connect_timeout <duration>
//	    poll_interval   <duration>
//	    listen          <dsn> | off
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	const usage = "records postgres <dsn> { ... }"
	if !d.Next() {
		return d.Err("the name of the records engine is missing")
	}
	if !d.NextArg() {
		return d.Errf("the address of the database is missing; write: %s, e.g. records postgres {env.QUOTA_DSN}", usage)
	}
	m.DSN = d.Val()
	if err := checkDSN(m.DSN); err != nil {
		return d.WrapErr(err)
	}
	if d.NextArg() {
		return d.Errf("unexpected argument after the address; write: %s, with an address that has spaces in quotes", usage)
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		o, ok := m.options()[name]
		if !ok {
			return d.Errf("unknown option %q in records postgres: want one of connect_timeout, connections, listen, migrate, password, poll_interval", name)
		}
		if seen[name] {
			return d.Errf("duplicate option %q in records postgres", name)
		}
		seen[name] = true
		if !d.NextArg() {
			return d.Errf("option %q: an argument is missing; write: %s", name, o.usage)
		}
		if err := o.set(d.Val()); err != nil {
			return d.WrapErr(fmt.Errorf("option %q: %w", name, err))
		}
		if d.NextArg() {
			return d.Errf("option %q: unexpected argument; write: %s", name, o.usage)
		}
	}
	return nil
}

// option is one line of the block.
type option struct {
	usage string
	set   func(string) error
}

func (m *Module) options() map[string]option {
	return map[string]option{
		"password": {"password {env.QUOTA_PG_PASSWORD}", func(s string) error {
			if m.Password = s; s == "" {
				return errors.New("is empty")
			}
			return nil
		}},
		"migrate": {"migrate check | auto", func(s string) error { m.MigrateMode = s; return checkMode(s) }},
		"connections": {"connections <number>", func(s string) (err error) {
			if m.Connections, err = strconv.Atoi(s); err != nil {
				return fmt.Errorf("%q is not a whole number", s)
			}
			return checkConnections(m.Connections)
		}},
		"connect_timeout": {"connect_timeout <duration>", duration(&m.ConnectTimeout)},
		"poll_interval":   {"poll_interval <duration>", duration(&m.PollInterval)},
		"listen": {"listen <dsn> | off", func(s string) error {
			if m.Listen = s; s == listenOff {
				return nil
			}
			return checkDSN(s)
		}},
	}
}

func duration(target *caddy.Duration) func(string) error {
	return func(s string) error {
		if len(s) > 64 {
			return errors.New("is not a length of time")
		}
		d, err := caddy.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("%q is not a length of time: write a number with a unit, e.g. 500ms or 2s", s)
		}
		*target = caddy.Duration(d)
		return checkPositive(*target)
	}
}

// checkDSN finds what cannot be one without reading it: it may hold a password,
// and what a placeholder stands for is known only when the config is loaded.
func checkDSN(s string) error {
	switch {
	case s == "":
		return errors.New("the address of the database is empty")
	case strings.Contains(s, "{"), strings.HasPrefix(s, "postgres://"), strings.HasPrefix(s, "postgresql://"), strings.Contains(s, "="):
		return nil
	}
	return errors.New("the address of the database is not like postgres://user@host:5432/database or \"host=... dbname=...\"")
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Module)(nil)
