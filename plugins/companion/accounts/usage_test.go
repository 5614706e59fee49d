package accounts

import (
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func TestUsageOfTheFirstDayIsZeroNotNull(t *testing.T) {
	t.Parallel()
	f := start(t)
	want(t, "usage", `{
		"usage": {"api_calls": 0, "jobs_created": 0, "storage_used_mb": 0, "compute_minutes": 0,
			"period_start": "2026-03-01T00:00:00Z", "period_end": "2026-04-01T00:00:00Z"},
		"limits": {"jobs": 10, "storage": 1024, "api_calls": 1000, "compute": 60},
		"quotas": [
			{"metric": "api_calls", "used": 0, "limit": 1000, "remaining": 1000, "period": "day", "reset_at": "2026-03-16T00:00:00Z"},
			{"metric": "compute_seconds", "used": 0, "limit": 3600, "remaining": 3600, "period": "month", "reset_at": "2026-04-01T00:00:00Z"},
			{"metric": "jobs", "used": 0, "limit": 10, "remaining": 10, "period": "month", "reset_at": "2026-04-01T00:00:00Z"},
			{"metric": "storage_bytes", "used": 0, "limit": 1073741824, "remaining": 1073741824, "period": "none", "reset_at": null}]}`,
		any(f.get("/v1/subscription/usage")))
}

func TestUsageRoundsUsedUpAndLimitsDown(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`UPDATE plan_quotas SET limit_value = 2 * 1048576 - 1 WHERE metric = 'storage_bytes'`)
	f.exec(`UPDATE plan_quotas SET limit_value = 119 WHERE metric = 'compute_seconds'`)
	f.spend("e", quota.MetricStorageBytes, f.clock(), mib+1)
	f.spend("e", quota.MetricComputeSeconds, f.clock(), 61)
	u := f.get("/v1/subscription/usage")
	used, limits := u["usage"].(map[string]any), u["limits"].(map[string]any)
	if used["storage_used_mb"] != 2.0 || used["compute_minutes"] != 2.0 {
		t.Errorf("usage %v, want 2 MB and 2 minutes", used)
	}
	if limits["storage"] != 1.0 || limits["compute"] != 1.0 {
		t.Errorf("limits %v, want 1 MB and 1 minute", limits)
	}
	for metric, n := range map[string]float64{quota.MetricStorageBytes: mib + 1, quota.MetricComputeSeconds: 61} {
		if q := quotaOf(t, u, metric); q["used"] != n {
			t.Errorf("%s: used %v, want %v in its own unit", metric, q["used"], n)
		}
	}
}

func TestUsageAcrossPeriodBoundaries(t *testing.T) {
	t.Parallel()
	f := start(t)
	check := func(jobs, calls, callsToday, storage float64) {
		t.Helper()
		u := f.get("/v1/subscription/usage")
		used := u["usage"].(map[string]any)
		if used["jobs_created"] != jobs || used["api_calls"] != calls || used["storage_used_mb"] != storage {
			t.Errorf("at %s: usage %v, want %v jobs, %v calls, %v MB", f.clock(), used, jobs, calls, storage)
		}
		if q := quotaOf(t, u, quota.MetricJobs); q["used"] != jobs {
			t.Errorf("at %s: jobs %v, want %v", f.clock(), q, jobs)
		}
		if q := quotaOf(t, u, quota.MetricAPICalls); q["used"] != callsToday || q["period"] != "day" {
			t.Errorf("at %s: api_calls %v, want %v today", f.clock(), q, callsToday)
		}
	}
	last := time.Date(2026, 2, 28, 23, 59, 59, 999_999_000, time.UTC)
	f.at(last)
	f.spend("e", quota.MetricJobs, last, 7)
	f.spend("e", quota.MetricAPICalls, last, 9)
	f.spend("e", quota.MetricStorageBytes, last, 3*mib)
	check(7, 9, 9, 3)
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.at(march)
	check(0, 0, 0, 3) // a level stays
	f.spend("e", quota.MetricJobs, march, 2)
	f.spend("e", quota.MetricAPICalls, march, 4)
	check(2, 4, 4, 3)
	f.at(march.Add(24 * time.Hour))
	check(2, 4, 0, 3)
	u := f.get("/v1/subscription/usage")["usage"].(map[string]any)
	if u["period_start"] != "2026-03-01T00:00:00Z" || u["period_end"] != "2026-04-01T00:00:00Z" {
		t.Errorf("period %v to %v", u["period_start"], u["period_end"])
	}
}

