package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// accountSite answers users beside the rules of jobsSite.
const accountSite = "	quota_account\n" + jobsSite

// object is a JSON object of an answer.
type object = map[string]any

// account is the answer of one of /v1/subscription/*.
func (g *gateway) account(path, token string) object {
	g.t.Helper()
	r := g.do("GET", "/v1/subscription/"+path, token).want(g.t, 200)
	if got := r.Header.Get("Content-Type"); got != "application/json" {
		g.t.Errorf("%s: Content-Type = %q", path, got)
	}
	if got := r.Header.Get("Cache-Control"); got != "no-store" {
		g.t.Errorf("%s: Cache-Control = %q", path, got)
	}
	var v object
	if err := json.Unmarshal(r.body, &v); err != nil {
		g.t.Fatalf("%s: %v: %s", path, err, r.body)
	}
	return v
}

// wantPlan compares /v1/subscription/me; status is empty for nobody's subscription.
func (g *gateway) wantPlan(token, plan, status string) object {
	g.t.Helper()
	me := g.account("me", token)
	s, subscribed := me["subscription"].(object)
	if got := me["plan"].(object)["name"]; got != plan {
		g.t.Errorf("plan %v, want %s", got, plan)
	}
	switch {
	case !subscribed && me["subscription"] != nil, subscribed != (status != ""):
		g.t.Errorf("subscription %v, want the status %q", me["subscription"], status)
	case subscribed && s["status"] != status:
		g.t.Errorf("status %v, want %s", s["status"], status)
	}
	return s
}

// quotaOf is one of the quotas of /v1/subscription/usage.
func quotaOf(t testing.TB, usage object, metric string) object {
	t.Helper()
	for _, q := range usage["quotas"].([]any) {
		if q := q.(object); q["metric"] == metric {
			return q
		}
	}
	t.Fatalf("no quota of %s in %v", metric, usage["quotas"])
	return nil
}

func TestAccountOfANewUser(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	user := access("newcomer")
	g.wantPlan(user, "free", "")
	u := g.account("usage", user)
	now := time.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	want := object{
		"api_calls": 0.0, "jobs_created": 0.0, "storage_used_mb": 0.0, "compute_minutes": 0.0,
		"period_start": month.Format(time.RFC3339), "period_end": month.AddDate(0, 1, 0).Format(time.RFC3339),
	}
	if diff := cmp.Diff(want, u["usage"]); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(any(object{"jobs": 10.0, "storage": 1024.0, "api_calls": 1000.0, "compute": 60.0}), u["limits"]); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	if n := b.Count(nil); n != 0 {
		t.Errorf("the backend saw %d requests, want none", n)
	}
}

// A user who registers at the auth backend is known to nobody here, and nothing
// is written for him: the first token that it gets is that of a user with the
// default plan.
func TestRegistrationNeedsNothing(t *testing.T) {
	t.Parallel()
	tok := access("just-registered")
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		if r.URL.Path == "/v1/auth/register" {
			return gatetest.Answer{Status: 201, Body: []byte(`{"access_token":"` + tok + `"}`)}
		}
		return gatetest.Answer{}
	})
	g := start(t, "", site(b.Serve(t).URL, "	quota_account\n"+apiSite))
	r := g.do("POST", "/v1/auth/register", "").want(t, 201)
	var registered struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(r.body, &registered); err != nil {
		t.Fatal(err)
	}
	g.wantPlan(registered.AccessToken, "free", "")
	if got := g.do("GET", "/items", registered.AccessToken).want(t, 200).Header.Get("X-RateLimit-Limit"); got != "60" {
		t.Errorf("X-RateLimit-Limit = %s, want the free plan's 60", got)
	}
	var rows int
	if err := g.db().QueryRow(`SELECT count(*) FROM subscriptions`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d subscriptions were written, %v", rows, err)
	}
}

