package sqliterecords

import (
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

func benchRecords(b *testing.B) caddymodule.Records {
	b.Helper()
	m := &Module{Path: filepath.Join(b.TempDir(), "quota.db")}
	if err := m.Provision(caddy.Context{}); err != nil {
		b.Fatal(err)
	}
	r, err := m.Open(b.Context(), caddymodule.Env{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

// BenchmarkFlush is what metering costs the process once a second beside its requests.
func BenchmarkFlush(b *testing.B) { gatetest.BenchFlush(b, 200, benchRecords(b).Flush) }

// BenchmarkEntitlement is a load that the cache has missed.
func BenchmarkEntitlement(b *testing.B) {
	r := benchRecords(b)
	for b.Loop() {
		if _, err := r.Entitlement(b.Context(), "user:1"); err != nil {
			b.Fatal(err)
		}
	}
}