func TestUsageInBillingPeriods(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`UPDATE plan_quotas SET period = 'billing' WHERE metric = 'jobs'`)
	f.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status, started_at)
		SELECT 'ann', id, 'manual', 'active', '2026-01-31 06:00:00.000000Z' FROM subscription_plans WHERE name = 'pro'`)
	f.at(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) // of the billing period from 28 February on
	f.spend("e", quota.MetricJobs, f.clock(), 3)
	u := f.get("/v1/subscription/usage")
	if q := quotaOf(t, u, quota.MetricJobs); q["period"] != "billing" || q["used"] != 3.0 || q["reset_at"] != "2026-03-31T06:00:00Z" {
		t.Errorf("jobs %v", q)
	}
	if n := u["usage"].(map[string]any)["jobs_created"]; n != 3.0 {
		t.Errorf("jobs_created %v, want the month's 3", n)
	}
	f.at(time.Date(2026, 3, 31, 6, 0, 0, 0, time.UTC))
	u = f.get("/v1/subscription/usage")
	if q := quotaOf(t, u, quota.MetricJobs); q["used"] != 0.0 || q["reset_at"] != "2026-04-30T06:00:00Z" {
		t.Errorf("in the next billing period: jobs %v", q)
	}
	if n := u["usage"].(map[string]any)["jobs_created"]; n != 3.0 {
		t.Errorf("in the next billing period of the same month: jobs_created %v, want 3", n)
	}
}

func TestUnlimitedIsNull(t *testing.T) {
	t.Parallel()
	f := start(t)
	if _, err := f.store.Upgrade(t.Context(), ann, store.Grant{Plan: "enterprise"}); err != nil {
		t.Fatal(err)
	}
	f.spend("e", quota.MetricJobs, f.clock(), 12_345)
	u := f.get("/v1/subscription/usage")
	want(t, "limits", `{"jobs": null, "storage": 1048576, "api_calls": null, "compute": null}`, u["limits"])
	q := quotaOf(t, u, quota.MetricJobs)
	if q["used"] != 12345.0 || q["limit"] != nil || q["remaining"] != nil {
		t.Errorf("jobs %v", q)
	}
	p := f.get("/v1/subscription/me")["plan"].(map[string]any)
	if p["max_jobs_per_month"] != nil || p["max_api_calls_per_day"] != nil {
		t.Errorf("plan %v", p)
	}
}

// What was granted beside the plan counts, and more than the limit may have been used.
func TestUsageLimitsAreTheAccounts(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`INSERT INTO quota_overrides (account_id, metric, mode, limit_value, starts_at)
		VALUES ('ann', 'jobs', 'add', 5, '2026-03-01 00:00:00.000000Z')`)
	f.exec(`INSERT INTO quota_overrides (account_id, metric, mode, limit_value, starts_at)
		VALUES ('ann', 'storage_bytes', 'set', 0, '2026-03-01 00:00:00.000000Z')`)
	f.spend("e", quota.MetricJobs, f.clock(), 20)
	u := f.get("/v1/subscription/usage")
	if q := quotaOf(t, u, quota.MetricJobs); q["limit"] != 15.0 || q["remaining"] != 0.0 || q["used"] != 20.0 {
		t.Errorf("jobs %v, want 20 of 15", q)
	}
	want(t, "limits", `{"jobs": 15, "storage": 0, "api_calls": 1000, "compute": 60}`, u["limits"])
	if p := f.get("/v1/subscription/me")["plan"].(map[string]any); p["max_jobs_per_month"] != 10.0 {
		t.Errorf("max_jobs_per_month %v, want the plan's own 10", p["max_jobs_per_month"])
	}
}

func TestUsageOfMetricsThatPlansName(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status)
		SELECT id, 'renders', 3, 'day', 403 FROM subscription_plans WHERE name = 'free'`)
	f.spend("e", "renders", f.clock(), 2)
	if q := quotaOf(t, f.get("/v1/subscription/usage"), "renders"); q["used"] != 2.0 || q["remaining"] != 1.0 || q["period"] != "day" {
		t.Errorf("renders %v", q)
	}
}

// A level that was set by hand while a gateway still holds usage may be negative
// in the records.
func TestUsageIsNeverNegative(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`INSERT INTO usage_levels (account_id, metric, value) VALUES ('ann', 'storage_bytes', 0)`)
	f.exec(`UPDATE usage_levels SET counted = 5`)
	u := f.get("/v1/subscription/usage")
	if q := quotaOf(t, u, quota.MetricStorageBytes); q["used"] != 0.0 || u["usage"].(map[string]any)["storage_used_mb"] != 0.0 {
		t.Errorf("%v", u)
	}
}

func TestUsageComesFromTheRecordsWhileTheCountersAreDown(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.spend("e", quota.MetricJobs, f.clock(), 4)
	f.countersDown = true
	u := f.get("/v1/subscription/usage")
	if n := u["usage"].(map[string]any)["jobs_created"]; n != 4.0 {
		t.Errorf("jobs_created %v, want the records' 4", n)
	}
	if n := f.log.FilterMessage("the counters cannot be asked; answering from the records").Len(); n != 1 {
		t.Errorf("%d lines about it in the log, want 1: %v", n, f.log.All())
	}
}

func quotaOf(t testing.TB, answer map[string]any, metric string) map[string]any {
	t.Helper()
	for _, q := range answer["quotas"].([]any) {
		if q := q.(map[string]any); q["metric"] == metric {
			return q
		}
	}
	t.Fatalf("no quota of %s in %v", metric, answer["quotas"])
	return nil
}
