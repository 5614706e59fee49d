package gatetest

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func documentTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"plans, export and apply": testDocumentRoundTrip,
		"plans, apply":            testApply,
		"plans, another default":  testApplyDefault,
		"plans, all or none":      testApplyAtomic,
		"plans, applied at once":  testApplyConcurrently,
	}
}

func (t *storeTest) parse(text string) *store.PlansDocument {
	t.Helper()
	d, err := store.ParsePlans([]byte(text))
	return must(t, d, err)
}

func (t *storeTest) apply(text string) *store.ApplyResult {
	t.Helper()
	r, err := t.store.ApplyPlans(t.Context(), store.Actor{}, t.parse(text))
	return must(t, r, err)
}

func (t *storeTest) export() string {
	t.Helper()
	d, err := t.store.ExportPlans(t.Context())
	t.ok(err)
	text, err := d.YAML()
	return string(must(t, text, err))
}

func testDocumentRoundTrip(t *storeTest) {
	text := t.export()
	latest, err := t.store.Latest(t.Context())
	t.ok(err)
	r := t.apply(text)
	if diff := cmp.Diff(&store.ApplyResult{Unchanged: []string{"enterprise", "free", "pro"}}, r); diff != "" {
		t.Error(diff)
	}
	if after, err := t.store.Latest(t.Context()); err != nil || after != latest {
		t.Errorf("applying what is there made changes: %d, then %d, %v", latest, after, err)
	}
	other := t.h.start(t.T) // an empty installation gets the same plans
	other.exec("DELETE FROM subscription_plans")
	other.apply(text)
	if diff := cmp.Diff(text, other.export()); diff != "" {
		t.Errorf("exported, applied elsewhere, exported:\n%s", diff)
	}
}

const teamPlan = `
plans:
  - name: team
    display_name: Team
    tier: 15
    rate_limit_multiplier: 7.25
    features: {api_access: true}
    rate_limits:
      api: {requests: 100, window: 60}
    quotas:
      jobs: {limit: 50, period: billing, exceeded_status: 402}
      renders: {limit: unlimited, period: day, exceeded_status: 429}
    prices:
      - {interval: month, currency: eur, unit_amount: 4900, per_seat: true, stripe_lookup_key: team_monthly}
`

