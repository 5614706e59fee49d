package admin

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// plan is the named plan as the list has it.
func (f *fixture) plan(name string) map[string]any {
	f.Helper()
	for _, p := range f.do("GET", "/v1/admin/plans", "").want(200).json()["plans"].([]any) {
		if p := p.(map[string]any); p["name"] == name {
			return p
		}
	}
	f.Fatalf("no plan %s", name)
	return nil
}

const teamPlan = `{"name": "team", "display_name": "Team", "tier": 15, "rate_limit_multiplier": 1.15,
	"features": {"api_access": true}, "rate_limits": {"api": {"requests": 100, "window": 60}},
	"quotas": [{"metric": "jobs", "limit": 50, "period": "month", "exceeded_status": 402},
		{"metric": "renders", "limit": null, "period": "day", "exceeded_status": 429}],
	"prices": [{"interval": "month", "currency": "eur", "unit_amount": 4900, "per_seat": true}], "reason": "asked for"}`

func TestPlansAreMadeAndChanged(t *testing.T) {
	t.Parallel()
	f := start(t)
	if plans := f.do("GET", "/v1/admin/plans", "").want(200).json(); plans["total"] != 3.0 || plans["plans"].([]any)[0].(map[string]any)["name"] != "free" {
		t.Errorf("plans: %v", plans)
	}
	made := f.do("POST", "/v1/admin/plans", teamPlan).want(201)
	team := made.json()
	if made.Header().Get("ETag") != `"1"` || team["version"] != 1.0 || team["rate_limit_multiplier"] != 1.15 || team["is_public"] != true {
		t.Errorf("%v: %v", made.Header(), team)
	}
	if diff := cmp.Diff([]any{
		map[string]any{"metric": "jobs", "limit": 50.0, "period": "month", "exceeded_status": 402.0},
		map[string]any{"metric": "renders", "limit": nil, "period": "day", "exceeded_status": 429.0},
	}, team["quotas"]); diff != "" {
		t.Error(diff)
	}
	if price := team["prices"].([]any)[0].(map[string]any); price["unit_amount"] != 4900.0 || price["per_seat"] != true || price["is_active"] != true || price["id"] == "" {
		t.Errorf("price %v", price)
	}
	path := "/v1/admin/plans/" + team["id"].(string)
	changed := f.do("PATCH", path, `{"display_name": "The Team", "quotas": [], "is_active": false}`, `If-Match: "1"`).want(200)
	if p := changed.json(); p["display_name"] != "The Team" || len(p["quotas"].([]any)) != 0 || p["is_active"] != false ||
		p["tier"] != 15.0 || len(p["features"].(map[string]any)) != 1 || changed.Header().Get("ETag") != `"2"` {
		t.Errorf("%v: %v", changed.Header(), p)
	}
	read := f.do("GET", path, "").want(200)
	if diff := cmp.Diff(changed.json(), read.json()); diff != "" || read.Header().Get("ETag") != `"2"` {
		t.Errorf("read again:\n%s", diff)
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events WHERE resource_type = 'plan' AND actor_id = 'boss' AND resource_id = $1", team["id"]); n != 2 {
		t.Errorf("%d events", n)
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events WHERE action = 'plan.created' AND reason = 'asked for'"); n != 1 {
		t.Error("the reason is not kept")
	}
}

func TestPlanPreconditions(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.plan("pro")["id"].(string)
	path := "/v1/admin/plans/" + id
	for _, tag := range []string{`"2"`, "2", `W/"1"`, `"1`, "'1'", "1.0", "01"} {
		f.do("PATCH", path, `{"description": "x"}`, "If-Match: "+tag).want(412).
			wantBody(`{"detail": {"error": "precondition_failed", "message": "It was changed meanwhile: read it again"}}`)
	}
	version := 1
	for _, tag := range []string{`"1"`, "2", "*", `"9", "4"`} {
		f.do("PATCH", path, fmt.Sprintf(`{"description": "%d"}`, version), "If-Match: "+tag).want(200)
		version++
	}
	f.do("PATCH", path, `{"description": "without"}`).want(200)
	f.do("PATCH", "/v1/admin/plans/pro", `{"description": "x"}`).want(404).wantBody(`{"detail": "Plan not found"}`)
	f.do("GET", "/v1/admin/plans/%25", "").want(404)
}

