package admin

import (
	"encoding/csv"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// chart writes what an account has used in the hour of at.
func (f *fixture) chart(account quota.Subject, scope, decision string, at time.Time, requests, cost int64) {
	f.Helper()
	f.flush(quota.Flush{Rollups: []quota.Rollup{{
		Hour: at.Truncate(time.Hour).Unix(), Account: account, Scope: scope, Decision: decision, StatusClass: 2, Requests: requests, Cost: cost,
	}}})
}

// table is an answer as CSV, without its line of names.
func (r *reply) table(columns string) [][]string {
	r.t.Helper()
	if r.Header().Get("Content-Type") != "text/csv; charset=utf-8" || !strings.HasPrefix(r.Header().Get("Content-Disposition"), "attachment; ") {
		r.t.Errorf("headers %v", r.Header())
	}
	rows, err := csv.NewReader(r.Body).ReadAll()
	if err != nil || len(rows) == 0 || strings.Join(rows[0], ",") != columns {
		r.t.Fatalf("%v: %v", err, rows)
	}
	return rows[1:]
}

func TestAnalyticsSeries(t *testing.T) {
	t.Parallel()
	f := start(t)
	now := f.clock()
	f.chart("user:ann", "jobs", "admitted", now, 2, 4)
	f.chart("user:bob", "jobs", "quota_exceeded", now, 3, 0)
	const path = "/v1/admin/analytics/series?metric=jobs&from=2026-03-14"
	const before = `{"t": "2026-03-14T00:00:00Z", "requests": 0, "used": 0, "blocked": 0}`
	f.do("GET", path, "").want(200).wantBody(`{"series": [` + before + `, {"t": "2026-03-15T00:00:00Z", "requests": 5, "used": 4, "blocked": 3}]}`)
	f.do("GET", path+"&account_id=ann", "").want(200).wantBody(`{"series": [` + before + `, {"t": "2026-03-15T00:00:00Z", "requests": 2, "used": 4, "blocked": 0}]}`)
	f.do("GET", path+"&account_id=%25", "").want(200).wantBody(`{"series": [` + before + `, {"t": "2026-03-15T00:00:00Z", "requests": 0, "used": 0, "blocked": 0}]}`)
	rows := f.do("GET", path+"&format=csv", "").want(200).table("t,requests,used,blocked")
	if diff := cmp.Diff([][]string{{"2026-03-14T00:00:00Z", "0", "0", "0"}, {"2026-03-15T00:00:00Z", "5", "4", "3"}}, rows); diff != "" {
		t.Error(diff)
	}
	if n := len(f.do("GET", "/v1/admin/analytics/series?granularity=hour", "").want(200).json()["series"].([]any)); n != 24 {
		t.Errorf("%d hours", n)
	}
}

func TestAnalyticsTop(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.see("user:=cmd|x", "org:acme")
	f.chart("user:=cmd|x", "jobs", "admitted", f.clock(), 2, 4)
	f.chart("org:acme", "jobs", "admitted", f.clock(), 9, 3)
	f.do("GET", "/v1/admin/analytics/top?metric=jobs", "").want(200).wantBody(`{"accounts": [
		{"account_id": "=cmd|x", "kind": "user", "email": "=cmd|x@example.com", "requests": 2, "used": 4, "blocked": 0},
		{"account_id": "acme", "kind": "org", "email": "acme@example.com", "requests": 9, "used": 3, "blocked": 0}]}`)
	f.do("GET", "/v1/admin/analytics/top?metric=jobs&by=blocked", "").want(200).wantBody(`{"accounts": []}`)
	rows := f.do("GET", "/v1/admin/analytics/top?metric=jobs&limit=1&format=csv", "").want(200).table("account_id,kind,email,requests,used,blocked")
	if diff := cmp.Diff([][]string{{"'=cmd|x", "user", "'=cmd|x@example.com", "2", "4", "0"}}, rows); diff != "" {
		t.Errorf("a formula:\n%s", diff)
	}
}

func TestAnalyticsExport(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, account := range []quota.Subject{"user:ann", "user:bob", "user:carol"} {
		f.chart(account, "jobs", "admitted", f.clock(), 1, 2)
		f.chart(account, "api", "quota_exceeded", f.clock(), 3, 0)
	}
	const columns = "t,account_id,metric,decision,status_class,requests,cost"
	whole := f.do("GET", "/v1/admin/analytics/export?from=2026-03-15", "").want(200).table(columns)
	if len(whole) != 6 || strings.Join(whole[0], " ") != "2026-03-15T00:00:00Z ann api quota_exceeded 2 3 0" {
		t.Errorf("%v", whole)
	}
	var paged [][]string
	for cursor, pages := "", 0; ; pages++ {
		r := f.do("GET", "/v1/admin/analytics/export?from=2026-03-15&limit=4&cursor="+url.QueryEscape(cursor), "").want(200)
		cursor = r.Header().Get("X-Next-Cursor")
		paged = append(paged, r.table(columns)...)
		if cursor == "" || pages > 3 {
			break
		}
	}
	if diff := cmp.Diff(whole, paged); diff != "" {
		t.Errorf("by pages:\n%s", diff)
	}
	f.do("GET", "/v1/admin/analytics/export?from=2026-03-15&to=2026-03-16&metric=jobs&account_id=bob&granularity=hour&format=json", "").want(200).wantBody(`{"rows": [
		{"t": "2026-03-15T12:00:00Z", "account_id": "bob", "metric": "jobs", "decision": "admitted", "status_class": 2, "requests": 1, "cost": 2}], "next_cursor": null}`)
	for _, query := range []string{"metric=jobs%25", "account_id=b%25", "account_id=%27+OR+1%3D1--"} {
		r := f.do("GET", "/v1/admin/analytics/export?from=2026-03-15&format=json&"+query, "")
		if r.Code == 200 && len(r.json()["rows"].([]any)) != 0 {
			t.Errorf("%s is a pattern: %s", query, r.Body)
		}
	}
}

func TestChartsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	for target, field := range map[string]string{
		"series?metric=a%25":                           "metric",
		"series?metric=" + strings.Repeat("a", 65):     "metric",
		"series?granularity=week":                      "granularity",
		"series?from=2020-01-01&granularity=hour":      "from",
		"series?from=x":                                "from",
		"series?to=2026-01-01&from=2026-01-01":         "to",
		"series?account_id=%00":                        "account_id",
		"series?account_id=%ff":                        "account_id",
		"series?format=xlsx":                           "format",
		"top?by=cost":                                  "by",
		"top?limit=0":                                  "limit",
		"top?limit=201":                                "limit",
		"top?limit=-1":                                 "limit",
		"top?limit=x":                                  "limit",
		"top?metric=A":                                 "metric",
		"export?limit=10001":                           "limit",
		"export?cursor=x":                              "cursor",
		"export?cursor=bnVsbA":                         "cursor",
		"export?cursor=e30":                            "cursor",
		"export?cursor=eyJBY2NvdW50SUQiOiJcdTAwMDAifQ": "cursor",
		"export?metric=A":                              "metric",
		"export?from=1000-01-01":                       "from",
	} {
		r := f.do("GET", "/v1/admin/analytics/"+target, "")
		if r.Code != 422 || !strings.Contains(r.Body.String(), `"loc":["query","`+field+`"]`) {
			t.Errorf("%s: %d %s", target, r.Code, r.Body)
		}
	}
}