func testApply(t *storeTest) {
	r := t.apply(teamPlan)
	want := &store.ApplyResult{Created: []string{"team"}, Untouched: []string{"enterprise", "free", "pro"}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	p, err := t.store.PlanByName(t.Context(), "team")
	t.ok(err)
	if p.MultiplierPct != 725 || p.Quotas["jobs"].Period != quota.PeriodBilling || !p.Quotas["renders"].Unlimited ||
		!p.IsActive || !p.IsPublic || len(p.Prices) != 1 || !p.Prices[0].PerSeat || p.Version != 1 {
		t.Errorf("%+v", p)
	}
	edited := strings.NewReplacer("limit: 50", "limit: 60", "4900", "5900", "      renders: {limit: unlimited, period: day, exceeded_status: 429}\n", "").Replace(teamPlan)
	if r := t.apply(edited); len(r.Updated) != 1 || r.Updated[0] != "team" {
		t.Errorf("%+v", r)
	}
	p, err = t.store.PlanByName(t.Context(), "team")
	t.ok(err)
	if _, ok := p.Quotas["renders"]; ok || p.Quotas["jobs"].Limit != 60 {
		t.Errorf("quotas: %+v", p.Quotas)
	}
	if cents, _ := store.DisplayPrice(p); cents != 5900 || len(p.Prices) != 2 {
		t.Errorf("the old price stays and is not shown: %+v", p.Prices)
	}
	if r := t.apply(teamPlan); len(r.Updated) != 1 {
		t.Errorf("and back: %+v", r)
	}
	if p, err = t.store.PlanByName(t.Context(), "team"); err != nil || len(p.Prices) != 2 {
		t.Errorf("a price that comes back is the one that was there: %+v, %v", p.Prices, err)
	}
	if r := t.apply(teamPlan); len(r.Unchanged) != 1 {
		t.Errorf("once more: %+v", r)
	}
	if c, u := t.number("SELECT COUNT(*) FROM audit_events WHERE action = 'plan.created'"),
		t.number("SELECT COUNT(*) FROM audit_events WHERE action = 'plan.updated' AND changes LIKE '%unit_amount%'"); c != 1 || u != 2 {
		t.Errorf("%d creations and %d edits are audited, want 1 and 2", c, u)
	}
}

func testApplyDefault(t *storeTest) {
	r := t.apply(strings.Replace(teamPlan, "tier: 15", "tier: 15\n    is_default: true", 1))
	want := &store.ApplyResult{Created: []string{"team"}, Updated: []string{"free"}, Untouched: []string{"enterprise", "pro"}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	t.wantPlan(alice, "team ")
	if _, err := t.store.ApplyPlans(t.Context(), store.Actor{}, t.parse(teamPlan)); err == nil || !strings.Contains(err.Error(), "is_default") {
		t.Errorf("no default plan would be left: %v", err)
	}
	t.wantPlan(alice, "team ")
}

func testApplyAtomic(t *storeTest) {
	before := t.export()
	// The second plan takes a lookup key that pro has: found only by the database.
	text := teamPlan + strings.NewReplacer("plans:\n", "", "name: team", "name: squad", "team_monthly", "pro_monthly").Replace(teamPlan)
	if _, err := t.store.ApplyPlans(t.Context(), store.Actor{}, t.parse(text)); err == nil {
		t.Error("two prices with one lookup key")
	}
	if diff := cmp.Diff(before, t.export()); diff != "" {
		t.Errorf("half of it was applied:\n%s", diff)
	}
}

func testApplyConcurrently(t *storeTest) {
	def := strings.Replace(teamPlan, "tier: 15", "tier: 15\n    is_default: true", 1)
	docs := []*store.PlansDocument{t.parse(def), t.parse(strings.Replace(def, "name: team", "name: crew", 1))}
	docs[1].Plans[0].Prices = nil
	for _, err := range concurrently(t.Context(), 8, func(ctx context.Context, i int) error {
		_, err := t.store.ApplyPlans(ctx, store.Actor{}, docs[i%2])
		return err
	}) {
		t.ok(err)
	}
	if n := t.number("SELECT COUNT(*) FROM subscription_plans WHERE is_default"); n != 1 {
		t.Errorf("%d default plans", n)
	}
}

// PlanDocumentErrors are documents that are refused, with what the error says.
func PlanDocumentErrors(t *testing.T) map[string]struct{ Text, Want string } {
	t.Helper()
	edit := func(old, replacement string) string {
		if !strings.Contains(teamPlan, old) {
			t.Fatalf("the document has no %q", old)
		}
		return strings.Replace(teamPlan, old, replacement, 1)
	}
	second := strings.TrimPrefix(teamPlan, "\nplans:\n")
	return map[string]struct{ Text, Want string }{
		"empty":                 {"", "the document is empty"},
		"no plans":              {"plans: []", "plans: none"},
		"not yaml":              {"plans: [", "yaml"},
		"two documents":         {teamPlan + "---\nplans: []", "more than one document"},
		"unknown field":         {edit("tier: 15", "teir: 15"), "field teir not found"},
		"named twice":           {teamPlan + second, "plan team: named twice"},
		"field twice":           {edit("tier: 15", "tier: 15\n    tier: 16"), "already defined"},
		"bad name":              {edit("name: team", "name: Team!"), `plan name "Team!"`},
		"no multiplier":         {edit("    rate_limit_multiplier: 7.25\n", ""), "rate_limit_multiplier is outside"},
		"multiplier zero":       {edit("7.25", "0"), "rate_limit_multiplier is outside"},
		"multiplier negative":   {edit("7.25", "-1"), "not a decimal"},
		"multiplier NaN":        {edit("7.25", ".nan"), "not a decimal"},
		"multiplier too exact":  {edit("7.25", "1.005"), "at most two places"},
		"multiplier too large":  {edit("7.25", "100.01"), "rate_limit_multiplier is outside"},
		"negative limit":        {edit("limit: 50", "limit: -1"), "plan team: quotas.jobs: limit is negative"},
		"limit above 2^53":      {edit("limit: 50", "limit: 9007199254740993"), "above 2^53"},
		"limit above 2^63":      {edit("limit: 50", "limit: 99999999999999999999"), "neither a whole number"},
		"limit a fraction":      {edit("limit: 50", "limit: 1.5"), "neither a whole number"},
		"limit missing":         {edit("limit: 50, ", ""), "plan team: quotas.jobs: limit is missing"},
		"limit empty":           {edit("limit: 50", "limit: "), "plan team: quotas.jobs: limit is missing"},
		"unknown period":        {edit("period: billing", "period: week"), `plan team: quotas.jobs: unknown period "week"`},
		"unknown status":        {edit("exceeded_status: 402", "exceeded_status: 200"), "exceeded_status 200"},
		"bad metric":            {edit("renders:", "Renders:"), `metric "Renders" is not a name`},
		"bad scope":             {edit("api: {", "API: {"), `scope "API" is not a name`},
		"rate without window":   {edit(", window: 60", ""), "plan team: rate_limits.api: want requests and window"},
		"rate negative":         {edit("requests: 100", "requests: -1"), "requests is negative"},
		"rate without length":   {edit("window: 60", "window: 0"), "window of 0 seconds"},
		"rate too long":         {edit("window: 60", "window: 9223372036854775807"), "is outside"},
		"bad interval":          {edit("interval: month", "interval: week"), "prices[0]: interval"},
		"bad currency":          {edit("currency: eur", "currency: EUR"), "prices[0]: currency"},
		"negative price":        {edit("4900", "-1"), "prices[0]: unit_amount is negative"},
		"no price":              {edit("unit_amount: 4900, ", ""), "prices[0]: unit_amount is missing"},
		"negative trial":        {edit("tier: 15", "tier: 15\n    trial_days: -1"), "trial_days -1"},
		"two defaults":          {edit("tier: 15", "is_default: true") + strings.Replace(second, "name: team", "name: crew\n    is_default: true", 1), "only one can"},
		"default not active":    {edit("tier: 15", "is_default: true\n    is_active: false"), "must be active"},
		"feature not a boolean": {edit("api_access: true", "api_access: 3"), "cannot unmarshal"},
		"lookup key twice":      {teamPlan + strings.Replace(second, "name: team", "name: crew", 1), "is used twice"},
	}
}
