package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// DefaultGrace is how long a past-due subscription keeps its plan.
const DefaultGrace = 7 * 24 * time.Hour

// Options configure a Store.
type Options struct {
	Engine Engine
	// Grace is how long a past-due subscription keeps its plan; 0: DefaultGrace.
	Grace time.Duration
	// Now is the clock; nil: time.Now, and for heartbeats and leases on Postgres
	// the server's own, which all gateways share. Tests set it.
	Now func() time.Time
}

// Store is safe for concurrent use.
type Store struct {
	db          *sql.DB
	engine      Engine
	grace       time.Duration
	now         func() time.Time
	sharedClock bool // heartbeats and leases ask the server's clock
	// writer is held by the one write transaction that SQLite has at a time: to
	// queue here is fair and quick, to poll a locked file is neither. Nil on Postgres.
	writer      chan struct{}
	schemaOK    atomic.Bool
	defaultPlan atomic.Pointer[string]
	latest      atomic.Pointer[catalogue] // the newest that was loaded
	host        hostState
	texts       sync.Map // of INSERTs of many rows, see batch
}

// New is a store over db, which it does not close. The schema is looked at by
// the first call, and until it is there each call answers a *SchemaError.
func New(db *sql.DB, o Options) *Store {
	s := &Store{db: db, engine: o.Engine, grace: o.Grace, now: o.Now}
	if s.grace == 0 {
		s.grace = DefaultGrace
	}
	if o.Engine == SQLite {
		s.writer = make(chan struct{}, 1)
	}
	if s.now == nil {
		s.now = time.Now
		s.sharedClock = o.Engine == Postgres
	}
	return s
}

// SetDefaultPlan makes the named plan the default one, whichever has is_default
// in the records. Where it is empty or no such plan exists the records decide.
func (s *Store) SetDefaultPlan(name string) { s.defaultPlan.Store(&name) }

// Ping reports why the records cannot be asked: the connection, or a
// *SchemaError.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return fmt.Errorf("reaching the database: %w", err)
	}
	return s.ready(ctx)
}

func (s *Store) ready(ctx context.Context) error {
	if s.schemaOK.Load() {
		return nil
	}
	if err := CheckSchema(ctx, s.db, s.engine); err != nil {
		return err
	}
	s.schemaOK.Store(true)
	return nil
}

// read runs f in one snapshot.
func (s *Store) read(ctx context.Context, f func(q *sqlgen.Queries) error) error {
	return s.readTx(ctx, func(_ sqlgen.DBTX, q *sqlgen.Queries) error { return f(q) })
}

// readTx is read for what also asks with text that is made here.
func (s *Store) readTx(ctx context.Context, f func(tx sqlgen.DBTX, q *sqlgen.Queries) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, s.engine.snapshot())
	if err != nil {
		return fmt.Errorf("beginning a snapshot: %w", err)
	}
	err = f(tx, sqlgen.New(tx))
	if end := tx.Rollback(); err == nil && end != nil && !errors.Is(end, sql.ErrTxDone) {
		err = fmt.Errorf("ending a snapshot: %w", end)
	}
	return err
}

// maxAttempts bounds how often a transaction is run that Postgres chose as the
// victim of a deadlock or a serialization failure.
const maxAttempts = 4

// write runs f in one transaction, again if the engine says that trying again
// may help; f must therefore keep nothing from a failed run.
func (s *Store) write(ctx context.Context, f func(q *sqlgen.Queries) error) error {
	return s.writeTx(ctx, func(_ sqlgen.DBTX, q *sqlgen.Queries) error { return f(q) })
}

// writeTx is write for what also writes with text that is made here.
func (s *Store) writeTx(ctx context.Context, f func(tx sqlgen.DBTX, q *sqlgen.Queries) error) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := s.writeOnce(ctx, f)
		if err == nil || attempt == maxAttempts || !retryable(err) {
			return err
		}
	}
}

func (s *Store) writeOnce(ctx context.Context, f func(tx sqlgen.DBTX, q *sqlgen.Queries) error) error {
	if s.writer != nil {
		select {
		case s.writer <- struct{}{}:
			defer func() { <-s.writer }()
		case <-ctx.Done():
			return fmt.Errorf("waiting to write: %w", context.Cause(ctx))
		}
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := s.run(tx, f); err != nil {
		if end := tx.Rollback(); end != nil && !errors.Is(end, sql.ErrTxDone) {
			return errors.Join(err, fmt.Errorf("rolling back: %w", end))
		}
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

// run calls f with the transaction's queries.
func (s *Store) run(tx *sql.Tx, f func(tx sqlgen.DBTX, q *sqlgen.Queries) error) error {
	if s.engine != SQLite {
		return f(tx, sqlgen.New(tx))
	}
	p := prepare(tx)
	err := f(p, sqlgen.New(p))
	if end := p.close(); err == nil && end != nil {
		err = fmt.Errorf("closing statements: %w", end)
	}
	return err
}

// retryable recognizes serialization_failure and deadlock_detected.
func retryable(err error) bool {
	var state interface{ SQLState() string }
	return errors.As(err, &state) && (state.SQLState() == "40001" || state.SQLState() == "40P01")
}

// clock is the records' clock, by which epochs live and die.
func (s *Store) clock(ctx context.Context, q *sqlgen.Queries) (column.Time, error) {
	if !s.sharedClock {
		return column.At(s.now()), nil
	}
	now, err := q.ServerTime(ctx)
	if err != nil {
		return column.Time{}, fmt.Errorf("asking the database's clock: %w", err)
	}
	return now, nil
}

// newID is a UUIDv7: it sorts by time.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making an id: %w", err)
	}
	return id.String(), nil
}

func text(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

// first is the only row of a query that may find none.
func first[T any](rows []T, err error) (*T, error) {
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}