func TestAccountUsageIsThatOfTheLastRequest(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		if r.URL.Query().Has("fail") {
			return gatetest.Answer{Status: 500}
		}
		return gatetest.Answer{}
	})
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	user := access("worker")
	for n := range 3 {
		g.do("POST", "/jobs", user).want(t, 200)
		g.do("POST", "/jobs?fail", user).want(t, 500) // given back
		u := g.account("usage", user)
		used, jobs, calls := u["usage"].(object), quotaOf(t, u, "jobs"), quotaOf(t, u, "api_calls")
		made, asked := float64(n+1), float64(2*n+2)
		if used["jobs_created"] != made || jobs["used"] != made || jobs["remaining"] != 10-made {
			t.Errorf("after %v jobs: usage %v, quota %v", made, used, jobs)
		}
		if used["api_calls"] != asked || calls["used"] != asked || calls["period"] != "day" {
			t.Errorf("after %v calls: usage %v, quota %v", asked, used, calls)
		}
	}
	// What was asked here was not charged, and nobody else's.
	if u := g.account("usage", access("idler"))["usage"].(object); u["jobs_created"] != 0.0 || u["api_calls"] != 0.0 {
		t.Errorf("usage of somebody else: %v", u)
	}
}

func TestAccountAfterUpgradeAndDowngrade(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	user := access("climber")
	for range 4 {
		g.do("POST", "/jobs", user).want(t, 200)
	}
	for _, step := range []struct {
		plan  string
		limit any
	}{{"pro", 500.0}, {"enterprise", nil}, {"free", 10.0}} {
		g.subscribe("climber", step.plan)
		s := g.wantPlan(user, step.plan, "active") // read from the records: at once
		if s["user_id"] != "climber" || s["plan"] != step.plan {
			t.Errorf("subscription %v", s)
		}
		g.noticed()
		u := g.account("usage", user)
		if q := quotaOf(t, u, "jobs"); q["used"] != 4.0 || q["limit"] != step.limit || u["limits"].(object)["jobs"] != step.limit {
			t.Errorf("on %s: %v, limits %v; want 4 of %v", step.plan, q, u["limits"], step.limit)
		}
		if q := quotaOf(t, u, "jobs"); (q["remaining"] == nil) != (step.limit == nil) {
			t.Errorf("on %s: remaining %v", step.plan, q["remaining"])
		}
	}
}

func TestAccountAtTrialGraceAndExpiry(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	day := 24 * time.Hour
	now := time.Now()
	for name, c := range map[string]struct {
		source, status, column string
		at                     time.Time
		plan, want             string
	}{
		"in-trial":    {"trial", "trial", "trial_end", now.Add(day), "pro", "trial"},
		"after-trial": {"trial", "trial", "trial_end", now.Add(-time.Second), "free", "expired"},
		"in-grace":    {"stripe", "past_due", "past_due_since", now.Add(-day), "pro", "past_due"},
		"after-grace": {"stripe", "past_due", "past_due_since", now.Add(-8 * day), "free", "expired"},
		"paid":        {"manual", "active", "current_period_end", now.Add(day), "pro", "active"},
		"expired":     {"manual", "active", "current_period_end", now.Add(-time.Second), "free", "expired"},
		"cancelled":   {"manual", "cancelled", "cancelled_at", now.Add(-day), "free", "cancelled"},
	} {
		g.exec(`INSERT INTO subscriptions (account_id, plan_id, source, status, `+c.column+`)
			SELECT $1, id, $2, $3, $4 FROM subscription_plans WHERE name = 'pro'`,
			name, c.source, c.status, c.at.UTC().Format("2006-01-02 15:04:05.000000Z"))
		s := g.wantPlan(access(name), c.plan, c.want)
		if s["plan"] != "pro" {
			t.Errorf("%s: the subscription's own plan is %v, want pro", name, s["plan"])
		}
	}
	g.noticed()
	limits := map[string]float64{"pro": 500, "free": 10}
	for name, plan := range map[string]string{"in-trial": "pro", "after-trial": "free", "in-grace": "pro", "after-grace": "free"} {
		if q := quotaOf(t, g.account("usage", access(name)), "jobs"); q["limit"] != limits[plan] {
			t.Errorf("%s: jobs %v, want the limit of %s", name, q, plan)
		}
	}
	// A trial that ends while the user looks on.
	end := now.Add(time.Hour)
	for _, to := range []time.Time{end, time.Now().Add(-time.Millisecond)} {
		g.exec(`UPDATE subscriptions SET trial_end = $1 WHERE account_id = 'in-trial'`, to.UTC().Format("2006-01-02 15:04:05.000000Z"))
	}
	g.wantPlan(access("in-trial"), "free", "expired")
}

