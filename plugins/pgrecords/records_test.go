package pgrecords

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { gatetest.VerifyNoLeaks(m) }

// patience is for what must happen; only a failure waits that long.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// pool opens an empty database as the records do, and closes it with the test.
func pool(t *testing.T, m *Module) *sql.DB {
	t.Helper()
	db := provision(t, m).connect()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// lockTable keeps a table from everybody, for as long as the test wants.
func lockTable(t *testing.T, db *sql.DB, table string) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestStore(t *testing.T) {
	t.Parallel()
	server := gatetest.Postgres(t)
	gatetest.RunStore(t, gatetest.StoreHarness{Engine: store.Postgres, Open: func(t *testing.T) *sql.DB {
		t.Helper()
		return pool(t, &Module{DSN: server.Database(t), Connections: 16})
	}})
}

// Behind a pooler that keeps no prepared statements the store does the same.
func TestStoreWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	server := gatetest.Postgres(t)
	gatetest.RunStore(t, gatetest.StoreHarness{Engine: store.Postgres, Open: func(t *testing.T) *sql.DB {
		t.Helper()
		return pool(t, &Module{DSN: server.Database(t) + "&default_query_exec_mode=exec", Connections: 16})
	}})
}

func TestBus(t *testing.T) {
	t.Parallel()
	server := gatetest.Postgres(t)
	for name, listen := range map[string]string{"listening": "", "looking": "off"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gatetest.RunBus(t, func(t *testing.T) gatetest.BusHarness {
				t.Helper()
				m := &Module{DSN: server.Database(t), MigrateMode: MigrateAuto, Listen: listen, PollInterval: caddy.Duration(time.Minute)}
				if listen == listenOff {
					m.PollInterval = caddy.Duration(20 * time.Millisecond)
				}
				r := openRecords(t, m, caddymodule.Env{})
				return gatetest.BusHarness{Bus: r, Store: store.ForCompanion(r.Store()), DB: pool(t, &Module{DSN: m.DSN})}
			})
		})
	}
}

// openRecords opens what a config would, and closes it with the test.
func openRecords(t *testing.T, m *Module, env caddymodule.Env) *Records {
	t.Helper()
	r, err := provision(t, m).Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r.(*Records)
}

// behind is a migrated database behind a proxy.
func behind(t *testing.T, m *Module) (*gatetest.Proxy, *sql.DB) {
	t.Helper()
	server := gatetest.Postgres(t)
	dsn := server.Database(t)
	db := pool(t, &Module{DSN: dsn})
	if err := store.Migrate(t.Context(), db, store.Postgres, "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	p := gatetest.NewProxy(t, server.Addr())
	m.DSN = strings.Replace(dsn, server.Addr(), p.Addr(), 1)
	return p, db
}

// With `migrate check` the records are as in an outage until somebody migrates.
func TestCheckOnly(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	m := &Module{DSN: gatetest.Postgres(t).Database(t)}
	r := openRecords(t, m, caddymodule.Env{Log: zap.New(core)})
	_, err := r.Entitlement(t.Context(), "user:1")
	if schema := (*store.SchemaError)(nil); !errors.As(err, &schema) || !strings.Contains(err.Error(), "caddy quota migrate up") {
		t.Errorf("without a schema: %v", err)
	}
	if logs.FilterLevelExact(zap.ErrorLevel).Len() != 1 || r.Ping(t.Context()) == nil {
		t.Errorf("a missing schema was not reported: %v", logs.All())
	}
	if err := m.Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Entitlement(t.Context(), "user:1"); err != nil || r.Ping(t.Context()) != nil {
		t.Errorf("after the migration: %v", err)
	}
	eventually(t, "that they can be used is logged", func() bool { return logs.FilterMessageSnippet("can be used now").Len() == 1 })
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	m := provision(t, &Module{DSN: gatetest.Postgres(t).Database(t)})
	for _, step := range []struct{ command, want string }{
		{"status", "pending  00001_tables.sql\n"}, {"up", "applied 00001_tables.sql\n"}, {"up", "nothing to do\n"},
		{"status", "applied  00001_tables.sql\n"}, {"down", "reverted "},
	} {
		var out strings.Builder
		if err := m.Migrate(t.Context(), step.command, &out); err != nil || !strings.HasPrefix(out.String(), step.want) {
			t.Errorf("%s: %v: %s", step.command, err, out.String())
		}
	}
}

func TestDefaultPlanOfTheConfig(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto}
	r := openRecords(t, m, caddymodule.Env{DefaultPlan: "pro"})
	if e, err := r.Entitlement(t.Context(), "user:1"); err != nil || e.Plan.Name != "pro" {
		t.Errorf("%v, %v", e, err)
	}
	if _, err := m.Open(t.Context(), caddymodule.Env{DefaultPlan: "prro"}); err == nil || !strings.Contains(err.Error(), `default_plan "prro"`) {
		t.Errorf("a default plan that does not exist: %v", err)
	}
}

