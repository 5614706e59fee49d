// Package pgrecords keeps the records in Postgres, in a schema of their own: the
// Caddy module quota.records.postgres. It is there for production, where many
// gateways share one system of record. The records themselves are package
// store's; this package connects, migrates, and listens for changes.
package pgrecords

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// The words of `migrate`.
const (
	MigrateAuto  = "auto"  // Open brings the schema up to date, as soon as the server can be reached
	MigrateCheck = "check" // Open only reports a schema that is missing or older
)

// listenOff is the word of `listen` for none.
const listenOff = "off"

// The defaults and bounds.
const (
	DefaultConnections    = 10
	DefaultConnectTimeout = caddy.Duration(2 * time.Second)
	DefaultPollInterval   = caddy.Duration(time.Second)
	minConnections        = 3
	maxConnections        = 1000
)

func init() { caddy.RegisterModule(new(Module)) }

// Module keeps records in Postgres.
type Module struct {
	// DSN is where the database is: postgres://user@host:5432/database or
	// host=... dbname=..., with the parameters of libpq. Placeholders such as
	// {env.QUOTA_DSN} are replaced when the config is loaded.
	DSN string `json:"dsn"`
	// Password goes before the one in the DSN. Placeholders are replaced.
	Password string `json:"password,omitempty"`
	// MigrateMode is check (the default) or auto.
	MigrateMode string `json:"migrate,omitempty"`
	// Connections is how many connections the pool has at most, 3..1000, beside
	// the one that listens. Default: 10.
	Connections int `json:"connections,omitempty"`
	// ConnectTimeout bounds the making of a connection. Default: 2s.
	ConnectTimeout caddy.Duration `json:"connect_timeout,omitempty"`
	// PollInterval is how often changes are looked for where no notification
	// tells of them. Default: 1s.
	PollInterval caddy.Duration `json:"poll_interval,omitempty"`
	// Listen is the DSN for notifications, where the other one leads to a pooler
	// that does not pass them on, or "off". Default: the DSN.
	Listen string `json:"listen,omitempty"`

	config   *pgx.ConnConfig
	listener *pgx.ConnConfig // nil: nobody listens
	key      string
}

// CaddyModule implements caddy.Module.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.records.postgres", New: func() caddy.Module { return new(Module) }}
}

// Provision sets the defaults and resolves the DSN. It dials nothing.
func (m *Module) Provision(caddy.Context) error {
	setDefault(&m.MigrateMode, MigrateCheck)
	setDefault(&m.Connections, DefaultConnections)
	setDefault(&m.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&m.PollInterval, DefaultPollInterval)
	// An empty one is none: a server that wants one says so.
	password, err := caddy.NewReplacer().ReplaceOrErr(m.Password, false, true)
	if err != nil {
		return fmt.Errorf("resolving the password of the records: %w", err)
	}
	dsn, err := resolve("dsn", m.DSN)
	if err != nil {
		return err
	}
	if m.config, err = m.parse("dsn", dsn, password); err != nil {
		return err
	}
	listen := ""
	switch m.Listen {
	case "":
		m.listener = m.config.Copy()
	case listenOff:
	default:
		if listen, err = resolve("listen", m.Listen); err != nil {
			return err
		}
		if m.listener, err = m.parse("listen", listen, password); err != nil {
			return err
		}
	}
	if m.listener != nil {
		// It waits for hours, and may be cut off at any time: no cancel request.
		m.listener.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
		}
	}
	m.key, err = m.makeKey(dsn, listen, password)
	return err
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// resolve replaces placeholders; what is missing is an error with its name.
func resolve(option, value string) (string, error) {
	text, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("resolving the %s of the records: %w", option, err)
	}
	return text, nil
}

// Validate checks the words and numbers.
func (m *Module) Validate() error {
	var errs []error
	add := func(option string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", option, err))
		}
	}
	add("migrate", checkMode(m.MigrateMode))
	add("connections", checkConnections(m.Connections))
	add("connect_timeout", checkPositive(m.ConnectTimeout))
	add("poll_interval", checkPositive(m.PollInterval))
	return errors.Join(errs...)
}

func checkMode(mode string) error {
	if mode != MigrateAuto && mode != MigrateCheck {
		return fmt.Errorf("%q is neither %s nor %s", mode, MigrateAuto, MigrateCheck)
	}
	return nil
}

func checkConnections(n int) error {
	if n < minConnections || n > maxConnections {
		return fmt.Errorf("%d is outside %d..%d", n, minConnections, maxConnections)
	}
	return nil
}

func checkPositive(d caddy.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s is not above 0", time.Duration(d))
	}
	return nil
}

// Key implements caddymodule.RecordsGuest.
func (m *Module) Key() string { return m.key }

// Open implements caddymodule.RecordsGuest. That the server cannot be reached, or
// has no schema yet, is no error: it is logged, and the records answer it until
// that has changed.
func (m *Module) Open(ctx context.Context, env caddymodule.Env) (caddymodule.Records, error) {
	r, err := m.open(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("opening records %s: %w", m.place(), err)
	}
	return r, nil
}

// Migrate runs `up`, `down` (one version) or `status` on the database and
// reports to out.
func (m *Module) Migrate(ctx context.Context, command string, out io.Writer) (err error) {
	db := m.connect()
	defer func() { err = errors.Join(err, db.Close()) }()
	return store.Migrate(ctx, db, store.Postgres, command, out)
}

// Interface guards.
var (
	_ caddy.Provisioner        = (*Module)(nil)
	_ caddy.Validator          = (*Module)(nil)
	_ caddymodule.RecordsGuest = (*Module)(nil)
	_ caddymodule.Migrator     = (*Module)(nil)
)
