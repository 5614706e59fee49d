package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// see makes accounts known.
func (f *fixture) see(accounts ...quota.Subject) {
	f.Helper()
	seen := make([]quota.Seen, len(accounts))
	for i, a := range accounts {
		seen[i] = quota.Seen{Account: a, Email: a.ID() + "@example.com", At: f.clock()}
	}
	f.flush(quota.Flush{Seen: seen})
}

// flush writes what a gateway would.
func (f *fixture) flush(u quota.Flush) {
	f.Helper()
	u.Epoch = "gateway"
	u.Seq = f.number("SELECT COALESCE(MAX(flush_seq), 0) FROM gateway_epochs") + 1
	if err := f.store.Flush(f.Context(), u); err != nil {
		f.Fatal(err)
	}
}

// spend notes what an account has used of a metric in this month.
func (f *fixture) spend(account quota.Subject, metric string, spent int64) {
	f.Helper()
	start, end := quota.PeriodMonth.Span(f.clock(), time.Time{})
	f.flush(quota.Flush{EpochTotals: quota.EpochTotals{Rows: []quota.Total{{
		Account: account, Metric: metric, Period: quota.PeriodMonth, Start: start.Unix(), End: end.Unix(), Spent: spent,
	}}}})
}

func (f *fixture) limit(account quota.Subject, metric string) quota.Quota {
	f.Helper()
	e, err := f.store.Entitlement(f.Context(), account)
	if err != nil {
		f.Fatal(err)
	}
	q, _ := e.Quota(metric)
	return q
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:ann", "user:bob", "org:acme")
	const path = "/v1/admin/accounts/ann/overrides"
	f.do("GET", path, "").want(200).wantBody(`{"overrides": [], "total": 0}`)
	topUp := f.do("POST", path, `{"metric": "jobs", "mode": "add", "limit": 5, "expires_at": "2026-03-16T12:00:00Z", "reason": "sorry"}`).want(201).json()
	id := topUp["id"].(string)
	delete(topUp, "id")
	if diff := cmp.Diff(map[string]any{
		"kind": "quota", "metric": "jobs", "mode": "add", "limit": 5.0, "scope": nil, "requests": nil, "window": nil, "status": "active",
		"starts_at": "2026-03-15T12:00:00Z", "expires_at": "2026-03-16T12:00:00Z", "reason": "sorry", "created_by": "boss",
	}, topUp); diff != "" {
		t.Error(diff)
	}
	later := f.do("POST", path, `{"metric": "jobs", "mode": "set", "unlimited": true, "starts_at": "2026-03-20T00:00:00+02:00"}`).want(201).json()
	if later["status"] != "scheduled" || later["limit"] != nil || later["starts_at"] != "2026-03-19T22:00:00Z" {
		t.Errorf("%v", later)
	}
	rate := f.do("POST", path, `{"scope": "api", "requests": 7, "window": 60}`).want(201).json()
	if rate["kind"] != "rate" || rate["requests"] != 7.0 || rate["expires_at"] != nil {
		t.Errorf("%v", rate)
	}
	if q := f.limit("user:ann", "jobs"); q.Limit != 15 {
		t.Errorf("limit %+v", q)
	}
	f.pass(48 * time.Hour)
	list := f.do("GET", path, "").want(200).json()
	if o := list["overrides"].([]any); list["total"] != 3.0 || o[0].(map[string]any)["status"] != "expired" {
		t.Errorf("%v", list)
	}
	// Others' overrides are not there, whatever the path says.
	f.do("DELETE", "/v1/admin/accounts/bob/overrides/"+id, "").want(404).wantBody(`{"detail": "Override not found"}`)
	f.do("DELETE", path+"/"+id, "").want(200).wantBody(`{"message": "Override revoked", "count": 1}`)
	f.do("DELETE", path+"/"+id, "").want(404)
	f.do("DELETE", path, "").want(200).wantBody(`{"message": "All overrides revoked", "count": 2}`)
	f.do("POST", "/v1/admin/accounts/acme/overrides", `{"metric": "jobs", "mode": "set", "limit": 0}`).want(201)
	if q := f.limit("org:acme", "jobs"); q.Limit != 0 || q.Unlimited {
		t.Errorf("the organization's limit: %+v", q)
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events WHERE actor_id = 'boss' AND resource_type = 'override'"); n != 7 {
		t.Errorf("%d events", n)
	}
}

func TestOverridesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:ann")
	for name, body := range map[string]string{
		"nothing":             `{}`,
		"both":                `{"metric": "jobs", "mode": "set", "limit": 1, "scope": "api"}`,
		"no mode":             `{"metric": "jobs", "limit": 1}`,
		"no limit":            `{"metric": "jobs", "mode": "set"}`,
		"null":                `{"metric": "jobs", "mode": "set", "limit": null}`,
		"limit and unlimited": `{"metric": "jobs", "mode": "set", "limit": 1, "unlimited": true}`,
		"unlimited top-up":    `{"metric": "jobs", "mode": "add", "unlimited": true}`,
		"negative":            `{"metric": "jobs", "mode": "add", "limit": -1}`,
		"beyond 2^53":         `{"metric": "jobs", "mode": "add", "limit": 9007199254740993}`,
		"unknown metric":      `{"metric": "renders", "mode": "add", "limit": 1}`,
		"a rate's limit":      `{"scope": "api", "limit": 1}`,
		"no window":           `{"scope": "api", "requests": 1}`,
		"a window of 0":       `{"scope": "api", "requests": 1, "window": 0}`,
		"an endless window":   `{"scope": "api", "requests": 1, "window": 9223372036854775807}`,
		"a scope's name":      `{"scope": "a%", "requests": 1, "window": 1}`,
		"over":                `{"metric": "jobs", "mode": "add", "limit": 1, "expires_at": "2026-03-15T11:00:00Z"}`,
		"before its start":    `{"metric": "jobs", "mode": "add", "limit": 1, "starts_at": "2026-03-17T00:00:00Z", "expires_at": "2026-03-16T00:00:00Z"}`,
		"no time":             `{"metric": "jobs", "mode": "add", "limit": 1, "expires_at": "tomorrow"}`,
		"its id":              `{"id": "x", "metric": "jobs", "mode": "add", "limit": 1}`,
		"by somebody else":    `{"metric": "jobs", "mode": "add", "limit": 1, "created_by": "eve"}`,
		"another account":     `{"metric": "jobs", "mode": "add", "limit": 1, "account_id": "bob"}`,
	} {
		if r := f.do("POST", "/v1/admin/accounts/ann/overrides", body); r.Code != 422 {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
	for _, id := range []string{"bob", "%25", "ann%27%20OR%201=1", "ann%00", "%ff", "Ann", strings.Repeat("a", 255)} {
		for _, c := range [][2]string{{"GET", "overrides"}, {"DELETE", "overrides"}, {"DELETE", "overrides/x"}} {
			if r := f.do(c[0], "/v1/admin/accounts/"+id+"/"+c[1], ""); r.Code != 404 || !strings.Contains(r.Body.String(), "not found") {
				t.Errorf("%s of %s: %d %s", c[0], id, r.Code, r.Body)
			}
		}
		f.do("POST", "/v1/admin/accounts/"+id+"/overrides", `{"metric": "jobs", "mode": "add", "limit": 1}`).want(404)
		f.do("POST", "/v1/admin/accounts/"+id+"/usage/adjust", `{"metric": "jobs", "delta": 1}`).want(404)
		f.do("PUT", "/v1/admin/accounts/"+id+"/usage/storage_bytes", `{"value": 1}`).want(404)
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events") + f.number("SELECT COUNT(*) FROM quota_overrides"); n != 0 {
		t.Errorf("%d rows were left behind", n)
	}
}

func TestTooManyOverrides(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:ann")
	for i := range 101 {
		status := 201
		if i == 100 {
			status = 409
		}
		f.do("POST", "/v1/admin/accounts/ann/overrides", `{"scope": "api", "requests": 1, "window": 1}`).want(status)
	}
}

func TestUsageIsAdjusted(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:ann")
	f.spend("user:ann", "jobs", 10)
	const path = "/v1/admin/accounts/ann/usage/adjust"
	const period = `"period": "month", "period_start": "2026-03-01T00:00:00Z", "period_end": "2026-04-01T00:00:00Z"`
	f.do("POST", path, `{"metric": "jobs", "delta": -4, "reason": "a failed run"}`).want(200).
		wantBody(`{"metric": "jobs", "delta": -4, "adjusted": [{` + period + `, "before": 10, "after": 6}]}`)
	f.do("POST", path, `{"metric": "jobs", "delta": 3, "period": "month"}`).want(200).
		wantBody(`{"metric": "jobs", "delta": 3, "adjusted": [{` + period + `, "before": 6, "after": 9}]}`)
	for name, c := range map[string]struct {
		body, says string
	}{
		"more than was used": {`{"metric": "jobs", "delta": -10}`, "only 9 were used"},
		"nothing":            {`{"metric": "jobs", "delta": 0}`, "other than 0"},
		"no delta":           {`{"metric": "jobs"}`, "delta"},
		"half a job":         {`{"metric": "jobs", "delta": 0.5}`, "integer"},
		"a level":            {`{"metric": "storage_bytes", "delta": 1}`, "is a level"},
		"unknown":            {`{"metric": "renders", "delta": 1}`, "no plan names"},
		"its period":         {`{"metric": "jobs", "delta": 1, "period": "day"}`, "not counted"},
		"too much":           {`{"metric": "jobs", "delta": 9007199254740992}`, "2^53"},
		"an account":         {`{"metric": "jobs", "delta": 1, "account_id": "bob"}`, "unexpected property"},
	} {
		r := f.do("POST", path, c.body)
		if r.Code != 422 || !strings.Contains(r.Body.String(), c.says) {
			t.Errorf("%s: %d %s", name, r.Code, r.Body)
		}
	}
	// An answer that was lost is asked for again, and nothing is adjusted twice.
	for range 2 {
		f.do("POST", path, `{"metric": "jobs", "delta": -1}`, "Idempotency-Key: k1").want(200)
	}
	if n := f.number("SELECT SUM(spent - refunded) FROM usage_totals WHERE account_id = 'ann' AND metric = 'jobs' AND period = 'month'"); n != 8 {
		t.Errorf("%d are used", n)
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events WHERE action = 'usage.adjusted' AND account_id = 'ann' AND actor_id = 'boss'"); n != 3 {
		t.Errorf("%d events", n)
	}
}

func TestLevelIsSet(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:ann")
	const path = "/v1/admin/accounts/ann/usage/"
	f.do("PUT", path+"storage_bytes", `{"value": 500, "measured_at": "2026-03-15T11:00:00Z", "reason": "counted"}`).want(200).
		wantBody(`{"metric": "storage_bytes", "before": 0, "value": 500, "measured_at": "2026-03-15T11:00:00Z"}`)
	f.do("PUT", path+"storage_bytes", `{"value": 0}`).want(200).
		wantBody(`{"metric": "storage_bytes", "before": 500, "value": 0, "measured_at": "2026-03-15T12:00:00Z"}`)
	for metric, body := range map[string]string{
		"jobs": `{"value": 1}`, "renders": `{"value": 1}`, "storage%25": `{"value": 1}`, "storage_bytes": `{"value": -1}`,
		"storage_bytes?": `{}`, "storage_bytes?x": `{"value": 9007199254740993}`, "storage_bytes?y": `{"value": 1, "measured_at": "2026-03-16T12:00:00Z"}`,
		"storage_bytes?z": `{"value": 1, "counted": 5}`,
	} {
		if r := f.do("PUT", path+metric, body); r.Code != 422 {
			t.Errorf("%s %s: %d %s", metric, body, r.Code, r.Body)
		}
	}
	f.unwritten = errors.New("the records hang")
	f.do("PUT", path+"storage_bytes", `{"value": 1}`).want(503)
	f.unwritten = nil
	if n := f.number("SELECT COUNT(*) FROM audit_events WHERE action = 'usage.level_set'"); n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.do("GET", "/v1/admin/stats", "").want(200).wantBody(`{"total_users": 0, "active_users": 0, "pro_users": 0, "free_users": 0,
		"by_plan": {"free": 0, "pro": 0, "enterprise": 0}, "trialing": 0, "past_due": 0, "mrr_cents": 0, "currency": null, "mrr_by_currency": {}}`)
	for i := range 5 {
		f.see(quota.UserSubject(fmt.Sprint("u", i)))
	}
	f.exec(`INSERT INTO subscriptions (account_id, plan_id, plan_price_id, source, status)
		SELECT 'u' || CASE r."interval" WHEN 'month' THEN 1 ELSE 2 END, p.id, r.id, 'stripe', 'active'
		FROM subscription_plans p JOIN plan_prices r ON r.plan_id = p.id WHERE p.name = 'pro'`)
	f.exec(`INSERT INTO user_controls (user_id, state) VALUES ('u2', 'suspended'), ('u3', 'deleted')`)
	f.do("GET", "/v1/admin/stats", "").want(200).wantBody(fmt.Sprintf(`{"total_users": 5, "active_users": 3, "pro_users": 1, "free_users": 2,
		"by_plan": {"free": 2, "pro": 1, "enterprise": 0}, "trialing": 0, "past_due": 0, "mrr_cents": %[1]d, "currency": "usd",
		"mrr_by_currency": {"usd": %[1]d}}`, (12*1999+19990)/12))
}

// A tag of the overrides that an account had before does not match any more; usage
// has no tag.
func TestIfMatchOfAccounts(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	const overrides, add = "/v1/admin/accounts/42/overrides", `{"metric":"jobs","mode":"add","limit":1}`
	none := f.do("GET", overrides, "").want(200).Header().Get("Etag")
	one := f.do("POST", overrides, add, "If-Match: "+none).want(201).Header().Get("Etag")
	if got := f.do("GET", overrides, "").want(200).Header().Get("Etag"); got != one || got == none {
		t.Errorf("tags: %s of none, %s as it was added, %s as it is read", none, one, got)
	}
	before := len(f.audited())
	f.do("POST", overrides, add, "If-Match: "+none).want(412)
	f.do("DELETE", overrides, "", "If-Match: "+none).want(412)
	f.do("PUT", "/v1/admin/accounts/42/usage/storage_bytes", `{"value": 1}`, "If-Match: "+one).want(412)
	f.do("POST", "/v1/admin/accounts/42/usage/adjust", `{"metric":"jobs","delta":1}`, "If-Match: "+one).want(412)
	if got := f.audited(); len(got) != before {
		t.Errorf("refused, and done: %v", got[before:])
	}
	f.do("PUT", "/v1/admin/accounts/42/usage/storage_bytes", `{"value": 1}`, "If-Match: *").want(200)
	f.do("DELETE", overrides, "", "If-Match: "+one).want(200)
}

// What is wrong with the input is said at its place, as FastAPI says it.
func TestPlacesOfWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	for _, c := range []struct{ method, target, body, want string }{
		{"POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"suspend"}`, `{"loc":["body","reason"],"msg":"Field required","type":"missing"}`},
		{"PUT", "/v1/admin/accounts/42/usage/nothing", `{"value":1}`, `{"loc":["path","metric"],"msg":"no plan names this metric","type":"value_error"}`},
		{"PUT", "/v1/admin/accounts/42/usage/jobs", `{"value":1}`, `{"loc":["path","metric"],"msg":"is counted per period and cannot be set","type":"value_error"}`},
	} {
		f.do(c.method, c.target, c.body).want(422).wantBody(`{"detail":[` + c.want + `]}`)
	}
	f.do("GET", "/v1/admin/users/%00", "").want(404)
}
