package pgrecords

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// as is the address of the same database for another role.
func as(t *testing.T, dsn, role string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

// rolesOf applies the operator's file to a database with tables of a host: before
// the schema is there, after, and once more. Not for tests in parallel: roles are
// the whole server's.
func rolesOf(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../config/postgres/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	dsn := gatetest.Postgres(t).Database(t)
	db := pool(t, &Module{DSN: dsn})
	exec := func(s string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE public.users (id INT PRIMARY KEY, email TEXT, password_hash TEXT, status TEXT, created_at TIMESTAMPTZ)")
	exec("CREATE TABLE public.sessions (id INT PRIMARY KEY, user_id INT, token_hash TEXT, revoked_at TIMESTAMPTZ)")
	exec("INSERT INTO public.users VALUES (7, 'a@x', 'secret', 'active'), (8, 'b@x', 'secret', 'suspended')")
	exec("INSERT INTO public.sessions VALUES (1, 7, 'secret', NULL), (2, 7, 'secret', NULL)")
	exec(string(text))
	owner := provision(t, &Module{DSN: as(t, dsn, "quotagate_owner")})
	if err := owner.Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	exec(string(text))
	exec(string(text))
	return dsn
}

func refused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "42501"
}

func TestRoles(t *testing.T) {
	dsn := rolesOf(t)
	gateway := openRecords(t, &Module{DSN: as(t, dsn, "quotagate_gateway")}, caddymodule.Env{DefaultPlan: "free"})
	companion := store.ForCompanion(openRecords(t, &Module{DSN: as(t, dsn, "quotagate_companion")}, caddymodule.Env{}).Store())

	for _, role := range []string{"quotagate_owner", "quotagate_gateway", "quotagate_companion"} {
		sessionIsPrepared(t, as(t, dsn, role))
	}
	companionWorks(t, companion)
	gatewayAdmits(t, gateway)
	gatewayRecords(t, gateway, pool(t, &Module{DSN: dsn}))
	changes := follow(t, gateway, nil)
	if _, err := companion.Upgrade(t.Context(), "user:seen", store.Grant{Plan: "pro"}); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, "seen")
	if err := gateway.m.Migrate(t.Context(), "status", t.Output()); err != nil {
		t.Errorf("the gateway looks at the schema: %v", err)
	}

	forbidden(t, pool(t, &Module{DSN: as(t, dsn, "quotagate_gateway")}), "gateway",
		"UPDATE subscription_plans SET tier = 1", "INSERT INTO admins (user_id) VALUES ('me')", "SELECT * FROM admins",
		"INSERT INTO subscriptions (account_id, source, status) VALUES ('me', 'manual', 'active')", "UPDATE user_controls SET state = 'active'",
		"SELECT original_email FROM user_controls", "DELETE FROM revoked_sessions", "UPDATE accounts SET stripe_customer_id = 'x'",
		"UPDATE usage_levels SET value = 0", "INSERT INTO changes (seq, subject, version) VALUES (99, '*', 99)", "CREATE TABLE mine (x INT)",
		"SELECT * FROM outbox_events", "UPDATE outbox_events SET payload = '{}'", "DELETE FROM quota_notifications",
		"SELECT * FROM audit_events", "SELECT * FROM idempotency_keys", "SELECT * FROM invoices", "SELECT * FROM stripe_events",
		"INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded) VALUES ('adjusted', 'me', 'jobs', 'month', now(), now() + interval '1 month', 0, 5)",
		"SELECT password_hash FROM public.users", "SELECT email FROM public.users", "UPDATE public.users SET status = 'active'", "UPDATE public.sessions SET revoked_at = NULL",
		"CREATE SCHEMA mine", "UPDATE goose_db_version SET version_id = 1")
	forbidden(t, pool(t, &Module{DSN: as(t, dsn, "quotagate_companion")}), "companion",
		"CREATE TABLE mine (x INT)", "DROP TABLE changes", "TRUNCATE admins", "SELECT password_hash FROM public.users", "SELECT token_hash FROM public.sessions",
		"UPDATE public.users SET id = 1", "DELETE FROM public.users", "INSERT INTO public.users (id) VALUES (1)", "UPDATE goose_db_version SET version_id = 1",
		"UPDATE audit_events SET actor_id = 'x'", "ALTER TABLE audit_events DISABLE TRIGGER ALL")
}

// sessionIsPrepared wants of the role itself what else would be set on a connection,
// which a pooler may lend to others.
func sessionIsPrepared(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for setting, want := range map[string]string{"search_path": store.Schema, "idle_in_transaction_session_timeout": "5s"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q: %v", setting, got, want, err)
		}
	}
}

