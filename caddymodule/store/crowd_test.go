package store_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// crowd is a Postgres database with many users: a tenth has a subscription, a
// hundredth was suspended, all were seen and have used something.
func crowd(tb testing.TB, users int) (*sql.DB, *store.Companion) {
	tb.Helper()
	db := gatetest.Postgres(tb).Open(tb, store.Schema)
	if err := store.Migrate(tb.Context(), db, store.Postgres, "up", tb.Output()); err != nil {
		tb.Fatal(err)
	}
	id := `CAST(lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000' AS uuid)`
	execute(tb, db,
		`CREATE TABLE public.users (id UUID PRIMARY KEY, email VARCHAR(320) UNIQUE NOT NULL, username VARCHAR(80) UNIQUE,
			hashed_password TEXT, status VARCHAR(20) NOT NULL, created_at TIMESTAMPTZ NOT NULL)`,
		`CREATE TABLE public.sessions (id UUID PRIMARY KEY, user_id UUID NOT NULL REFERENCES public.users, user_agent TEXT, ip TEXT,
			created_at TIMESTAMPTZ NOT NULL, last_seen_at TIMESTAMPTZ, revoked_at TIMESTAMPTZ)`,
		`CREATE INDEX ON public.sessions (user_id)`,
		fmt.Sprintf(`INSERT INTO public.users SELECT %s, 'user' || n || '@' || md5(CAST(n AS text)) || '.example.com', 'name' || n, repeat('x', 97),
			CASE WHEN n %% 50 = 0 THEN 'suspended' ELSE 'active' END, now() - n * interval '1 minute' FROM generate_series(1, %d) n`, id, users),
		`INSERT INTO public.sessions SELECT gen_random_uuid(), id, 'Mozilla/5.0', '192.0.2.1', now(), now(),
			CASE WHEN n = 1 THEN now() END FROM public.users, generate_series(1, 2) n`,
		`INSERT INTO accounts (id, kind, email, first_seen_at) SELECT CAST(id AS text), 'user', email, created_at FROM public.users`,
		`INSERT INTO subscriptions (account_id, plan_id, source, status, current_period_end)
			SELECT CAST(u.id AS text), p.id, 'manual', 'active', now() + interval '1 month' FROM public.users u, subscription_plans p
			WHERE p.name = 'pro' AND right(u.username, 1) = '7'`,
		`INSERT INTO user_controls (user_id, state) SELECT CAST(id AS text), 'suspended' FROM public.users WHERE username LIKE 'name%77'`,
		`INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
			SELECT e, CAST(id AS text), m, 'month', date_trunc('month', now(), 'UTC'), date_trunc('month', now(), 'UTC') + interval '1 month', 5, 1
			FROM public.users, unnest(ARRAY['api_calls', 'jobs']) m, unnest(ARRAY['e1', 'compacted']) e`,
		`INSERT INTO usage_daily (bucket, account_id, scope, decision, status_class, requests, cost)
			SELECT date_trunc('day', now(), 'UTC') - d * interval '1 day', CAST(id AS text), 'api_calls', 'admitted', 2, 3, 3
			FROM public.users, generate_series(0, 4) d`,
		`VACUUM ANALYZE`,
	)
	return db, store.ForCompanion(store.New(db, store.Options{Engine: store.Postgres}))
}

// someone is the id of the n-th of the crowd.
func someone(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

// hostIndexes are those that docs/performance.md names for a host with many users.
var hostIndexes = []string{
	"CREATE EXTENSION IF NOT EXISTS pg_trgm",
	"CREATE INDEX users_created_at ON public.users (created_at, id)",
	"CREATE INDEX users_email_trgm ON public.users USING gin (lower(email) public.gin_trgm_ops)",
	"CREATE INDEX users_username_trgm ON public.users USING gin (lower(username) public.gin_trgm_ops)",
	"ANALYZE public.users",
}

// BenchmarkDirectory is how long an admin waits for what of 100,000 users is
// looked at, by the slowest in a hundred: with the host's tables as a backend
// makes them, and with the indexes that the docs recommend.
func BenchmarkDirectory(b *testing.B) {
	const users = 100_000
	db, s := crowd(b, users)
	b.Run("plain", func(b *testing.B) { benchDirectory(b, s, users) })
	execute(b, db, strings.Replace(hostIndexes[0], "pg_trgm", "pg_trgm SCHEMA public", 1))
	execute(b, db, hostIndexes[1:]...)
	b.Run("indexed", func(b *testing.B) { benchDirectory(b, s, users) })
}

func benchDirectory(b *testing.B, s *store.Companion, users int) {
	list := func(f store.UserFilter, p store.UserPage) func(int) error {
		return func(int) error {
			_, err := s.ListUsers(b.Context(), f, p)
			return err
		}
	}
	for _, c := range []struct {
		name string
		do   func(i int) error
	}{
		{"list", list(store.UserFilter{}, store.UserPage{})},
		{"list-skip", list(store.UserFilter{}, store.UserPage{Skip: users / 2})},
		{"list-email", list(store.UserFilter{}, store.UserPage{Sort: "email", Limit: 200})},
		{"list-status", list(store.UserFilter{Status: "suspended"}, store.UserPage{})},
		{"list-plan", list(store.UserFilter{Plan: "pro"}, store.UserPage{})},
		{"search", func(i int) error {
			return list(store.UserFilter{Search: fmt.Sprint("User", i*7919%users, "@")}, store.UserPage{})(i)
		}},
		{"search-common", list(store.UserFilter{Search: "example"}, store.UserPage{})},
		{"search-nobody", list(store.UserFilter{Search: "nobody_at_all%"}, store.UserPage{})},
		{"detail", func(i int) error { return detail(b, s, someone(1+i*7919%users)) }},
		{"stats", func(int) error { _, err := s.Stats(b.Context()); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				began := time.Now()
				if err := c.do(i); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

func execute(tb testing.TB, db *sql.DB, statements ...string) {
	tb.Helper()
	for _, stmt := range statements {
		if _, err := db.ExecContext(tb.Context(), stmt); err != nil {
			tb.Fatalf("%s: %v", stmt, err)
		}
	}
}

// detail is what an admin sees of one user.
func detail(tb testing.TB, s *store.Companion, id string) error {
	tb.Helper()
	d, err := s.UserDetail(tb.Context(), id)
	if err != nil {
		return err
	}
	e := d.State.Entitlement
	var keys []quota.UsageKey
	for _, c := range quota.UsageCharges(e, time.Now()) {
		keys = append(keys, quota.UsageKey{Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start})
	}
	if _, err := s.Usage(tb.Context(), e.Account, keys, nil); err != nil {
		return err
	}
	_, err = s.UserSessions(tb.Context(), d.User.ID)
	return err
}
