package accounts

import (
	"regexp"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

const mib = 1 << 20

func TestSubscriptionOfANewUserIsNull(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`UPDATE subscription_plans SET created_at = '2026-01-02 03:04:05.000000Z', updated_at = '2026-01-02 03:04:05.500000Z'`)
	want(t, "me", `{"subscription": null, "plan": {
		"id": "01890a5d-ac96-774b-bcce-b302099a8001", "name": "free", "display_name": "Free Plan",
		"description": "For trying things out.", "price_cents": 0, "billing_period": null,
		"features": {"api_access": true, "custom_models": false, "priority_support": false},
		"rate_limit_multiplier": 1,
		"rate_limits": {"api": {"requests": 60, "window": 60}, "jobs": {"requests": 10, "window": 3600},
			"login": {"requests": 10, "window": 3600}, "register": {"requests": 5, "window": 3600}},
		"max_jobs_per_month": 10, "max_storage_mb": 1024, "max_api_calls_per_day": 1000,
		"quotas": [
			{"metric": "api_calls", "limit": 1000, "period": "day", "exceeded_status": 429},
			{"metric": "compute_seconds", "limit": 3600, "period": "month", "exceeded_status": 402},
			{"metric": "jobs", "limit": 10, "period": "month", "exceeded_status": 402},
			{"metric": "storage_bytes", "limit": 1073741824, "period": "none", "exceeded_status": 402}],
		"is_active": true, "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05.5Z"}}`,
		f.get("/v1/subscription/me"))
}

func TestSubscriptionAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	f := start(t)
	sub, err := f.store.Upgrade(t.Context(), ann, store.Grant{Plan: "pro", Duration: 30 * 24 * time.Hour, By: "admin", Reason: "a secret"})
	if err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE subscriptions SET pending_effective_at = current_period_end,
		pending_plan_id = (SELECT id FROM subscription_plans WHERE name = 'free')`)
	me := f.get("/v1/subscription/me")
	got := me["subscription"].(map[string]any)
	timestamp := regexp.MustCompile(`^2026-03-15T12:00:00Z$`)
	for _, field := range []string{"created_at", "updated_at"} {
		if s, _ := got[field].(string); !timestamp.MatchString(s) {
			t.Errorf("%s = %v", field, got[field])
		}
		delete(got, field)
	}
	want(t, "subscription", `{"id": "`+sub.ID+`", "user_id": "ann", "plan_id": "01890a5d-ac96-774b-bcce-b302099a8002", "plan": "pro",
		"status": "active", "started_at": "2026-03-15T12:00:00Z", "expires_at": null,
		"current_period_start": "2026-03-15T12:00:00Z", "current_period_end": "2026-04-14T12:00:00Z",
		"cancel_at_period_end": false, "cancelled_at": null, "trial_end": null, "grace_until": null, "pending_plan": "free"}`, got)
	plan := me["plan"].(map[string]any)
	for field, v := range map[string]any{
		"name": "pro", "price_cents": 1999.0, "billing_period": "monthly", "rate_limit_multiplier": 5.0, "max_storage_mb": 51200.0,
	} {
		if plan[field] != v {
			t.Errorf("plan.%s = %v, want %v", field, plan[field], v)
		}
	}
}

// Nothing runs when a trial, a paid period or a grace ends: the same row reads
// differently from that moment on.
func TestStatusAtTrialGraceAndExpiry(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	noon := time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		columns, values string
		end             time.Time
		before, after   string
		endField        string
	}{
		"trial":   {"status, source, trial_end", "'trial', 'trial', '2026-03-20 00:00:00.000000Z'", noon.Add(4*day + 12*time.Hour), "trial", "expired", "trial_end"},
		"grace":   {"status, source, past_due_since", "'past_due', 'stripe', '2026-03-15 00:00:00.000000Z'", noon.Add(6*day + 12*time.Hour), "past_due", "expired", "grace_until"},
		"expiry":  {"status, source, current_period_end", "'active', 'manual', '2026-03-20 00:00:00.000000Z'", noon.Add(4*day + 12*time.Hour), "active", "expired", "current_period_end"},
		"at once": {"status, source, cancelled_at, ended_at", "'active', 'manual', '2026-03-15 12:00:00.000000Z', '2026-03-20 00:00:00.000000Z'", noon.Add(4*day + 12*time.Hour), "active", "cancelled", "expires_at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.exec(`INSERT INTO subscriptions (account_id, plan_id, ` + c.columns + `)
				SELECT 'ann', id, ` + c.values + ` FROM subscription_plans WHERE name = 'pro'`)
			check := func(status, plan string) {
				t.Helper()
				me := f.get("/v1/subscription/me")
				s := me["subscription"].(map[string]any)
				if s["status"] != status || s["plan"] != "pro" || me["plan"].(map[string]any)["name"] != plan {
					t.Errorf("at %s: status %v of %v, in effect %v; want %s, in effect %s",
						f.clock(), s["status"], s["plan"], me["plan"].(map[string]any)["name"], status, plan)
				}
				if end := c.end.Format(time.RFC3339); s[c.endField] != end || s["expires_at"] != end {
					t.Errorf("%s = %v, expires_at = %v, want %s", c.endField, s[c.endField], s["expires_at"], end)
				}
			}
			f.at(c.end.Add(-time.Microsecond))
			check(c.before, "pro")
			f.at(c.end)
			check(c.after, "free")
		})
	}
}

func TestSubscriptionOfAnUnknownPrice(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status) VALUES ('ann', NULL, 'stripe', 'active')`)
	me := f.get("/v1/subscription/me")
	s := me["subscription"].(map[string]any)
	if s["plan"] != nil || s["plan_id"] != nil || s["status"] != "active" || me["plan"].(map[string]any)["name"] != "free" {
		t.Errorf("%v", me)
	}
}