// companionWorks does some of each that the companion does.
func companionWorks(t *testing.T, s *store.Companion) {
	t.Helper()
	ctx := t.Context()
	second := func(_ any, err error) error { return err }
	by := store.Actor{Type: store.ActorCLI, Bootstrap: true}
	if r, err := s.LogOutUser(ctx, by, "7", "", store.Precondition{}); err != nil || r.Sessions != 2 {
		t.Errorf("the host's sessions: %+v, %v", r, err)
	}
	removal := store.Removal{Seal: func(_, email string) string { return email }}
	if r, err := s.RemoveUser(ctx, by, "7", removal); err != nil || !r.Email.Updated {
		t.Errorf("the host's e-mail: %+v, %v", r, err)
	}
	if _, err := s.RestoreUser(ctx, by, "7", store.Restoration{}); err != nil {
		t.Errorf("a restoration: %v", err)
	}
	patch := store.UserPatch{Status: "suspended"}
	if r, err := s.PatchUser(ctx, by, "7", patch); err != nil || !r.Host.Updated {
		t.Errorf("a suspension: %+v, %v", r, err)
	}
	patch.Status = "active"
	free, err := s.PlanByName(ctx, "free")
	if err != nil {
		t.Fatal(err)
	}
	document, err := s.ExportPlans(ctx)
	if err != nil {
		t.Fatal(err)
	}
	document.Plans[0].DisplayName = "Another"
	request := store.IdempotentRequest{Owner: "user:7", Key: "k", Hash: "h"}
	month := store.Range{From: time.Now().Add(-time.Hour), To: time.Now(), Granularity: store.ByHour}
	for _, step := range []struct {
		name string
		err  error
	}{
		{"reinstatement", second(s.PatchUser(ctx, by, "7", patch))},
		{"detail", second(s.UserDetail(ctx, "7"))},
		{"sessions", second(s.UserSessions(ctx, "7"))},
		{"directory", second(s.ListUsers(ctx, store.UserFilter{Search: "x"}, store.UserPage{}))},
		{"statistics", second(s.Stats(ctx))},
		{"grant", second(s.Upgrade(ctx, "user:7", store.Grant{Plan: "pro"}))},
		{"override", second(s.AddQuotaOverride(ctx, by, "user:7", store.QuotaOverride{Metric: "jobs", Mode: store.ModeAdd, Limit: 1}))},
		{"plans", second(s.ApplyPlans(ctx, by, document))},
		{"level", s.SetLevels(ctx, by, []store.Level{{Account: "user:7", Metric: "storage_bytes", Value: 5}})},
		{"adjustment", second(s.AdjustUsage(ctx, by, "user:7", store.Adjustment{Metric: "jobs", Delta: 4}))},
		{"chart", second(s.UsageHistory(ctx, "user:7", "jobs", month))},
		{"admin", second(s.GrantAdmin(ctx, "7", by))},
		{"audit", second(s.VerifyAudit(ctx, nil))},
		{"retention", second(s.CutAudit(ctx, time.Nanosecond))},
		{"key", second(s.BeginIdempotent(ctx, &request))},
		{"answer", s.FinishIdempotent(ctx, &request, store.IdempotentAnswer{Status: 200})},
		{"pruning", s.PruneRequests(ctx)},
		{"customer", second(s.SetCustomer(ctx, "user:7", "cus_7"))},
		{"event", second(s.ReceiveEvent(ctx, store.BillingEvent{ID: "evt_1", Type: "x", Customer: "cus_7", Occurred: time.Now()}))},
		{"queue", second(s.LeaseSyncs(ctx, "me", 1, func(int64) time.Duration { return time.Minute }))},
		{"mark", s.SetBillingMark(ctx, "events", time.Now(), map[string]any{})},
		{"checkout", s.SaveCheckout(ctx, store.CheckoutSession{ID: "cs_1", URL: "https://x", Account: "user:7", PlanID: free.ID,
			Price: "p", Quantity: 1, CreatedBy: "7", CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}, "")},
	} {
		if step.err != nil {
			t.Errorf("the companion's %s: %v", step.name, step.err)
		}
	}
}

// gatewayAdmits reads what a request, quota_profile and quota_account need.
func gatewayAdmits(t *testing.T, gateway *Records) {
	t.Helper()
	ctx := t.Context()
	e, err := gateway.Entitlement(ctx, "user:7")
	later := time.Now().Add(time.Hour) // than the sessions were ended
	if err != nil || e.Plan.Name != "pro" || e.Control != quota.ControlActive || !e.Revoked(&quota.Principal{Session: "2", IssuedAt: later}) ||
		e.Revoked(&quota.Principal{Session: "3", IssuedAt: later}) {
		t.Errorf("the entitlement: %+v, %v", e, err)
	}
	if e, err := gateway.Entitlement(ctx, "user:8"); err != nil || e.Control != quota.ControlSuspended {
		t.Errorf("whom the host has suspended: %+v, %v", e, err)
	}
	s := store.ForCompanion(gateway.Store())
	_, state := s.AccountState(ctx, "user:7")
	_, usage := s.Usage(ctx, "user:7", []quota.UsageKey{{Metric: "storage_bytes", Period: quota.PeriodNone}}, nil)
	_, plans := s.ListPlans(ctx, store.PlanFilter{})
	_, history := s.UsageHistory(ctx, "user:7", "jobs", store.Range{From: time.Now().Add(-time.Hour), To: time.Now(), Granularity: store.ByHour})
	if err := errors.Join(state, usage, plans, history, gateway.Ping(ctx)); err != nil {
		t.Errorf("what a user is shown: %v", err)
	}
}

