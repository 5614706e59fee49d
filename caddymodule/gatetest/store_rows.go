package gatetest

import (
	"fmt"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func rowTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"bad rows are refused when written":        testBadWrites,
		"bad rows are refused when loaded":         testBadLoads,
		"a bad plan concerns only those on it":     testBadPlanElsewhere,
		"an entitlement may be loaded once mended": testMended,
	}
}

// testBadWrites writes by hand what the tables have to refuse.
func testBadWrites(t *storeTest) {
	t.exec("INSERT INTO quota_overrides (account_id, metric, mode, limit_value) VALUES ('alice', 'jobs', 'set', 1)")
	t.exec("INSERT INTO rate_limit_overrides (account_id, scope, requests, window_seconds) VALUES ('alice', 'api', 1, 1)")
	t.exec("INSERT INTO usage_levels (account_id, metric, value) VALUES ('alice', 'storage_bytes', 1)")
	t.exec("INSERT INTO user_controls (user_id) VALUES ('alice')")
	t.exec("INSERT INTO admins (user_id) VALUES ('alice')")
	t.subscribe(alice, "pro", "manual", "active", "", "")
	long := strings.Repeat("x", 256)
	for _, stmt := range []string{
		"UPDATE plan_quotas SET limit_value = -1",
		"UPDATE plan_quotas SET limit_value = 9007199254740993",
		"UPDATE plan_quotas SET period = 'week'",
		"UPDATE plan_quotas SET exceeded_status = 200",
		"UPDATE plan_quotas SET metric = 'No Name' WHERE metric = 'jobs'",
		"UPDATE subscription_plans SET rate_limit_multiplier = 0",
		"UPDATE subscription_plans SET rate_limit_multiplier = -1",
		"UPDATE subscription_plans SET rate_limit_multiplier = 1.005",
		"UPDATE subscription_plans SET rate_limit_multiplier = 100.01",
		"UPDATE subscription_plans SET rate_limit_multiplier = 'NaN'",
		"UPDATE subscription_plans SET rate_limit_multiplier = NULL",
		"UPDATE subscription_plans SET features = '{'",
		"UPDATE subscription_plans SET features = '[]'",
		"UPDATE subscription_plans SET rate_limits = 'null'",
		"UPDATE subscription_plans SET name = 'Free!' WHERE name = 'free'",
		"UPDATE subscription_plans SET is_default = TRUE",
		"UPDATE subscription_plans SET trial_days = -1",
		"UPDATE plan_prices SET unit_amount = -1",
		"UPDATE plan_prices SET \"interval\" = 'week'",
		"UPDATE plan_prices SET currency = 'USD'",
		"UPDATE subscriptions SET status = 'trialing'",
		"UPDATE subscriptions SET status = 'trial'",
		"UPDATE subscriptions SET status = 'past_due'",
		"UPDATE subscriptions SET source = 'gift'",
		"UPDATE subscriptions SET quantity = 0",
		"UPDATE subscriptions SET ended_at = 'tomorrow, perhaps'",
		"UPDATE subscriptions SET plan_id = 'gone'",
		"UPDATE subscriptions SET account_id = ''",
		"UPDATE subscriptions SET account_id = '" + long + "'",
		"INSERT INTO subscriptions (account_id, source, status) VALUES ('alice', 'manual', 'active')",
		"UPDATE quota_overrides SET limit_value = -1",
		"UPDATE quota_overrides SET mode = 'multiply'",
		"UPDATE quota_overrides SET mode = 'add', limit_value = NULL",
		"UPDATE rate_limit_overrides SET requests = -1",
		"UPDATE rate_limit_overrides SET window_seconds = 0",
		"UPDATE usage_levels SET value = -1",
		"UPDATE user_controls SET state = 'bored'",
		"UPDATE admins SET role = 'root'",
		"INSERT INTO accounts (id, kind) VALUES ('x', 'robot')",
	} {
		if _, err := t.db.ExecContext(t.Context(), stmt); err == nil {
			t.Errorf("accepted: %s", stmt)
		}
	}
	if e := t.entitlement(alice); e.Plan.Name != "pro" {
		t.Errorf("after all that the plan is %s", e.Plan.Name)
	}
}