// What was used in another month or on another day is not this one's; a level
// has no periods.
func TestUsageAcrossPeriodBoundaries(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	g.roomy()
	now := time.Now().UTC()
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	month := today.AddDate(0, 0, 1-today.Day())
	used := func(metric, period string, from, to time.Time, n int) {
		t.Helper()
		const layout = "2006-01-02 15:04:05.000000Z"
		var end any
		if !to.IsZero() {
			end = to.Format(layout)
		}
		g.exec(`INSERT INTO usage_totals (epoch, account_id, metric, period, period_start, period_end, spent, refunded)
			VALUES ('by-hand', 'veteran', $1, $2, $3, $4, $5, 1)`, metric, period, from.Format(layout), end, n+1)
	}
	used("jobs", "month", month.AddDate(0, -1, 0), month, 10)
	used("jobs", "month", month, month.AddDate(0, 1, 0), 8)
	used("jobs", "month", month.AddDate(0, 1, 0), month.AddDate(0, 2, 0), 10)
	used("api_calls", "day", today.AddDate(0, 0, -1), today, 1000)
	used("api_calls", "day", today, today.AddDate(0, 0, 1), 5)
	used("api_calls", "month", month, month.AddDate(0, 1, 0), 1005)
	used("storage_bytes", "none", time.Unix(0, 0).UTC(), time.Time{}, 1<<20+1)

	user := access("veteran")
	u := g.account("usage", user)
	if got := u["usage"].(object); got["jobs_created"] != 8.0 || got["api_calls"] != 1005.0 || got["storage_used_mb"] != 2.0 {
		t.Errorf("usage %v, want 8 jobs, 1005 calls and 2 MB", got)
	}
	if q := quotaOf(t, u, "api_calls"); q["used"] != 5.0 || q["reset_at"] != today.AddDate(0, 0, 1).Format(time.RFC3339) {
		t.Errorf("api_calls %v, want 5 until midnight", q)
	}
	if q := quotaOf(t, u, "storage_bytes"); q["used"] != float64(1<<20+1) || q["reset_at"] != nil {
		t.Errorf("storage_bytes %v", q)
	}
	// Two are left of this month's ten, and the eleventh is refused.
	g.do("POST", "/jobs", user).want(t, 200)
	g.do("POST", "/jobs", user).want(t, 200)
	d := g.do("POST", "/jobs", user).want(t, 402).detail(t)
	if d["error"] != "quota_exceeded" || d["current"] != 10.0 || d["reset_at"] != month.AddDate(0, 1, 0).Format(time.RFC3339) {
		t.Errorf("detail = %v", d)
	}
	if q := quotaOf(t, g.account("usage", user), "jobs"); q["used"] != 10.0 || q["remaining"] != 0.0 {
		t.Errorf("jobs %v, want 10 of 10", q)
	}
}

func TestAccountPlansWithoutAToken(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, accountSite))
	for _, tok := range []string{"", access("somebody"), "garbage"} {
		var names []string
		for _, p := range g.account("plans", tok)["plans"].([]any) {
			names = append(names, p.(object)["name"].(string))
		}
		if got, want := strings.Join(names, " "), "free pro enterprise"; got != want {
			t.Errorf("plans %s, want %s", got, want)
		}
	}
	plans := g.account("plans", "")["plans"].([]any)
	if p := plans[1].(object); p["price_cents"] != 1999.0 || p["billing_period"] != "monthly" || p["max_jobs_per_month"] != 500.0 {
		t.Errorf("pro: %v", p)
	}
	if p := plans[2].(object); p["max_jobs_per_month"] != nil || p["max_api_calls_per_day"] != nil || p["max_storage_mb"] != 1048576.0 {
		t.Errorf("enterprise: %v", p)
	}
	r := g.do("GET", "/v1/openapi.json", "").want(t, 200)
	var d struct {
		OpenAPI string            `json:"openapi"`
		Paths   map[string]object `json:"paths"`
	}
	if err := json.Unmarshal(r.body, &d); err != nil || !strings.HasPrefix(d.OpenAPI, "3.1") || d.Paths["/v1/subscription/me"] == nil {
		t.Errorf("OpenAPI %s with %d paths, %v", d.OpenAPI, len(d.Paths), err)
	}
}
