package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// putOnPlans gives each demo user that has never had a subscription the plan
// that it is meant to have. What was changed since is left as it is. It is done
// while no gateway uses the file.
func putOnPlans(ctx context.Context, file string, users []demoUser) (err error) {
	db, err := sql.Open("sqlite", store.SQLiteDSN(file))
	if err != nil {
		return fmt.Errorf("opening %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := store.Migrate(ctx, db, store.SQLite, "up", io.Discard); err != nil {
		return fmt.Errorf("migrating %s: %w", file, err)
	}
	records := store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite}))
	for _, u := range users {
		if u.plan == "" {
			continue
		}
		account := quota.UserSubject(u.id)
		current, err := records.CurrentSubscription(ctx, account)
		if err != nil {
			return err
		}
		if current != nil {
			continue
		}
		if _, err := records.Upgrade(ctx, account, store.Grant{Plan: u.plan, Reason: "demo user", By: "examples/embedded"}); err != nil {
			return err
		}
	}
	return nil
}
