package pgrecords

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
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
	return block.Parse(d, "records postgres", map[string]block.Option{
		"password":        block.Secret("password {env.QUOTA_PG_PASSWORD}", block.Text(&m.Password)),
		"migrate":         block.One("migrate check | auto", func(s string) error { m.MigrateMode = s; return checkMode(s) }),
		"connections":     block.One("connections <number>", m.setConnections),
		"connect_timeout": block.One("connect_timeout <duration>", block.Duration(&m.ConnectTimeout)),
		"poll_interval":   block.One("poll_interval <duration>", block.Duration(&m.PollInterval)),
		"listen":          block.Secret("listen <dsn> | off", m.setListen),
	})
}

func (m *Module) setConnections(s string) (err error) {
	if m.Connections, err = strconv.Atoi(s); err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	return checkConnections(m.Connections)
}

func (m *Module) setListen(s string) error {
	if m.Listen = s; s == listenOff {
		return nil
	}
	return checkDSN(s)
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
