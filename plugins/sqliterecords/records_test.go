package sqliterecords

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openFile opens a database as the records do, and closes it with the test.
func openFile(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := openDB(store.SQLiteDSN(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestStore(t *testing.T) {
	t.Parallel()
	gatetest.RunStore(t, gatetest.StoreHarness{Engine: store.SQLite, Open: func(t *testing.T) *sql.DB {
		t.Helper()
		return openFile(t, filepath.Join(t.TempDir(), "quota.db"))
	}})
}

func TestBus(t *testing.T) {
	t.Parallel()
	gatetest.RunBus(t, func(t *testing.T) gatetest.BusHarness {
		t.Helper()
		file := filepath.Join(t.TempDir(), "quota.db")
		r := openRecords(t, &Module{Path: file})
		return gatetest.BusHarness{Bus: r, Store: store.ForCompanion(r.Store()), DB: openFile(t, file)}
	})
}

// openRecords opens what a config would, and closes it with the test.
func openRecords(t *testing.T, m *Module) *Records {
	t.Helper()
	provision(t, m)
	r, err := m.Open(t.Context(), caddymodule.Env{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r.(*Records)
}

// Queries are generated from the Postgres schema: SQLite must take every one as it stands.
func TestSQLiteTakesEveryQuery(t *testing.T) {
	t.Parallel()
	db := openFile(t, filepath.Join(t.TempDir(), "quota.db"))
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	queries := gatetest.GeneratedQueries(t, "../../caddymodule/store/sqlgen")
	for name, text := range queries {
		if err := prepare(t.Context(), db, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func prepare(ctx context.Context, db *sql.DB, text string) (err error) {
	stmt, err := db.PrepareContext(ctx, text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	return nil
}

// How long a failed payment is overlooked is the config's to say.
func TestGraceReachesTheStore(t *testing.T) {
	t.Parallel()
	for want, env := range map[time.Duration]caddymodule.Env{store.DefaultGrace: {}, time.Hour: {Grace: time.Hour}} {
		m := &Module{Path: filepath.Join(t.TempDir(), "quota.db")}
		provision(t, m)
		r, err := m.Open(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		if got := store.ForCompanion(r.(*Records).Store()).Grace(); got != want {
			t.Errorf("grace %s, want %s", got, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
