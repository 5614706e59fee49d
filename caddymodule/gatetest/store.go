package gatetest

import (
	"context"
	"database/sql"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// StoreHarness opens databases for RunStore and RunBus.
type StoreHarness struct {
	Engine store.Engine
	// Open opens an empty database, without a schema, that is closed with the test.
	Open func(t *testing.T) *sql.DB
}

// Clock is a clock that tests move.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock is a clock that stands at t.
func NewClock(t time.Time) *Clock { return &Clock{now: t} }

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set moves the clock to t.
func (c *Clock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// Add moves the clock by d.
func (c *Clock) Add(d time.Duration) { c.Set(c.Now().Add(d)) }

// storeTest is one test of the suite: a migrated database of its own, and a
// clock that stands at 2026-03-15 12:00 UTC.
type storeTest struct {
	*testing.T
	h     StoreHarness
	db    *sql.DB
	store *store.Companion
	clock *Clock
}

// RunStore is what every engine's records do.
func RunStore(t *testing.T, h StoreHarness) {
	t.Helper()
	for _, group := range []map[string]func(*storeTest){
		planTests(), subscriptionTests(), overrideTests(), usageTests(), epochTests(), rowTests(), documentTests(), viewTests(), billingTests(),
		auditTests(), idempotencyTests(), userTests(),
		analyticsTests(), statsTests(), adminTests(), auditListTests(),
	} {
		for name, f := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(h.start(t))
			})
		}
	}
	for name, f := range migrationTests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, h)
		})
	}
}

func (h StoreHarness) start(t *testing.T) *storeTest {
	t.Helper()
	st := &storeTest{T: t, h: h, clock: NewClock(time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC))}
	st.db = h.migrated(t)
	st.store = store.ForCompanion(store.New(st.db, store.Options{Engine: h.Engine, Now: st.clock.Now}))
	return st
}

func (h StoreHarness) migrated(t *testing.T) *sql.DB {
	t.Helper()
	db := h.Open(t)
	if err := store.Migrate(t.Context(), db, h.Engine, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	return db
}

// must fails the test on an error.
func must[T any](t *storeTest, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (t *storeTest) ok(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exec changes the database by hand.
func (t *storeTest) exec(stmt string, args ...any) {
	t.Helper()
	if _, err := t.db.ExecContext(t.Context(), stmt, args...); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

// unchecked changes the database by hand, past the table's checks.
func (t *storeTest) unchecked(table, stmt string) {
	t.Helper()
	conn, err := t.db.Conn(t.Context())
	t.ok(err)
	defer func() { t.ok(conn.Close()) }()
	before, after := "PRAGMA ignore_check_constraints = 1", "PRAGMA ignore_check_constraints = 0"
	if t.h.Engine == store.Postgres {
		before, after = `DO $$ DECLARE c TEXT; BEGIN
			FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = '`+table+`'::regclass AND contype = 'c' LOOP
				EXECUTE 'ALTER TABLE `+table+` DROP CONSTRAINT ' || quote_ident(c);
			END LOOP; END $$`, "SELECT 1"
	}
	for _, s := range []string{before, stmt, after} {
		if _, err := conn.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// number is the result of a query with one number.
func (t *storeTest) number(query string, args ...any) int64 {
	t.Helper()
	var n int64
	if err := t.db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (t *storeTest) entitlement(account quota.Subject) *quota.Entitlement {
	t.Helper()
	e, err := t.store.Entitlement(t.Context(), account)
	return must(t, e, err)
}

// plan is the name of the account's plan, and its status.
func (t *storeTest) plan(account quota.Subject) string {
	t.Helper()
	e := t.entitlement(account)
	return e.Plan.Name + " " + string(e.Status)
}

func (t *storeTest) wantPlan(account quota.Subject, want string) {
	t.Helper()
	if got := t.plan(account); got != want {
		t.Errorf("at %s the plan of %s is %q, want %q", t.clock.Now().Format(time.RFC3339), account, got, want)
	}
}

func (t *storeTest) usage(account quota.Subject, k quota.UsageKey, except ...string) int64 {
	t.Helper()
	n, err := t.store.Usage(t.Context(), account, []quota.UsageKey{k}, except)
	return must(t, n, err)[0].Amount
}

// concurrently runs f n times at once and returns the errors in order.
func concurrently(ctx context.Context, n int, f func(ctx context.Context, i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(ctx, i) })
	}
	all.Wait()
	return errs
}