func TestPlansAreThePublicOnesByTier(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.caller.Principal = &quota.Principal{}
	names := func() (names []any) {
		for _, p := range f.get("/v1/subscription/plans")["plans"].([]any) {
			names = append(names, p.(map[string]any)["name"])
		}
		return names
	}
	want(t, "plans", `["free", "pro", "enterprise"]`, names())
	f.exec(`UPDATE subscription_plans SET tier = 15 WHERE name = 'free'`)
	want(t, "plans", `["pro", "free", "enterprise"]`, names())
	f.exec(`UPDATE subscription_plans SET is_public = FALSE WHERE name = 'free'`)
	f.exec(`UPDATE subscription_plans SET is_active = FALSE WHERE name = 'pro'`)
	want(t, "plans", `["enterprise"]`, names())
	f.exec(`UPDATE subscription_plans SET is_active = FALSE`)
	want(t, "plans", `{"plans": []}`, any(f.get("/v1/subscription/plans")))
}

func TestPlanLimitsAreNullWhereUnlimitedOrOfAnotherPeriod(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`UPDATE plan_quotas SET limit_value = NULL WHERE metric = 'jobs'`)
	f.exec(`UPDATE plan_quotas SET period = 'month' WHERE metric = 'api_calls'`)
	f.exec(`UPDATE plan_quotas SET limit_value = 5 * 1048576 - 1 WHERE metric = 'storage_bytes'`)
	f.exec(`DELETE FROM plan_quotas WHERE metric = 'compute_seconds'`)
	p := f.get("/v1/subscription/me")["plan"].(map[string]any)
	if p["max_jobs_per_month"] != nil || p["max_api_calls_per_day"] != nil || p["max_storage_mb"] != 4.0 {
		t.Errorf("max_jobs_per_month %v, max_api_calls_per_day %v, max_storage_mb %v, want null, null and 4",
			p["max_jobs_per_month"], p["max_api_calls_per_day"], p["max_storage_mb"])
	}
	want(t, "quotas", `[
		{"metric": "api_calls", "limit": 1000, "period": "month", "exceeded_status": 429},
		{"metric": "jobs", "limit": null, "period": "month", "exceeded_status": 402},
		{"metric": "storage_bytes", "limit": 5242879, "period": "none", "exceeded_status": 402}]`, p["quotas"])
}
