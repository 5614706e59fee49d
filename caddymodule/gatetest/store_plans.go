package gatetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func planTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"default plan without a row":           testDefaultPlan,
		"default plan named by the config":     testConfiguredDefault,
		"seeds equal the compiled-in plans":    testSeeds,
		"multiplier with different plans":      testMultiplier,
		"features":                             testFeatures,
		"metrics are counted in every period":  testCounted,
		"list of plans":                        testListPlans,
		"accounts share a decoded plan":        testSharedPlans,
		"schema is checked before the records": testSchema,
	}
}

func testDefaultPlan(t *storeTest) {
	t.wantPlan("user:new", "free ")
	if e := t.entitlement("user:new"); !e.Anchor.IsZero() || !e.ValidUntil.IsZero() || e.Version == 0 {
		t.Errorf("of a user without a row: %+v", e)
	}
	sub, err := t.store.CurrentSubscription(t.Context(), "user:new")
	if sub != nil || err != nil {
		t.Errorf("subscription of a user without a row: %v, %v", sub, err)
	}
	if n := t.number("SELECT COUNT(*) FROM accounts"); n != 0 {
		t.Errorf("looking made %d accounts", n)
	}
	t.exec("UPDATE subscription_plans SET is_default = FALSE")
	if _, err := t.store.Entitlement(t.Context(), "user:new"); !isErr(err, store.ErrNoDefaultPlan) {
		t.Errorf("without a default plan: %v", err)
	}
	for _, bad := range []quota.Subject{"", "user:", "ip:10.0.0.0/8", "user:\x00"} {
		if _, err := t.store.Entitlement(t.Context(), bad); err == nil {
			t.Errorf("%q has an entitlement", bad)
		}
	}
}

// testSharedPlans: a hundred thousand accounts on a plan hold it once, and see each edit of it.
func testSharedPlans(t *storeTest) {
	first := t.entitlement("user:1").Plan
	if t.entitlement("user:2").Plan != first {
		t.Error("two accounts on one plan have two copies of it")
	}
	t.exec("UPDATE plan_quotas SET limit_value = 11 WHERE metric = 'jobs' AND limit_value = 10")
	if q := t.entitlement("user:1").Plan.Quotas["jobs"]; q.Limit != 11 || first.Quotas["jobs"].Limit != 10 {
		t.Errorf("after an edit the limit is %d, and %d in what was handed out before", q.Limit, first.Quotas["jobs"].Limit)
	}
	t.exec("UPDATE subscription_plans SET rate_limit_multiplier = 2 WHERE name = 'free'")
	if p := t.entitlement("user:2").Plan; p.MultiplierPct != 200 {
		t.Errorf("after an edit the multiplier is %d hundredths", p.MultiplierPct)
	}
}

func testConfiguredDefault(t *storeTest) {
	t.store.SetDefaultPlan("pro")
	t.wantPlan("user:new", "pro ")
	t.store.SetDefaultPlan("gone")
	t.wantPlan("user:new", "free ")
}

func testSeeds(t *storeTest) {
	plans, err := t.store.ListPlans(t.Context(), store.PlanFilter{})
	t.ok(err)
	var got []*quota.Plan
	for _, p := range plans {
		got = append(got, &p.Plan)
	}
	if diff := cmp.Diff(quota.SeedPlans(), got); diff != "" {
		t.Errorf("compiled in (-) and in the records (+):\n%s", diff)
	}
	if !plans[0].IsDefault || plans[1].IsDefault || plans[0].Tier != 0 || plans[1].Tier != 10 || plans[2].Tier != 20 {
		t.Errorf("default plan and tiers: %+v", plans)
	}
	prices := map[string]int64{}
	for _, p := range plans {
		for _, price := range p.Prices {
			prices[price.LookupKey] = price.UnitAmount
		}
	}
	want := map[string]int64{"pro_monthly": 1999, "pro_yearly": 19990, "enterprise_monthly": 9999, "enterprise_yearly": 99990}
	if diff := cmp.Diff(want, prices); diff != "" {
		t.Errorf("prices:\n%s", diff)
	}
}

func testMultiplier(t *storeTest) {
	for plan, want := range map[string]int64{"free": 100, "pro": 500, "enterprise": 2000} {
		account := quota.UserSubject(plan)
		_, err := t.store.Upgrade(t.Context(), account, store.Grant{Plan: plan})
		t.ok(err)
		got, err := t.store.Multiplier(t.Context(), account)
		if err != nil || got != want {
			t.Errorf("multiplier of %s: %d, %v, want %d", plan, got, err, want)
		}
		base := quota.Rate{Requests: 7, Window: time.Minute}
		if r, _ := t.entitlement(account).RateFor("other", base); r.Requests != 7*want/100 {
			t.Errorf("a scope without a limit of its own, on %s: %d", plan, r.Requests)
		}
	}
	t.exec("UPDATE subscription_plans SET rate_limit_multiplier = 1.15 WHERE name = 'pro'")
	if got, err := t.store.Multiplier(t.Context(), "user:pro"); err != nil || got != 115 {
		t.Errorf("multiplier 1.15: %d, %v", got, err)
	}
}

