package pgrecords

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/quotagate/quotagate/caddymodule/store"
)

const (
	// Idle connections go after a while, and all after a longer one, so that a
	// failover behind a name is followed.
	maxIdleTime = 5 * time.Minute
	maxLifetime = time.Hour
	// cancelPatience is how long a server that was asked to cancel a statement is
	// waited for before the connection is given up.
	cancelPatience = 500 * time.Millisecond
	// idleInTransaction is how long (ms) a transaction may do nothing until the server
	// ends it: none of ours waits for anything but the server.
	idleInTransaction = "5000"
)

// parse reads a DSN. Its text is in no error: it may hold a password.
func (m *Module) parse(option, dsn, password string) (*pgx.ConnConfig, error) {
	if dsn == "" {
		return nil, fmt.Errorf("the %s of the records is empty", option)
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the %s of the records is not like postgres://user@host:5432/database?sslmode=verify-full or host=... dbname=...%s", option, why(dsn, err))
	}
	if password != "" {
		c.Password = password
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "quotagate"
	}
	// Set on each connection instead, for a pooler refuses it at the start.
	delete(c.RuntimeParams, "search_path")
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	c.DialFunc = dialer.DialContext
	c.ConnectTimeout = time.Duration(m.ConnectTimeout)
	// A statement whose time is up is cancelled at the server too: behind a lock
	// the abandoned ones would soon fill all of the server's connections.
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelPatience}
	}
	return c, nil
}

// why is what the driver says about a DSN, without the DSN.
func why(dsn string, err error) string {
	u, bad := url.Parse(dsn)
	if bad != nil || u.Scheme == "" {
		return ""
	}
	_, reason, ok := strings.Cut(err.Error(), "`: ")
	if !ok || strings.Contains(reason, "parse as") {
		return ""
	}
	if password, set := u.User.Password(); set && password != "" && strings.Contains(reason, password) {
		return ""
	}
	return ": " + reason
}

// salt makes digests in keys worthless to whoever reads them elsewhere.
var salt = sync.OnceValues(func() ([]byte, error) {
	b := make([]byte, 32)
	_, err := rand.Read(b)
	return b, err
})

// makeKey says what is opened, and how. Secrets are in it as a digest of this
// process, so that a new password opens a new pool.
func (m *Module) makeKey(dsn, listen, password string) (string, error) {
	secret, err := salt()
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	mac := hmac.New(sha256.New, secret)
	for _, part := range []string{
		dsn, listen, m.Listen, password, strconv.Itoa(m.Connections), m.MigrateMode,
		time.Duration(m.ConnectTimeout).String(), time.Duration(m.PollInterval).String(),
	} {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(part), part) // a hash takes everything
	}
	return "postgres|" + m.place() + "|" + hex.EncodeToString(mac.Sum(nil)[:12]), nil
}

// place is where the database is, without secrets.
func (m *Module) place() string {
	return fmt.Sprintf("%s@%s/%s", m.config.User, net.JoinHostPort(m.config.Host, strconv.Itoa(int(m.config.Port))), m.config.Database)
}

// connect makes the pool; nothing is dialed yet.
func (m *Module) connect() *sql.DB {
	db := stdlib.OpenDB(*m.config, stdlib.OptionAfterConnect(useSession))
	n := max(m.Connections, minConnections)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(maxIdleTime)
	db.SetConnMaxLifetime(maxLifetime)
	return db
}

// useSession prepares a connection. Where the role has what is wanted as its own
// settings nothing is set, and so nothing can stay behind on a connection that a
// pooler lends to others.
func useSession(ctx context.Context, c *pgx.Conn) error {
	// Our tables are the only ones that a name without a schema means.
	const path = "SELECT set_config('search_path', '" + store.Schema + "', false) WHERE current_setting('search_path') <> '" + store.Schema + "';"
	// What a gateway has locked that freezes, or is cut off, is free again in time for
	// the others: they wait for no longer in a flush.
	const idle = "SELECT set_config(name, '" + idleInTransaction + "', false) FROM pg_catalog.pg_settings " +
		"WHERE name = 'idle_in_transaction_session_timeout' AND setting::bigint NOT BETWEEN 1 AND " + idleInTransaction
	if _, err := c.PgConn().Exec(ctx, path+idle).ReadAll(); err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	return nil
}
