package store_test

import (
	"context"
	"database/sql"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// What a receiver does with changes takes nothing from the time in which the
// database has to answer: a long batch is no failure of the watch.
func TestFollowWaitsForItsReceiver(t *testing.T) {
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
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		records := store.New(db, store.Options{Engine: store.SQLite})
		newest, err := records.Latest(t.Context()) // of the seed plans
		if err != nil {
			t.Fatal(err)
		}
		var seen int64
		err = records.Follow(ctx, 0,
			func(context.Context, int64) { stop() },
			func(cs []quota.Change) {
				for _, c := range cs {
					seen = c.Seq
				}
				time.Sleep(time.Minute)
			})
		if err != nil || newest == 0 || seen != newest {
			t.Errorf("seen up to change %d, want %d: %v", seen, newest, err)
		}
	})
}

// Whoever asks for changes has them at once, whatever the interval, and also where
// the guest sees no sign of them.
func TestPollLooksWhenAsked(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	records := store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite}))
	looks, look := 0, make(chan struct{}, 1)
	first := func(context.Context) (bool, error) { looks++; return looks == 1, nil }
	seen := map[quota.Subject]bool{}
	err = records.Poll(ctx, 0, time.Hour, look, first, func(cs []quota.Change) {
		for _, c := range cs {
			seen[c.Subject] = true
		}
		switch {
		case seen["user:ann"]:
			stop()
		case len(cs) == 0: // all is told that was there
			if _, err := records.Upgrade(ctx, "user:ann", store.Grant{Plan: "pro"}); err != nil {
				t.Error(err)
			}
			look <- struct{}{}
		}
	})
	if err != nil || !seen["user:ann"] {
		t.Errorf("seen %v: %v", seen, err)
	}
}
