package store_test

import (
	"database/sql"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// Gateways are waited for until they have flushed twice, and no longer than they live.
func TestAwaitFlushes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		process string
		flushes []time.Duration // before (below 0) and after the call
		want    time.Duration
	}{
		"no gateway":             {},
		"this process":           {process: "own", flushes: []time.Duration{-time.Second}},
		"a companion of its own": {flushes: []time.Duration{-time.Second}},
		"one that flushes": {process: "other", want: 1450 * time.Millisecond,
			flushes: []time.Duration{-580 * time.Millisecond, 420 * time.Millisecond, 1420 * time.Millisecond}},
		"one that falls silent": {process: "other", want: 2450 * time.Millisecond,
			flushes: []time.Duration{-580 * time.Millisecond, -580 * time.Millisecond}},
		"one that is dead": {process: "other", flushes: []time.Duration{-3100 * time.Millisecond}},
		"one that hangs": {process: "other", want: 3 * time.Second,
			flushes: []time.Duration{-580 * time.Millisecond, 2420 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = db.Close() }()
				if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
					t.Fatal(err)
				}
				s := store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite}))
				call := time.Now().Add(time.Hour)
				for _, at := range c.flushes {
					time.AfterFunc(time.Until(call.Add(at)), func() {
						f := quota.Flush{Process: c.process, EpochTotals: quota.EpochTotals{Epoch: "e"}}
						if err := s.Flush(t.Context(), f); err != nil {
							t.Error(err)
						}
					})
				}
				time.Sleep(time.Until(call))
				err = s.AwaitFlushes(t.Context(), "own")
				if took := time.Since(call); err != nil || took != c.want {
					t.Errorf("took %s, want %s: %v", took, c.want, err)
				}
			})
		})
	}
}
