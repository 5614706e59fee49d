package store_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func onPostgres(t *testing.T) gatetest.StoreHarness {
	t.Helper()
	server := gatetest.Postgres(t)
	return gatetest.StoreHarness{Engine: store.Postgres, Open: func(t *testing.T) *sql.DB {
		t.Helper()
		return server.Open(t, store.Schema)
	}}
}

func TestPostgresStore(t *testing.T) {
	t.Parallel()
	gatetest.RunStore(t, onPostgres(t))
}

// polled is a bus that asks the database every 20 ms.
type polled struct{ *store.Store }

func (p polled) Watch(ctx context.Context, after int64, look <-chan struct{}, deliver func([]quota.Change)) error {
	always := func(context.Context) (bool, error) { return true, nil }
	return p.Poll(ctx, after, 20*time.Millisecond, look, always, deliver)
}

func TestPostgresBus(t *testing.T) {
	t.Parallel()
	h := onPostgres(t)
	gatetest.RunBus(t, func(t *testing.T) gatetest.BusHarness {
		t.Helper()
		db := h.Open(t)
		if err := store.Migrate(t.Context(), db, h.Engine, "up", t.Output()); err != nil {
			t.Fatal(err)
		}
		s := store.New(db, store.Options{Engine: h.Engine})
		return gatetest.BusHarness{Bus: polled{s}, Store: store.ForCompanion(s), DB: db}
	})
}

// A migration that finds itself elsewhere must not leave tables in the host's schema.
func TestPostgresMigrationsRefuseAnotherSchema(t *testing.T) {
	t.Parallel()
	db := gatetest.Postgres(t).Open(t, "public")
	if err := store.Migrate(t.Context(), db, store.Postgres, "up", t.Output()); err == nil {
		t.Fatal("migrated with search_path public")
	}
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d tables in public, %v", n, err)
	}
}
