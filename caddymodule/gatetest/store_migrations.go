package gatetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func isErr(err, target error) bool { return errors.Is(err, target) }

// asErr is err as a T, nil if there is none in it.
func asErr[T error](err error) T {
	var target T
	if errors.As(err, &target) {
		return target
	}
	var none T
	return none
}

func migrate(t *testing.T, db *sql.DB, h StoreHarness, command string) string {
	t.Helper()
	var out bytes.Buffer
	if err := store.Migrate(t.Context(), db, h.Engine, command, &out); err != nil {
		t.Fatalf("migrate %s: %v", command, err)
	}
	return out.String()
}

// objects are the names of everything in our schema.
func objects(t *testing.T, db *sql.DB, h StoreHarness) []string {
	t.Helper()
	query := `SELECT type || ' ' || name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'`
	if h.Engine == store.Postgres {
		query = `SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'quotagate'::regnamespace
			UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'quotagate'::regnamespace
			UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal`
	}
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "goose") {
			names = append(names, name)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

func testUpDownUp(t *testing.T, h StoreHarness) {
	db := h.Open(t)
	status := migrate(t, db, h, "status")
	versions := strings.Count(status, "pending")
	if versions < 4 || strings.Contains(status, "applied") {
		t.Fatalf("status before: %s", status)
	}
	migrate(t, db, h, "up")
	first := objects(t, db, h)
	if out := migrate(t, db, h, "up"); out != "nothing to do\n" {
		t.Errorf("up twice: %q", out)
	}
	if out := migrate(t, db, h, "status"); strings.Contains(out, "pending") {
		t.Errorf("status after: %s", out)
	}
	for range versions {
		if out := migrate(t, db, h, "down"); !strings.HasPrefix(out, "reverted 0") {
			t.Errorf("down: %q", out)
		}
	}
	if out := migrate(t, db, h, "down"); out != "nothing to do\n" {
		t.Errorf("down once more: %q", out)
	}
	if left := objects(t, db, h); len(left) != 0 {
		t.Errorf("down leaves %v", left)
	}
	migrate(t, db, h, "up")
	if diff := cmp.Diff(first, objects(t, db, h), ignoreOrder); diff != "" {
		t.Errorf("after up, down and up:\n%s", diff)
	}
	if err := store.Migrate(t.Context(), db, h.Engine, "sideways", io.Discard); err == nil {
		t.Error("an unknown command is accepted")
	}
}

func testSeedsAgain(t *testing.T, h StoreHarness) {
	db := h.migrated(t)
	for _, edit := range []string{
		"UPDATE subscription_plans SET display_name = 'Ours', is_default = FALSE WHERE name = 'free'",
		"UPDATE subscription_plans SET is_default = TRUE WHERE name = 'pro'",
		"UPDATE plan_quotas SET limit_value = 77 WHERE metric = 'jobs'",
		"UPDATE plan_prices SET unit_amount = 1 WHERE stripe_lookup_key = 'pro_monthly'",
	} {
		if _, err := db.ExecContext(t.Context(), edit); err != nil {
			t.Fatal(err)
		}
	}
	s := store.ForCompanion(store.New(db, store.Options{Engine: h.Engine}))
	export := func() string {
		d, err := s.ExportPlans(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, err := d.YAML()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := export()
	for reverted := ""; !strings.Contains(reverted, "seed_plans"); {
		if reverted = migrate(t, db, h, "down"); !strings.HasPrefix(reverted, "reverted") { // of the seeds: leaves the plans
			t.Fatalf("down: %q", reverted)
		}
	}
	migrate(t, db, h, "up")
	if diff := cmp.Diff(before, export()); diff != "" {
		t.Errorf("seeding again changed:\n%s", diff)
	}
}

// A grant from before the records kept what it was forced over goes on overruling
// what was paid then.
func testGrantsOfBefore(t *testing.T, h StoreHarness) {
	db := h.migrated(t)
	for reverted := ""; !strings.Contains(reverted, "granted_over"); {
		if reverted = migrate(t, db, h, "down"); !strings.HasPrefix(reverted, "reverted") {
			t.Fatalf("down: %q", reverted)
		}
	}
	for _, row := range []string{
		"('over', 'a', 'stripe', FALSE, '2026-01-01 00:00:00.000000Z')", "('a grant', 'a', 'manual', TRUE, '2026-01-02 00:00:00.000000Z')",
		"('later', 'b', 'stripe', FALSE, '2026-01-02 00:00:00.000000Z')", "('before', 'b', 'manual', TRUE, '2026-01-01 00:00:00.000000Z')",
	} {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO subscriptions (id, account_id, source, is_current, started_at, status) VALUES "+
			strings.TrimSuffix(row, ")")+", 'active')"); err != nil {
			t.Fatal(err)
		}
	}
	migrate(t, db, h, "up")
	var grant, over string
	if err := db.QueryRowContext(t.Context(), "SELECT id, granted_over FROM subscriptions WHERE granted_over IS NOT NULL").Scan(&grant, &over); err != nil ||
		grant != "a grant" || over != "over" {
		t.Errorf("%q is over %q, %v", grant, over, err)
	}
}

func testMigrationsAtOnce(t *testing.T, h StoreHarness) {
	db := h.Open(t)
	for _, err := range concurrently(t.Context(), 4, func(ctx context.Context, _ int) error {
		return store.Migrate(ctx, db, h.Engine, "up", io.Discard)
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := store.CheckSchema(t.Context(), db, h.Engine); err != nil {
		t.Error(err)
	}
}

func testOwnSchema(t *testing.T, h StoreHarness) {
	db := h.migrated(t)
	if h.Engine != store.Postgres {
		return // a file of our own
	}
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d relations in public, %v", n, err)
	}
	if _, err := db.ExecContext(t.Context(), "DROP SCHEMA quotagate CASCADE"); err != nil {
		t.Errorf("uninstalling: %v", err)
	}
}
