package pgrecords

import (
	"io"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func BenchmarkFlush(b *testing.B) {
	m := &Module{DSN: gatetest.Postgres(b).Database(b), Connections: 4}
	if err := m.Provision(caddy.Context{}); err != nil {
		b.Fatal(err)
	}
	db := m.connect()
	defer db.Close() // the database goes with its server
	if err := store.Migrate(b.Context(), db, store.Postgres, "up", io.Discard); err != nil {
		b.Fatal(err)
	}
	gatetest.BenchFlush(b, 5000, store.New(db, store.Options{Engine: store.Postgres}).Flush)
}