// gatewayRecords flushes, and does the upkeep of epochs, with admin's help to make them old.
func gatewayRecords(t *testing.T, gateway *Records, admin *sql.DB) {
	t.Helper()
	ctx := t.Context()
	day, end := quota.PeriodDay.Span(time.Now(), time.Time{})
	flush := quota.Flush{Seq: 1, EpochTotals: quota.EpochTotals{Epoch: "e", Rows: []quota.Total{
		{Account: "user:7", Metric: "api_calls", Period: quota.PeriodDay, Start: day.Unix(), End: end.Unix(), Spent: 3}}},
		Rollups:    []quota.Rollup{{Hour: day.Unix(), Account: "user:7", Scope: "api", Decision: "admitted", StatusClass: 2, Requests: 3, Cost: 3}},
		Seen:       []quota.Seen{{Account: "user:7", Email: "a@x", At: time.Now()}, {Account: "user:new", At: time.Now()}},
		Thresholds: []quota.Threshold{{Account: "user:7", Metric: "api_calls", Start: day.Unix(), Percent: 80, Limit: 3, Used: 3}},
	}
	for range 2 {
		if err := gateway.Flush(ctx, flush); err != nil {
			t.Errorf("the gateway's flush: %v", err)
		}
	}
	flush.Final, flush.Seq = true, 2
	if err := gateway.Flush(ctx, flush); err != nil {
		t.Error(err)
	}
	var told int
	if err := admin.QueryRowContext(ctx, "SELECT COUNT(*) FROM outbox_events WHERE event_type = 'quota.threshold_reached'").Scan(&told); err != nil || told != 1 {
		t.Errorf("%d events of a threshold, %v", told, err)
	}
	for _, s := range []string{
		"UPDATE gateway_epochs SET closed_at = now() - interval '2 days'",
		"INSERT INTO gateway_epochs (epoch, started_at, last_seen_at) VALUES ('dead', now() - interval '1 hour', now() - interval '1 hour')",
		"UPDATE changes SET created_at = now() - interval '9 days'",
	} {
		if _, err := admin.ExecContext(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	_, _, reaped := gateway.Reap(ctx, true)
	_, counted := gateway.Gateways(ctx)
	if err := errors.Join(reaped, counted, gateway.Dropped(ctx, "dead"), gateway.Maintain(ctx)); err != nil {
		t.Errorf("the gateway's upkeep: %v", err)
	}
	var compacted, open int
	const left = "SELECT (SELECT COUNT(*) FROM usage_totals WHERE epoch = 'compacted'), (SELECT COUNT(*) FROM gateway_epochs WHERE closed_at IS NULL)"
	if err := admin.QueryRowContext(ctx, left).Scan(&compacted, &open); err != nil || compacted != 1 || open != 0 {
		t.Errorf("%d totals are compacted, %d epochs open: %v", compacted, open, err)
	}
	if used, err := gateway.Usage(ctx, "user:7", []quota.UsageKey{{Metric: "api_calls", Period: quota.PeriodDay, Start: day.Unix()}}, nil); err != nil || used[0].Amount != 3 {
		t.Errorf("usage %v, %v", used, err)
	}
}

func forbidden(t *testing.T, db *sql.DB, role string, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); !refused(err) {
			t.Errorf("the %s may %s: %v", role, s, err)
		}
	}
}

// The file says of each table of ours what the gateway may do, or that it is not
// the gateway's: a table that a migration adds is decided on there.
func TestRolesNameEveryTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../config/postgres/roles.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "(VALUES\n")
	list, _, _ = strings.Cut(list, ") AS grants")
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^ +\('(\w+)'`).FindAllStringSubmatch(list, -1) {
		named = append(named, m[1])
	}
	db := pool(t, &Module{DSN: gatetest.Postgres(t).Database(t)})
	if err := store.Migrate(t.Context(), db, store.Postgres, "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	var tables string
	err = db.QueryRowContext(t.Context(), "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'quotagate'").Scan(&tables)
	if err != nil {
		t.Fatal(err)
	}
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(strings.Fields(tables), named, sorted); diff != "" {
		t.Errorf("the tables of the schema (-) and those of roles.sql (+):\n%s", diff)
	}
}