func testFeatures(t *storeTest) {
	_, err := t.store.Upgrade(t.Context(), "user:p", store.Grant{Plan: "pro"})
	t.ok(err)
	for _, tt := range []struct {
		account quota.Subject
		feature string
		want    bool
	}{
		{"user:f", "api_access", true},
		{"user:f", "custom_models", false},
		{"user:f", "unheard_of", false},
		{"user:p", "custom_models", true},
		{"user:p", "dedicated_support", false},
	} {
		if got, err := t.store.HasFeature(t.Context(), tt.account, tt.feature); err != nil || got != tt.want {
			t.Errorf("%s of %s: %t, %v", tt.feature, tt.account, got, err)
		}
	}
}

func testCounted(t *storeTest) {
	t.exec("INSERT INTO plan_quotas (plan_id, metric, limit_value, period, exceeded_status) SELECT id, 'renders', 5, 'billing', 402 FROM subscription_plans WHERE name = 'pro'")
	t.exec("UPDATE plan_quotas SET period = 'month' WHERE metric = 'api_calls' AND plan_id = (SELECT id FROM subscription_plans WHERE name = 'enterprise')")
	counted := t.entitlement("user:f").Counted
	want := map[string]quota.Periods{
		quota.MetricAPICalls:       quota.Periods(0).With(quota.PeriodDay).With(quota.PeriodMonth),
		quota.MetricJobs:           quota.Periods(0).With(quota.PeriodMonth),
		quota.MetricComputeSeconds: quota.Periods(0).With(quota.PeriodMonth),
		quota.MetricStorageBytes:   quota.Periods(0).With(quota.PeriodNone),
		"renders":                  quota.Periods(0).With(quota.PeriodBilling),
	}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Error(diff)
	}
	metrics, err := t.store.Metrics(t.Context())
	if diff := cmp.Diff([]string{"api_calls", "compute_seconds", "jobs", "renders", "storage_bytes"}, metrics); err != nil || diff != "" {
		t.Errorf("metrics: %v\n%s", err, diff)
	}
}

func testListPlans(t *storeTest) {
	names := func(f store.PlanFilter) (names []string) {
		plans, err := t.store.ListPlans(t.Context(), f)
		t.ok(err)
		for _, p := range plans {
			cents, period := store.DisplayPrice(p)
			names = append(names, p.Name+" "+time.Duration(cents).String()+" "+period)
		}
		return names
	}
	t.exec("UPDATE subscription_plans SET is_public = FALSE WHERE name = 'enterprise'")
	t.exec("UPDATE plan_prices SET is_active = FALSE WHERE stripe_lookup_key = 'pro_monthly'")
	if diff := cmp.Diff([]string{"free 0s ", "pro 19.99µs yearly"}, names(store.PlanFilter{Public: true})); diff != "" {
		t.Error(diff)
	}
	if n := len(names(store.PlanFilter{})); n != 3 {
		t.Errorf("%d plans, want 3", n)
	}
	p, err := t.store.PlanByName(t.Context(), "enterprise")
	if err != nil || p.Name != "enterprise" || len(p.Prices) != 2 {
		t.Errorf("by name: %+v, %v", p, err)
	}
	if _, err := t.store.PlanByName(t.Context(), "gone"); !isErr(err, store.ErrPlanNotFound) {
		t.Errorf("by a name that is none: %v", err)
	}
}

func testSchema(t *storeTest) {
	s := store.New(t.h.Open(t.T), store.Options{Engine: t.h.Engine})
	_, err := s.Entitlement(t.Context(), "user:1")
	want := &store.SchemaError{Have: 0, Want: 4}
	got := asErr[*store.SchemaError](err)
	if got == nil || got.Have != want.Have || got.Want < want.Want {
		t.Errorf("without a schema: %v", err)
	}
	if err := s.Ping(t.Context()); asErr[*store.SchemaError](err) == nil {
		t.Errorf("ping without a schema: %v", err)
	}
	if err := t.store.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// migrationTests run on databases of their own.
func migrationTests() map[string]func(*testing.T, StoreHarness) {
	return map[string]func(*testing.T, StoreHarness){
		"migrations up, down, up":          testUpDownUp,
		"seeds keep an operator's edits":   testSeedsAgain,
		"grants keep what they overrule":   testGrantsOfBefore,
		"migrations at once":               testMigrationsAtOnce,
		"nothing of ours where a host may": testOwnSchema,
	}
}

// What comes in no particular order.
var (
	ignoreOrder  = cmpopts.SortSlices(func(a, b string) bool { return a < b })
	sortSubjects = cmpopts.SortSlices(func(a, b quota.Subject) bool { return a < b })
)
