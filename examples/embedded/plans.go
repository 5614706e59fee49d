package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/sqliterecords" // and with it the driver "sqlite"
)

// putOnPlans gives each demo user that has never had a subscription the plan
// that it is meant to have. What was changed since is left as it is. It is done
// while no gateway uses the file.
func putOnPlans(ctx context.Context, file string, users []demoUser) (err error) {
	module := sqliterecords.Module{Path: file}
	if err := module.Provision(caddy.Context{}); err != nil {
		return err
	}
	if err := module.Migrate(ctx, "up", io.Discard); err != nil { // makes the file as a gateway does
		return fmt.Errorf("migrating %s: %w", file, err)
	}
	db, err := sql.Open("sqlite", store.SQLiteDSN(file))
	if err != nil {
		return fmt.Errorf("opening %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
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