func testBadLoads(t *storeTest) {
	t.subscribe(alice, "pro", "manual", "active", "", "")
	t.exec("INSERT INTO quota_overrides (id, account_id, metric, mode, limit_value) VALUES ('o1', 'alice', 'jobs', 'set', 1)")
	t.exec("INSERT INTO rate_limit_overrides (id, account_id, scope, requests, window_seconds) VALUES ('r1', 'alice', 'api', 1, 1)")
	t.exec("INSERT INTO user_controls (user_id) VALUES ('alice')")
	pro := " WHERE name = 'pro'"
	quotaOf := " WHERE metric = 'jobs' AND plan_id = (SELECT id FROM subscription_plans WHERE name = 'pro')"
	for _, tt := range []struct{ table, set, reset, field string }{
		{"plan_quotas", "limit_value = -1" + quotaOf, "limit_value = 500" + quotaOf, "limit_value"},
		{"plan_quotas", "limit_value = 9007199254740993" + quotaOf, "limit_value = 500" + quotaOf, "limit_value"},
		{"plan_quotas", "period = 'week'" + quotaOf, "period = 'month'" + quotaOf, "period"},
		{"plan_quotas", "exceeded_status = 200" + quotaOf, "exceeded_status = 402" + quotaOf, "exceeded_status"},
		{"subscription_plans", "rate_limit_multiplier = 0" + pro, "rate_limit_multiplier = 5" + pro, "rate_limit_multiplier"},
		{"subscription_plans", "rate_limit_multiplier = -2" + pro, "rate_limit_multiplier = 5" + pro, "rate_limit_multiplier"},
		{"subscription_plans", "rate_limit_multiplier = 1.005" + pro, "rate_limit_multiplier = 5" + pro, "rate_limit_multiplier"},
		{"subscription_plans", "features = '{'" + pro, "features = '{}'" + pro, "features"},
		{"subscription_plans", "features = 'null'" + pro, "features = '{}'" + pro, "features"},
		{"subscription_plans", `features = '{"a":"yes"}'` + pro, "features = '{}'" + pro, "features"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":-1,"window":60}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":9007199254740993,"window":60}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":1,"window":0}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":1,"window":9223372036854775807}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":1}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscription_plans", `rate_limits = '{"api":{"requests":1.5,"window":60}}'` + pro, "rate_limits = '{}'" + pro, "rate_limits"},
		{"subscriptions", "status = 'bored'", "status = 'active'", "status"},
		{"subscriptions", "status = 'trial'", "status = 'active'", "trial_end"},
		{"subscriptions", "status = 'past_due'", "status = 'active'", "past_due_since"},
		{"quota_overrides", "mode = 'multiply'", "mode = 'set'", "mode"},
		{"quota_overrides", "limit_value = -1", "limit_value = 1", "limit_value"},
		{"quota_overrides", "mode = 'add', limit_value = NULL", "mode = 'set', limit_value = 1", "limit_value"},
		{"rate_limit_overrides", "window_seconds = 0", "window_seconds = 1", "requests, window_seconds"},
		{"rate_limit_overrides", "requests = -1", "requests = 1", "requests, window_seconds"},
		{"user_controls", "state = 'bored'", "state = 'active'", "state"},
	} {
		t.unchecked(tt.table, "UPDATE "+tt.table+" SET "+tt.set)
		e, err := t.store.Entitlement(t.Context(), alice)
		row := asErr[*store.RowError](err)
		if row == nil || row.Table != tt.table || row.Field != tt.field || row.Row == "" {
			t.Errorf("%s: %s: %v, %v", tt.table, tt.set, e, err)
		}
		t.exec("UPDATE " + tt.table + " SET " + tt.reset)
		t.wantPlan(alice, "pro active")
	}
}

