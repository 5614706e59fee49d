package main

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func TestDemoUsersArePutOnPlansOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "quota.db")
	users := demoUsers()
	if err := putOnPlans(t.Context(), file, users); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	db, err := sql.Open("sqlite", store.SQLiteDSN(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	records := store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite}))
	paul := quota.UserSubject(users[1].id)
	if _, err := records.Upgrade(t.Context(), paul, store.Grant{Plan: "enterprise"}); err != nil {
		t.Fatal(err)
	}
	if err := putOnPlans(t.Context(), file, users); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"free", "enterprise", "enterprise"} {
		plan, err := records.Plan(t.Context(), quota.UserSubject(users[i].id))
		if err != nil {
			t.Fatal(err)
		}
		if plan.Name != want {
			t.Errorf("%s has plan %s, want %s", users[i].username, plan.Name, want)
		}
	}
}