// The host's tables that a config names are read.
func TestHostOption(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto}
	r := openRecords(t, m, caddymodule.Env{Host: caddymodule.Host{Users: &caddymodule.HostTable{Table: "people", Columns: map[string]string{"id": "key"}}}})
	db := pool(t, &Module{DSN: m.DSN})
	for _, s := range []string{"CREATE TABLE public.people (key int, status text)", "INSERT INTO public.people VALUES (7, 'suspended')"} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := r.Entitlement(t.Context(), "user:7"); err != nil || e.Control != quota.ControlSuspended {
		t.Errorf("%+v, %v", e, err)
	}
}

// A server that is down at the start is no reason not to start.
func TestDownAtTheStart(t *testing.T) {
	t.Parallel()
	m := &Module{MigrateMode: MigrateAuto}
	p, db := behind(t, m)
	if err := store.Migrate(t.Context(), db, store.Postgres, "down", t.Output()); err != nil { // there is something to migrate
		t.Fatal(err)
	}
	p.Down()
	core, logs := observer.New(zap.InfoLevel)
	began := time.Now()
	r := openRecords(t, m, caddymodule.Env{Log: zap.New(core), DefaultPlan: "pro"})
	if took := time.Since(began); took > time.Duration(DefaultConnectTimeout)+time.Second {
		t.Errorf("opening took %s", took)
	}
	if _, err := r.Entitlement(t.Context(), "user:1"); err == nil || r.Ping(t.Context()) == nil {
		t.Error("a server that is down was not reported")
	}
	p.Up(t)
	eventually(t, "the records are migrated and can be used", func() bool {
		e, err := r.Entitlement(t.Context(), "user:1")
		return err == nil && e.Plan.Name == "pro" && r.Ping(t.Context()) == nil
	})
	eventually(t, "that is logged", func() bool { return logs.FilterMessageSnippet("can be used now").Len() == 1 })
}

// A server that hangs at the start holds up nobody for longer than connect_timeout.
func TestHangingAtTheStart(t *testing.T) {
	t.Parallel()
	m := &Module{ConnectTimeout: caddy.Duration(300 * time.Millisecond)}
	p, _ := behind(t, m)
	p.Hang(t)
	began := time.Now()
	r := openRecords(t, m, caddymodule.Env{})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("opening took %s", took)
	}
	p.Resume(t)
	eventually(t, "the records can be used", func() bool {
		_, err := r.Entitlement(t.Context(), "user:1")
		return err == nil
	})
}

// Connections that are cut are made again without anybody's doing.
func TestLostInTheMiddle(t *testing.T) {
	t.Parallel()
	m := &Module{}
	p, _ := behind(t, m)
	r := openRecords(t, m, caddymodule.Env{})
	load := func() error {
		_, err := r.Entitlement(t.Context(), "user:1")
		return err
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	p.Down()
	if err := load(); err == nil {
		t.Error("loaded from a server that is down")
	}
	p.Up(t)
	began := time.Now()
	eventually(t, "loads succeed again", func() bool { return load() == nil })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("recovery took %s", took)
	}
	p.Hang(t)
	hanging, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began = time.Now()
	if _, err := r.Entitlement(hanging, "user:1"); err == nil {
		t.Error("loaded from a server that hangs")
	}
	if took := time.Since(began); took > 300*time.Millisecond+2*cancelPatience {
		t.Errorf("a server that hangs was waited for for %s", took)
	}
	p.Resume(t)
	eventually(t, "loads succeed again", func() bool { return load() == nil })
}

