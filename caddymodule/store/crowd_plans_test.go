package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// asked are the questions that a store has asked its database.
type asked struct {
	mu      sync.Mutex
	queries []pgx.TraceQueryStartData
}

// TraceQueryStart implements pgx.QueryTracer.
func (a *asked) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queries = append(a.queries, q)
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (a *asked) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// taken are the questions since the last call.
func (a *asked) taken() []pgx.TraceQueryStartData {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.queries
	a.queries = nil
	return q
}

// scanned are the tables that a statement reads from end to end.
func scanned(t *testing.T, db *sql.DB, q pgx.TraceQueryStartData) []string {
	t.Helper()
	var text string
	if err := db.QueryRowContext(t.Context(), "EXPLAIN (FORMAT JSON) "+q.SQL, q.Args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", q.SQL, err)
	}
	type node struct {
		Type  string `json:"Node Type"`
		Table string `json:"Relation Name"`
		Plans []node
	}
	var plans []struct{ Plan node }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	var tables []string
	var walk func(node)
	walk = func(n node) {
		if n.Type == "Seq Scan" {
			tables = append(tables, n.Table)
		}
		for _, below := range n.Plans {
			walk(below)
		}
	}
	walk(plans[0].Plan)
	return tables
}

// What grows with the users is found by an index: of ours by ours, of the host's
// by those that the docs recommend.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	const users = 20_000
	db, _ := crowd(t, users)
	execute(t, db, strings.Replace(hostIndexes[0], "pg_trgm", "pg_trgm SCHEMA public", 1))
	execute(t, db, hostIndexes[1:]...)
	execute(t, db,
		`INSERT INTO quota_overrides (account_id, metric, mode, limit_value) SELECT id, 'jobs', 'add', 1 FROM accounts`,
		`INSERT INTO rate_limit_overrides (account_id, scope, requests, window_seconds) SELECT id, 'api', 1, 1 FROM accounts`,
		`INSERT INTO usage_levels (account_id, metric, value) SELECT id, 'storage_bytes', 1 FROM accounts`,
		`INSERT INTO revoked_sessions (session_id, user_id) SELECT 's' || id, id FROM accounts`,
		`INSERT INTO subscriptions (account_id, plan_id, source, status, is_current)
			SELECT a.id, p.id, 'manual', 'cancelled', FALSE FROM accounts a, subscription_plans p`,
		`INSERT INTO subscriptions (account_id, plan_id, source, status)
			SELECT a.id, p.id, 'manual', 'active' FROM accounts a, subscription_plans p WHERE p.name = 'pro' ON CONFLICT DO NOTHING`,
		`INSERT INTO user_controls (user_id, state) SELECT id, 'active' FROM accounts ON CONFLICT DO NOTHING`,
		`INSERT INTO audit_events (seq, id, actor_type, actor_id, action, account_id, outcome, prev_hash, hash, created_at)
			SELECT n, 'e' || n, 'user', 'admin' || n % 500, 'user.' || n % 97, 'user' || n % 5000, 'success', '', '', now() - n * interval '1 minute' FROM generate_series(1, 50000) n`,
		`UPDATE audit_head SET seq = 50000`,
		`INSERT INTO usage_hourly (bucket, account_id, scope, decision, status_class, requests, cost)
			SELECT bucket + h * interval '1 hour', account_id, scope, decision, status_class, requests, cost FROM usage_daily, generate_series(0, 1) h`,
		`VACUUM ANALYZE`)
	trace := &asked{}
	s := store.ForCompanion(store.New(traced(t, db, trace), store.Options{Engine: store.Postgres}))
	ctx, id, now := t.Context(), someone(77), time.Now()
	account := quota.UserSubject(id)
	days := store.Range{From: now.Add(-3 * 24 * time.Hour), To: now, Granularity: store.ByDay}
	hours := store.Range{From: now.Add(-5 * time.Hour), To: now, Granularity: store.ByHour}
	listed := func(f store.UserFilter, p store.UserPage) error {
		l, err := s.ListUsers(ctx, f, p)
		if err == nil && l.Next != "" {
			p.After, p.Skip = l.Next, 0
			_, err = s.ListUsers(ctx, f, p)
		}
		return err
	}
	// The same without a table of the host's.
	seen := store.ForCompanion(store.New(traced(t, db, trace), store.Options{Engine: store.Postgres}))
	seen.SetHost(store.HostOptions{Users: &store.HostTable{Table: "none"}, Sessions: &store.HostTable{Table: "none"}})
	for name, do := range map[string]func() error{
		"list of those seen": func() error {
			l, err := seen.ListUsers(ctx, store.UserFilter{}, store.UserPage{NoTotal: true})
			if err == nil {
				_, err = seen.ListUsers(ctx, store.UserFilter{}, store.UserPage{NoTotal: true, After: l.Next})
			}
			return err
		},
		"list":            func() error { return listed(store.UserFilter{}, store.UserPage{NoTotal: true}) },
		"list by email":   func() error { return listed(store.UserFilter{}, store.UserPage{NoTotal: true, Sort: "-email"}) },
		"search":          func() error { return listed(store.UserFilter{Search: "user1234@"}, store.UserPage{}) },
		"search an id":    func() error { return listed(store.UserFilter{Search: id}, store.UserPage{}) },
		"detail":          func() error { return detail(t, s, id) },
		"entitlement":     func() error { return second(s.Entitlement(ctx, account)) },
		"account":         func() error { return second(s.Account(ctx, id)) },
		"admin":           func() error { return second(s.IsAdmin(ctx, id)) },
		"history by day":  func() error { return second(s.UsageHistory(ctx, account, "api_calls", days)) },
		"history by hour": func() error { return second(s.UsageHistory(ctx, account, "api_calls", hours)) },
		"chart rows": func() error {
			return second(s.ChartRows(ctx, store.ChartFilter{Range: hours}, &store.ChartRow{Bucket: now, AccountID: id}, 100))
		},
		"audit log": func() error {
			return second(s.ListAudit(ctx, store.AuditFilter{User: "user7"}, store.AuditPage{Limit: 100}))
		},
		"audit log, an action": func() error {
			return second(s.ListAudit(ctx, store.AuditFilter{Action: "user.7"}, store.AuditPage{Limit: 100}))
		},
		"audit log, a day": func() error {
			return second(s.ListAudit(ctx, store.AuditFilter{From: now.Add(-24 * time.Hour)}, store.AuditPage{Limit: 100}))
		},
		"adjustment": func() error {
			return second(s.AdjustUsage(ctx, store.Actor{}, account, store.Adjustment{Metric: "jobs", Delta: 1}))
		},
		"overrides": func() error { return second(s.RevokeOverrides(ctx, store.Actor{}, account, store.Revocation{})) },
	} {
		trace.taken()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found := 0
		for _, q := range trace.taken() {
			verb := strings.ToUpper(strings.TrimSpace(q.SQL[strings.LastIndex(q.SQL, "\n-- name")+1:]))
			if strings.HasPrefix(verb, "-- NAME") {
				verb = strings.TrimSpace(verb[strings.IndexByte(verb, '\n'):])
			}
			if !strings.HasPrefix(verb, "SELECT") && !strings.HasPrefix(verb, "UPDATE") {
				continue
			}
			found++
			for _, table := range scanned(t, db, q) {
				if !slices.Contains(small, table) && !strings.HasPrefix(table, "pg_") {
					t.Errorf("%s reads all of %s:\n%s\n%v", name, table, q.SQL, q.Args)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s asked nothing", name)
		}
	}
}

// small are the tables that do not grow with the users.
var small = []string{"subscription_plans", "plan_quotas", "plan_prices", "audit_head", "goose_db_version", "changes", "admins"}

func second[T any](_ T, err error) error { return err }

// traced is the same database through connections that note what is asked.
func traced(t *testing.T, db *sql.DB, trace pgx.QueryTracer) *sql.DB {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var config *pgx.ConnConfig
	if err := conn.Raw(func(c any) error {
		config = c.(*stdlib.Conn).Conn().Config()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	config.Tracer = trace
	same := stdlib.OpenDB(*config)
	t.Cleanup(func() {
		if err := same.Close(); err != nil {
			t.Error(err)
		}
	})
	return same
}
