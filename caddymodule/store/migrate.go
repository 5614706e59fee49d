package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/quotagate/quotagate/migrations"
)

// versionTable is goose's own table.
const versionTable = "goose_db_version"

// Migrate runs one command and reports what it did, a line for each migration:
//
//	up       to the newest version of this build
//	down     one version back
//	status   which versions are applied; changes nothing
//
// It may run at several processes at once.
func Migrate(ctx context.Context, db *sql.DB, engine Engine, command string, out io.Writer) error {
	switch command {
	case "up":
		return migrateUp(ctx, db, engine, out)
	case "down":
		return migrateDown(ctx, db, engine, out)
	case "status":
		return migrationStatus(ctx, db, engine, out)
	}
	return fmt.Errorf("unknown command %q: want up, down or status", command)
}

// createSchema comes before goose's lock, whose table of versions is in the
// schema. A role that may make no schema can use one that is there, which IF NOT
// EXISTS does not allow. Of two processes that make it at the same moment one is
// refused by the catalogue's unique index in spite of IF NOT EXISTS; the other has
// then committed.
func createSchema(ctx context.Context, db *sql.DB) error {
	var there bool
	err := db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)", Schema).Scan(&there)
	if err != nil || there {
		return err
	}
	const text = "CREATE SCHEMA IF NOT EXISTS " + Schema
	_, err = db.ExecContext(ctx, text)
	var state interface{ SQLState() string }
	if errors.As(err, &state) && (state.SQLState() == "23505" || state.SQLState() == "42P06") { // unique_violation, duplicate_schema
		_, err = db.ExecContext(ctx, text)
	}
	return err
}

func provider(ctx context.Context, db *sql.DB, engine Engine) (*goose.Provider, error) {
	files, err := fs.Sub(migrations.FS, engine.String())
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable)}
	dialect := goose.DialectSQLite3
	if engine == Postgres {
		dialect = goose.DialectPostgres
		if err := createSchema(ctx, db); err != nil {
			return nil, fmt.Errorf("creating schema %s: %w", Schema, err)
		}
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("making a migration lock: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, db, files, options...)
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	return p, nil
}

func migrateUp(ctx context.Context, db *sql.DB, engine Engine, out io.Writer) error {
	p, err := provider(ctx, db, engine)
	if err != nil {
		return err
	}
	done, err := p.Up(ctx)
	// SQLite has no migration lock: another process may have been faster with
	// one, which is seen when the next attempt has waited for its transaction.
	for attempt := 1; err != nil && engine == SQLite && attempt < maxAttempts && ctx.Err() == nil; attempt++ {
		done, err = p.Up(ctx)
	}
	if err != nil {
		return fmt.Errorf("migrating up: %w", err)
	}
	return report(out, "applied", done)
}

func migrateDown(ctx context.Context, db *sql.DB, engine Engine, out io.Writer) error {
	p, err := provider(ctx, db, engine)
	if err != nil {
		return err
	}
	done, err := p.Down(ctx)
	if errors.Is(err, goose.ErrNoNextVersion) {
		return report(out, "reverted", nil)
	}
	if err != nil {
		return fmt.Errorf("migrating down: %w", err)
	}
	return report(out, "reverted", []*goose.MigrationResult{done})
}

func report(out io.Writer, verb string, done []*goose.MigrationResult) error {
	if len(done) == 0 {
		_, err := fmt.Fprintln(out, "nothing to do")
		return err
	}
	for _, m := range done {
		if _, err := fmt.Fprintf(out, "%s %s\n", verb, m.Source.Path); err != nil {
			return fmt.Errorf("reporting: %w", err)
		}
	}
	return nil
}

func migrationStatus(ctx context.Context, db *sql.DB, engine Engine, out io.Writer) error {
	have, err := schemaVersion(ctx, db, engine)
	if err != nil {
		return err
	}
	sources, err := versions(engine)
	if err != nil {
		return err
	}
	for _, v := range sources {
		state := "pending"
		if v.number <= have {
			state = "applied"
		}
		if _, err := fmt.Fprintf(out, "%-8s %s\n", state, v.name); err != nil {
			return fmt.Errorf("reporting: %w", err)
		}
	}
	return nil
}

type version struct {
	number int64
	name   string
}

// versions are the migrations of this build, in order.
func versions(engine Engine) ([]version, error) {
	entries, err := fs.ReadDir(migrations.FS, engine.String())
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	list := make([]version, 0, len(entries))
	for _, e := range entries {
		number, err := goose.NumericComponent(e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading migrations: %w", err)
		}
		list = append(list, version{number, e.Name()})
	}
	return list, nil
}

// CheckSchema answers a *SchemaError if the schema is missing or older than this
// build. It changes nothing. A newer schema is accepted: during an upgrade old
// and new builds run side by side.
func CheckSchema(ctx context.Context, db *sql.DB, engine Engine) error {
	have, err := schemaVersion(ctx, db, engine)
	if err != nil {
		return err
	}
	list, err := versions(engine)
	if err != nil {
		return err
	}
	if want := list[len(list)-1].number; have < want {
		return &SchemaError{Have: have, Want: want}
	}
	return nil
}

// schemaVersion is 0 where nothing was ever applied.
func schemaVersion(ctx context.Context, db *sql.DB, engine Engine) (int64, error) {
	exists := "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1"
	if engine == Postgres {
		exists = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '" + Schema + "' AND table_name = $1"
	}
	var n int64
	if err := db.QueryRowContext(ctx, exists, versionTable).Scan(&n); err != nil {
		return 0, fmt.Errorf("reading the schema's version: %w", err)
	}
	if n == 0 {
		return 0, nil
	}
	err := db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+versionTable).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("reading the schema's version: %w", err)
	}
	return n, nil
}
