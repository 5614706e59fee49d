package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// HostWrite says what became of a write to the host's own row. That it was not
// made is no error: ours stands, and the gateway enforces it all the same.
type HostWrite struct {
	// Updated: the host's row has the value now.
	Updated bool
	// Reason says why it does not; for logs and the audit.
	Reason string
}

func notWritten(format string, args ...any) HostWrite {
	return HostWrite{Reason: fmt.Sprintf(format, args...)}
}

// hostTx writes the host's rows within a transaction of ours, each write in a
// savepoint: what the host refuses takes nothing of ours with it.
type hostTx struct {
	s  *Companion
	tx sqlgen.DBTX
	h  *hostSchema
}

// writeHost is write for services that write the host's rows too.
func (s *Companion) writeHost(ctx context.Context, f func(q *sqlgen.Queries, host *hostTx) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	// Before the transaction: SQLite's has the only writer.
	h, err := s.hostSchema(ctx, 0)
	if err != nil {
		return err
	}
	return s.writeTx(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries) error {
		return f(q, &hostTx{s: s, tx: tx, h: h})
	})
}

// setStatus writes the host's status of a user, in the host's type: a word of an
// enumeration in the host's own case, yes or no for active and anything else.
func (t *hostTx) setStatus(ctx context.Context, userID, status string) HostWrite {
	return t.setUser(ctx, userID, "status", status)
}

// setEmail writes the host's e-mail of a user.
func (t *hostTx) setEmail(ctx context.Context, userID, email string) HostWrite {
	return t.setUser(ctx, userID, "email", email)
}

func (t *hostTx) setUser(ctx context.Context, userID, ours, value string) HostWrite {
	table := t.h.users
	if table == nil {
		return notWritten("%s", t.h.missing[hostUsers])
	}
	c := table.columns[ours]
	if !c.there() {
		return notWritten("the host's users have no column %s", ours)
	}
	q := &hostQuery{engine: t.s.engine}
	expr, ok := q.assign(c, value)
	if !ok {
		return notWritten("%q is none of the words of the host's column %s", value, ours)
	}
	is, ok := q.equals(table.columns["id"], userID)
	if !ok {
		return notWritten("the host has no such user")
	}
	n, w := t.update(ctx, table, "UPDATE "+table.name+" AS u SET "+c.name+" = "+expr+" WHERE "+is, q.args)
	if w.Updated && n == 0 {
		return notWritten("the host has no such user")
	}
	return w
}

// revokeSessions marks the user's sessions as revoked that are not, and counts them.
func (t *hostTx) revokeSessions(ctx context.Context, userID string, at time.Time) (int64, HostWrite) {
	table := t.h.sessions
	if table == nil {
		return 0, notWritten("%s", t.h.missing[hostSessions])
	}
	c := table.columns["revoked_at"]
	if !c.there() {
		return 0, notWritten("the host's sessions have no column revoked_at")
	}
	q := &hostQuery{engine: t.s.engine}
	expr := q.assignInstant(c, at)
	is, ok := q.equals(table.columns["user_id"], userID)
	if !ok {
		return 0, notWritten("the host has no such user")
	}
	where := is + " AND NOT (" + q.revoked(c) + ")"
	return t.update(ctx, table, "UPDATE "+table.name+" AS u SET "+c.name+" = "+expr+" WHERE "+where, q.args)
}

// update runs a statement in a savepoint. Constraints that could refuse it as
// late as the commit are asked at once, and a row that the host holds locked is
// not waited for beyond hostLockWait.
func (t *hostTx) update(ctx context.Context, table *hostTable, stmt string, args []any) (int64, HostWrite) {
	const savepoint = "quotagate_host"
	if _, err := t.tx.ExecContext(ctx, "SAVEPOINT "+savepoint); err != nil {
		return 0, notWritten("%v", err) // the transaction is lost, as its owner will see
	}
	n, err := t.inside(ctx, table, stmt, args)
	end := "RELEASE SAVEPOINT " + savepoint
	if err != nil {
		end = "ROLLBACK TO SAVEPOINT " + savepoint
	}
	if _, failed := t.tx.ExecContext(ctx, end); failed != nil {
		return 0, notWritten("%v", failed)
	}
	if err != nil {
		return 0, notWritten("the host refuses: %v", err)
	}
	return n, HostWrite{Updated: true}
}

// The limits of a write to the host's rows on Postgres.
const (
	hostLockWait  = "2s"
	hostWriteTime = "3s" // its triggers included
)

func (t *hostTx) inside(ctx context.Context, table *hostTable, stmt string, args []any) (int64, error) {
	restore, err := t.asTheHost(ctx, table)
	if err != nil {
		return 0, err
	}
	r, err := t.tx.ExecContext(ctx, stmt, args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	if err != nil {
		return 0, err
	}
	return n, restore(ctx)
}

// asTheHost sets, for the statement that follows, how long it may take, and the
// search path that the host's own triggers were written for. What it returns puts
// ours back: a rollback to the savepoint does it by itself.
func (t *hostTx) asTheHost(ctx context.Context, table *hostTable) (restore func(context.Context) error, err error) {
	if t.s.engine != Postgres {
		return func(context.Context) error { return nil }, nil
	}
	const set = "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true), set_config('search_path', $3, true)"
	var lock, statement, path string
	err = t.tx.QueryRowContext(ctx, "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), current_setting('search_path')").
		Scan(&lock, &statement, &path)
	if err != nil {
		return nil, err
	}
	if _, err := t.tx.ExecContext(ctx, set, hostLockWait, hostWriteTime, table.schema+", public"); err != nil {
		return nil, err
	}
	if len(table.deferrable) > 0 {
		if _, err := t.tx.ExecContext(ctx, "SET CONSTRAINTS "+strings.Join(table.deferrable, ", ")+" IMMEDIATE"); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		_, err := t.tx.ExecContext(ctx, set, lock, statement, path)
		return err
	}, nil
}

// assign is a value for a column in its own type; ok is false where the type has
// no such value.
func (q *hostQuery) assign(c hostColumn, value string) (expr string, ok bool) {
	switch c.class {
	case classBool:
		if value == controlActive {
			return "TRUE", true
		}
		return "FALSE", true
	case classEnum:
		for _, word := range c.words {
			if strings.EqualFold(word, value) {
				return q.value(c, word), true
			}
		}
		return "", false
	}
	return q.value(c, value), true
}

// assignInstant is the same for an instant; a column that only says yes or no says yes.
func (q *hostQuery) assignInstant(c hostColumn, at time.Time) string {
	switch {
	case c.class == classBool:
		return "TRUE"
	case c.class == classInt && q.engine == SQLite:
		return q.arg(at.Unix())
	case c.class == classInt:
		return q.value(c, fmt.Sprint(at.Unix()))
	case q.engine == SQLite: // as hosts write it there: UTC, without saying so
		return q.arg(at.UTC().Format("2006-01-02 15:04:05.000000"))
	}
	return q.value(c, at.UTC().Format("2006-01-02 15:04:05.000000Z"))
}