// Of admins who have all read one version one writes.
func TestPlanIsChangedOnceForAVersion(t *testing.T) {
	t.Parallel()
	f := start(t)
	path := "/v1/admin/plans/" + f.plan("pro")["id"].(string)
	var all sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		all.Go(func() {
			statuses[i] = f.do("PATCH", path, fmt.Sprintf(`{"description": "by %d"}`, i), `If-Match: "1"`).Code
		})
	}
	all.Wait()
	count := map[int]int{}
	for i, status := range statuses {
		count[status]++
		if got := f.plan("pro")["description"] == fmt.Sprint("by ", i); got != (status == 200) {
			t.Errorf("%d was answered %d: %v", i, status, got)
		}
	}
	if diff := cmp.Diff(map[int]int{200: 1, 412: len(statuses) - 1}, count); diff != "" {
		t.Error(diff)
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	pro := "/v1/admin/plans/" + f.plan("pro")["id"].(string)
	free := "/v1/admin/plans/" + f.plan("free")["id"].(string)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"no body":              {"PATCH", pro, "", 422, "body"},
		"no JSON":              {"PATCH", pro, "{", 422, ""},
		"its id":               {"PATCH", pro, `{"id": "x"}`, 422, "unexpected property"},
		"its name":             {"PATCH", pro, `{"name": "x"}`, 422, "unexpected property"},
		"its version":          {"PATCH", pro, `{"version": 7}`, 422, "unexpected property"},
		"when it was made":     {"PATCH", pro, `{"created_at": "2020-01-01T00:00:00Z"}`, 422, "unexpected property"},
		"a price's id":         {"PATCH", pro, `{"prices": [{"id": "x", "interval": "month", "currency": "usd", "unit_amount": 1}]}`, 422, "unexpected property"},
		"three places":         {"PATCH", pro, `{"rate_limit_multiplier": 1.234}`, 422, "two decimal places"},
		"multiplier of 0":      {"PATCH", pro, `{"rate_limit_multiplier": 0}`, 422, "0.01"},
		"no limit":             {"PATCH", pro, `{"quotas": [{"metric": "jobs", "period": "month", "exceeded_status": 402}]}`, 422, "limit"},
		"limit below 0":        {"PATCH", pro, `{"quotas": [{"metric": "jobs", "limit": -1, "period": "month", "exceeded_status": 402}]}`, 422, ""},
		"limit above 2^53":     {"PATCH", pro, `{"quotas": [{"metric": "jobs", "limit": 9007199254740993, "period": "month", "exceeded_status": 402}]}`, 422, "2^53"},
		"metric twice":         {"PATCH", pro, `{"quotas": [{"metric": "jobs", "limit": 1, "period": "month", "exceeded_status": 402}, {"metric": "jobs", "limit": 2, "period": "day", "exceeded_status": 402}]}`, 422, "named twice"},
		"metric's name":        {"PATCH", pro, `{"quotas": [{"metric": "Jobs!", "limit": 1, "period": "month", "exceeded_status": 402}]}`, 422, "not a name"},
		"status":               {"PATCH", pro, `{"quotas": [{"metric": "jobs", "limit": 1, "period": "month", "exceeded_status": 200}]}`, 422, ""},
		"period":               {"PATCH", pro, `{"quotas": [{"metric": "jobs", "limit": 1, "period": "week", "exceeded_status": 402}]}`, 422, ""},
		"window of 0":          {"PATCH", pro, `{"rate_limits": {"api": {"requests": 1, "window": 0}}}`, 422, ""},
		"endless window":       {"PATCH", pro, `{"rate_limits": {"api": {"requests": 1, "window": 9223372036854775807}}}`, 422, "window"},
		"no currency":          {"PATCH", pro, `{"prices": [{"interval": "month", "currency": "$$$", "unit_amount": 1}]}`, 422, "currency"},
		"no default is left":   {"PATCH", free, `{"is_default": false}`, 422, "another plan"},
		"a hidden default":     {"PATCH", free, `{"is_active": false}`, 422, "is_default"},
		"a name that is taken": {"POST", "/v1/admin/plans", `{"name": "pro", "rate_limit_multiplier": 1}`, 409, "plan_exists"},
		"no name":              {"POST", "/v1/admin/plans", `{"rate_limit_multiplier": 1}`, 422, "name"},
		"not a name":           {"POST", "/v1/admin/plans", `{"name": "A b", "rate_limit_multiplier": 1}`, 422, ""},
		"no multiplier":        {"POST", "/v1/admin/plans", `{"name": "x"}`, 422, "rate_limit_multiplier"},
		"another's lookup key": {"POST", "/v1/admin/plans", `{"name": "x", "rate_limit_multiplier": 1, "prices": [{"interval": "month", "currency": "usd", "unit_amount": 1, "stripe_lookup_key": "pro_monthly"}]}`, 422, "pro_monthly"},
		"a long display name":  {"PATCH", pro, `{"display_name": "` + strings.Repeat("a", 201) + `"}`, 422, ""},
	} {
		r := f.do(c.method, c.path, c.body)
		if r.Code != c.status || !strings.Contains(r.Body.String(), c.says) {
			t.Errorf("%s: %d %s, want %d %q", name, r.Code, r.Body, c.status, c.says)
		}
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events") + f.number("SELECT SUM(version) FROM subscription_plans"); n != 3 {
		t.Errorf("something was changed: %d", n)
	}
}