// What was given up does not go on at the server, where abandoned statements
// behind a lock would soon take all connections.
func TestGivenUpStatementsAreCancelled(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto}
	r := openRecords(t, m, caddymodule.Env{})
	db := pool(t, &Module{DSN: m.DSN})
	tx := lockTable(t, db, "subscriptions")
	waiting := func() (n int) {
		err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	asking, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.Entitlement(asking, "user:1"); err == nil {
		t.Fatal("loaded from a table that is locked")
	}
	eventually(t, "nothing waits at the server", func() bool { return waiting() == 0 })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Entitlement(t.Context(), "user:1"); err != nil {
		t.Error(err)
	}
}

// However many entitlements and amounts of usage are loaded, and however slowly,
// usage can be flushed and changes be looked for.
func TestPoolIsExhausted(t *testing.T) {
	t.Parallel()
	for table, load := range map[string]func(*Records, context.Context, quota.Subject) error{
		"subscriptions": func(r *Records, ctx context.Context, account quota.Subject) error {
			_, err := r.Entitlement(ctx, account)
			return err
		},
		"usage_levels": func(r *Records, ctx context.Context, account quota.Subject) error {
			_, err := r.Usage(ctx, account, []quota.UsageKey{{Metric: "storage_bytes", Period: quota.PeriodNone}}, nil)
			return err
		},
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			testPoolIsExhausted(t, table, load)
		})
	}
}

