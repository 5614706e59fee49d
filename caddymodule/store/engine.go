package store

import (
	"context"
	"database/sql"
	"net/url"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Engine is one of the two databases.
type Engine uint8

// The engines.
const (
	SQLite Engine = iota
	Postgres
)

// Schema is where our tables live in Postgres: nothing of ours is in public,
// where a host's own migrations would drop it.
const Schema = "quotagate"

// String is the engine's folder of migrations.
func (e Engine) String() string {
	if e == Postgres {
		return "postgres"
	}
	return "sqlite"
}

// snapshot are the options of a transaction whose statements all see the same
// state. SQLite's read transactions are always such, and take no write lock
// where they say that they only read.
func (e Engine) snapshot() *sql.TxOptions {
	o := &sql.TxOptions{ReadOnly: true}
	if e == Postgres {
		o.Isolation = sql.LevelRepeatableRead
	}
	return o
}

// claiming is the transaction with SELECTs that lock the rows which they find, and
// pass over those that somebody else has locked rather than wait. SQLite has no such
// rows: of its transactions that write there is one at a time.
func (e Engine) claiming(tx sqlgen.DBTX) sqlgen.DBTX {
	if e == Postgres {
		return skipLocked{tx}
	}
	return tx
}

type skipLocked struct{ sqlgen.DBTX }

// QueryContext implements sqlgen.DBTX.
func (s skipLocked) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return s.DBTX.QueryContext(ctx, query+"FOR UPDATE SKIP LOCKED", args...)
}

// SQLiteDSN is the data source of a file for the driver modernc.org/sqlite:
// readers beside one writer (WAL), a second writer waits up to 5 s, write
// transactions take their lock at once (a lock upgraded later cannot wait), and
// a commit survives the process though not the machine (synchronous NORMAL:
// power loss may undo the last commits, never damage the file).
func SQLiteDSN(path string) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)",
	}}
	// In a file: name these three would end or change the path.
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
	return "file:" + escaped + "?" + q.Encode()
}
