package store_test

import (
	"database/sql"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// Gateways are waited for until they have written all that they had counted twice,
// and no longer than they live.
func TestAwaitFlushes(t *testing.T) {
	t.Parallel()
	each := func(every time.Duration, n int) (at []time.Duration) {
		for i := range n {
			at = append(at, -580*time.Millisecond+time.Duration(i)*every)
		}
		return at
	}
	for name, c := range map[string]struct {
		process string
		flushes []time.Duration // that end a round, before (below 0) and after the call
		parts   []time.Duration // that end none
		want    time.Duration
		fails   bool
	}{
		"no gateway":             {},
		"this process":           {process: "own", flushes: []time.Duration{-time.Second}},
		"a companion of its own": {flushes: []time.Duration{-time.Second}},
		"one that flushes":       {process: "other", flushes: each(time.Second, 3), want: 1450 * time.Millisecond},
		"one that flushes in parts": {process: "other", flushes: each(3*time.Second, 3), parts: each(200*time.Millisecond, 40),
			want: 5450 * time.Millisecond},
		"one that falls silent": {process: "other", flushes: each(0, 2), want: 2450 * time.Millisecond},
		"one that is dead":      {process: "other", flushes: []time.Duration{-3100 * time.Millisecond}},
		"one that hangs":        {process: "other", flushes: each(3*time.Second, 2), want: 5450 * time.Millisecond},
		"one that comes to no end": {process: "other", flushes: each(0, 1), parts: each(time.Second, 20),
			want: 10 * time.Second, fails: true},
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
				flush := func(at time.Duration, seq int64) {
					time.AfterFunc(time.Until(call.Add(at)), func() {
						f := quota.Flush{Process: c.process, Seq: seq, EpochTotals: quota.EpochTotals{Epoch: "e"}}
						if err := s.Flush(t.Context(), f); err != nil && t.Context().Err() == nil {
							t.Error(err)
						}
					})
				}
				for i, at := range c.flushes {
					flush(at, int64(i+1))
				}
				for _, at := range c.parts {
					flush(at, 0)
				}
				time.Sleep(time.Until(call))
				err = s.AwaitFlushes(t.Context(), "own")
				if took := time.Since(call); errors.Is(err, store.ErrUnflushed) != c.fails || !c.fails && err != nil || took != c.want {
					t.Errorf("took %s, want %s: %v", took, c.want, err)
				}
				time.Sleep(time.Minute) // until all have flushed
			})
		})
	}
}