func testBadPlanElsewhere(t *storeTest) {
	t.unchecked("subscription_plans", "UPDATE subscription_plans SET features = 'x' WHERE name = 'enterprise'")
	t.wantPlan(alice, "free ")
	_, err := t.store.ListPlans(t.Context(), store.PlanFilter{})
	if row := asErr[*store.RowError](err); row == nil || row.Row != "enterprise" {
		t.Errorf("listing a bad plan: %v", err)
	}
	t.exec("UPDATE subscription_plans SET features = '{}' WHERE name = 'enterprise'")
	t.ok(t.store.CheckPlans(t.Context()))
	quotas := "plan_quotas SET period = 'week' WHERE metric = 'jobs' AND plan_id IN (SELECT id FROM subscription_plans WHERE name = 'enterprise')"
	t.unchecked("plan_quotas", "UPDATE "+quotas)
	t.wantPlan(alice, "free ")
	if periods := t.entitlement(alice).Counted["jobs"]; periods != quota.Periods(0).With(quota.PeriodMonth) {
		t.Errorf("jobs are counted in %b, want months only", periods)
	}
	public, err := t.store.ListPlans(t.Context(), store.PlanFilter{Public: true})
	if err != nil || len(public) != 2 {
		t.Errorf("the public plans beside a bad one: %d, %v, want 2", len(public), err)
	}
	if row := asErr[*store.RowError](t.store.CheckPlans(t.Context())); row == nil || row.Row != "enterprise/jobs" || row.Field != "period" {
		t.Errorf("checking plans reports %v", row)
	}
}

func testMended(t *storeTest) {
	d, err := t.store.ExportPlans(t.Context())
	t.ok(err)
	t.unchecked("subscription_plans", "UPDATE subscription_plans SET features = 'x', rate_limit_multiplier = -1 WHERE name = 'free'")
	if _, err := t.store.Entitlement(t.Context(), alice); err == nil {
		t.Error("loaded a bad default plan")
	}
	if _, err := t.store.ApplyPlans(t.Context(), store.Actor{}, d); err != nil {
		t.Errorf("mending: %v", err)
	}
	t.wantPlan(alice, "free ")
}

func viewTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){"views show the roadmap's columns": testViews}
}

// line is a row of a query as text.
func (t *storeTest) line(query string) string {
	t.Helper()
	rows, err := t.db.QueryContext(t.Context(), query)
	t.ok(err)
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	t.ok(err)
	if !rows.Next() {
		t.Fatalf("%s: no row", query)
	}
	values, targets := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	t.ok(rows.Scan(targets...))
	t.ok(rows.Err())
	words := make([]string, len(values))
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, " ")
}

func testViews(t *storeTest) {
	now := t.clock.Now()
	t.flush("e1", total(alice, "api_calls", quota.PeriodMonth, now, 20, 3), total(alice, "jobs", quota.PeriodMonth, now, 4, 0),
		total(alice, "compute_seconds", quota.PeriodMonth, now, 61, 0), total(alice, "storage_bytes", quota.PeriodNone, now, 1<<20+1, 0),
		total(alice, "api_calls", quota.PeriodDay, now, 20, 3), total("org:acme", "jobs", quota.PeriodMonth, now, 1, 0))
	_, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Duration: 30 * day})
	t.ok(err)
	_, err = t.store.Upgrade(t.Context(), "org:acme", store.Grant{Plan: "pro"})
	t.ok(err)
	for query, want := range map[string]string{
		"SELECT user_id, api_calls, jobs_created, storage_used_mb, compute_minutes FROM user_usage":                                                          "alice 17 4 2 2",
		"SELECT user_id, status FROM user_subscriptions WHERE expires_at = current_period_end AND cancelled_at IS NULL AND stripe_customer_id IS NULL":       "alice active",
		"SELECT price_cents, billing_period, max_jobs_per_month, max_storage_mb, max_api_calls_per_day FROM plan_catalogue WHERE name = 'pro'":               "1999 monthly 500 51200 50000",
		"SELECT price_cents, billing_period, max_jobs_per_month, max_storage_mb, max_api_calls_per_day FROM plan_catalogue WHERE name = 'free'":              "0 <nil> 10 1024 1000",
		"SELECT price_cents, billing_period, max_jobs_per_month, max_storage_mb, max_api_calls_per_day FROM plan_catalogue WHERE name = 'enterprise'":        "9999 monthly <nil> 1048576 <nil>",
		"SELECT COUNT(*) FROM user_usage WHERE id IS NOT NULL AND period_start < period_end AND created_at IS NOT NULL AND updated_at IS NOT NULL":           "1",
		"SELECT COUNT(*) FROM user_subscriptions WHERE id IS NOT NULL AND plan_id IS NOT NULL AND started_at IS NOT NULL AND stripe_subscription_id IS NULL": "1",
		"SELECT COUNT(*) FROM plan_catalogue WHERE id IS NOT NULL AND display_name <> '' AND features <> '' AND rate_limit_multiplier > 0 AND is_active":     "3",
	} {
		if got := t.line(query); got != want {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
}