func testPoolIsExhausted(t *testing.T, table string, load func(*Records, context.Context, quota.Subject) error) {
	t.Helper()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto, Connections: 4}
	r := openRecords(t, m, caddymodule.Env{})
	db := pool(t, &Module{DSN: m.DSN})
	tx := lockTable(t, db, table)
	loading, stop := context.WithCancel(t.Context())
	const loads = 50
	ended := make(chan error, loads)
	for i := range loads {
		go func() { ended <- load(r, loading, quota.UserSubject(fmt.Sprint(i))) }()
	}
	eventually(t, "the loads wait", func() bool { return r.db.Stats().InUse >= cap(r.loads) })
	flushing, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for seq := range int64(5) {
		if err := r.Flush(flushing, quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e"}, Seq: seq}); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Latest(flushing); err != nil {
		t.Error(err)
	}
	stop()
	for range loads {
		if err := <-ended; err == nil {
			t.Error("loaded from a table that is locked")
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := load(r, t.Context(), "user:1"); err != nil {
		t.Error(err)
	}
}

// A gateway that freezes, or is cut off, in the middle of a flush keeps nobody from
// closing the epochs of others, and after a few seconds nobody from writing.
func TestFrozenInTheMiddleOfAFlush(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto}
	frozen, other := openRecords(t, m, caddymodule.Env{}), openRecords(t, &Module{DSN: m.DSN}, caddymodule.Env{})
	flush := func(epoch string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := other.Flush(ctx, quota.Flush{
			EpochTotals: quota.EpochTotals{Epoch: epoch, Kept: true}, Process: epoch,
			Seen: []quota.Seen{{Account: "user:1", At: time.Now()}},
		})
		if err != nil {
			t.Errorf("flushing %s: %v", epoch, err)
		}
	}
	reap := func(epoch string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, _, err := other.Reap(ctx, true); err != nil {
			t.Error(err)
		}
		var closed bool
		err := other.db.QueryRowContext(ctx, "SELECT closed_at IS NOT NULL FROM gateway_epochs WHERE epoch = $1", epoch).Scan(&closed)
		if err != nil || !closed {
			t.Errorf("the epoch of the %s gateway is not closed: %v", epoch, err)
		}
	}
	flush("frozen")
	flush("killed")
	if _, err := other.db.ExecContext(t.Context(), "UPDATE gateway_epochs SET last_seen_at = last_seen_at - INTERVAL '1 minute'"); err != nil {
		t.Fatal(err)
	}
	tx, err := frozen.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // its connection is gone
	// As a flush begins, and ends.
	for _, s := range []string{
		"UPDATE gateway_epochs SET last_seen_at = now() WHERE epoch = 'frozen'",
		"UPDATE accounts SET last_seen_at = now() WHERE id = '1'",
	} {
		if _, err := tx.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	reap("killed")
	flush("other") // waits for what the frozen gateway has locked
	reap("frozen")
	if err := tx.Commit(); err == nil {
		t.Error("a transaction goes on that others have waited for")
	}
}

// follow collects what is delivered, and how often a delivery was a sign of life.
func follow(t *testing.T, r *Records, look <-chan struct{}) <-chan quota.Change {
	t.Helper()
	after, err := r.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan quota.Change, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	alive := make(chan struct{}, 1)
	go func() {
		ended <- r.Watch(ctx, after, look, func(cs []quota.Change) {
			signal(alive)
			for _, c := range cs {
				changes <- c
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-alive:
	case <-time.After(patience):
		t.Fatal("the watch gives no sign of life")
	}
	return changes
}

func revoke(t *testing.T, db *sql.DB, user string) time.Time {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO revoked_sessions (session_id, user_id) VALUES ($1, $1)", user); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

func expect(t *testing.T, changes <-chan quota.Change, user string) {
	t.Helper()
	select {
	case c := <-changes:
		if c.Subject != quota.UserSubject(user) {
			t.Errorf("%s changed, want user:%s", c.Subject, user)
		}
	case <-time.After(patience):
		t.Fatalf("the change of %s was not seen", user)
	}
}

// With the announcements cut off, changes are seen within the poll interval; and
// they are listened for again as soon as that is possible.
func TestAnnouncementsAreCutOff(t *testing.T) {
	t.Parallel()
	m := &Module{PollInterval: caddy.Duration(500 * time.Millisecond)}
	p, db := behind(t, m)
	m.Listen = m.DSN // through the proxy; the records themselves go past it
	m.DSN = strings.Replace(m.DSN, p.Addr(), gatetest.Postgres(t).Addr(), 1)
	core, logs := observer.New(zap.InfoLevel)
	r := openRecords(t, m, caddymodule.Env{Log: zap.New(core)})
	changes := follow(t, r, nil)
	for i, fail := range []func(){p.Down, func() { p.Hang(t) }} {
		fail()
		user := fmt.Sprint("cut", i)
		at := revoke(t, db, user)
		expect(t, changes, user)
		if took := time.Since(at); took > 2*time.Second {
			t.Errorf("a change was seen after %s without announcements", took)
		}
		if i == 0 {
			eventually(t, "that is logged", func() bool { return logs.FilterMessageSnippet("not announced").Len() == 1 })
			p.Up(t)
			eventually(t, "they are announced again", func() bool { return logs.FilterMessageSnippet("announced again").Len() == 1 })
		}
	}
	// The connection that hangs is found out by what it did not tell of.
	for i := 0; logs.FilterMessageSnippet("not announced").Len() < 2; i++ {
		user := fmt.Sprint("unheard", i)
		revoke(t, db, user)
		expect(t, changes, user)
	}
	p.Resume(t)
	eventually(t, "they are announced again", func() bool { return logs.FilterMessageSnippet("announced again").Len() == 2 })
}

// A change is seen when it is announced, not when it is looked for.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto, PollInterval: caddy.Duration(time.Hour)}
	r := openRecords(t, m, caddymodule.Env{})
	changes := follow(t, r, nil)
	db := pool(t, &Module{DSN: m.DSN})
	var worst time.Duration
	for i := range 100 {
		user := fmt.Sprint("u", i)
		at := revoke(t, db, user)
		expect(t, changes, user)
		worst = max(worst, time.Since(at))
	}
	if worst > 2*time.Second {
		t.Errorf("the slowest change was seen after %s", worst)
	}
	t.Logf("the slowest of 100 changes was seen after %s", worst)
}

// Where changes are not announced, and looked for each hour, whoever asks for them has them at once.
func TestLooksWhenAsked(t *testing.T) {
	t.Parallel()
	m := &Module{DSN: gatetest.Postgres(t).Database(t), MigrateMode: MigrateAuto, PollInterval: caddy.Duration(time.Hour), Listen: listenOff}
	r := openRecords(t, m, caddymodule.Env{})
	look := make(chan struct{}, 1)
	changes := follow(t, r, look)
	db := pool(t, &Module{DSN: m.DSN})
	for i := range 10 {
		user := fmt.Sprint("u", i)
		revoke(t, db, user)
		look <- struct{}{}
		expect(t, changes, user)
	}
}

// While the database is down, the watch says so, and its caller tries again.
func TestWatchFails(t *testing.T) {
	t.Parallel()
	m := &Module{PollInterval: caddy.Duration(20 * time.Millisecond)}
	p, _ := behind(t, m)
	r := openRecords(t, m, caddymodule.Env{})
	p.Down()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Watch(ctx, 0, nil, func([]quota.Change) {}); err == nil {
		t.Error("a watch of a database that is down has no error")
	}
}
