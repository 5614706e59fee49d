package accounts

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// used writes a row of the charts: what an account has used in the hour of at.
func (f *fixture) used(account quota.Subject, metric, decision string, at time.Time, requests, cost int64) {
	f.Helper()
	f.seq++
	err := f.store.Flush(f.Context(), quota.Flush{
		EpochTotals: quota.EpochTotals{Epoch: "charts"}, Seq: f.seq,
		Rollups: []quota.Rollup{{
			Hour: at.Truncate(time.Hour).Unix(), Account: account, Scope: metric, Decision: decision, StatusClass: 2, Requests: requests, Cost: cost,
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	f := start(t)
	now := f.clock() // noon of 15 March
	f.used(ann, "jobs", "admitted", now.Add(-time.Minute), 3, 4)
	f.used(ann, "jobs", "quota_exceeded", now.Add(-time.Minute), 2, 0)
	f.used(ann, "jobs", "admitted", now.AddDate(0, 0, -2), 1, 7)
	f.used(ann, "api_calls", "admitted", now, 9, 9)
	f.used("user:bob", "jobs", "admitted", now, 99, 99)
	want(t, "by the hour", `{"series": [
		{"t": "2026-03-15T10:00:00Z", "used": 0, "blocked": 0}, {"t": "2026-03-15T11:00:00Z", "used": 4, "blocked": 2}]}`,
		f.get("/v1/usage/history?metric=jobs&granularity=hour&from=2026-03-15T10:00:00Z&to=2026-03-15T12:00:00Z"))
	const days = `{"series": [{"t": "2026-03-13T00:00:00Z", "used": 7, "blocked": 0},
		{"t": "2026-03-14T00:00:00Z", "used": 0, "blocked": 0}, {"t": "2026-03-15T00:00:00Z", "used": 4, "blocked": 2}]}`
	for _, query := range []string{
		"from=2026-03-13", "from=2026-03-13T12:00:00Z&to=2026-03-16", "from=2026-03-13T02:00:00%2B02:00&format=json", "from=2026-03-13&granularity=day",
	} {
		want(t, query, days, f.get("/v1/usage/history?metric=jobs&"+query))
	}
	if n := len(f.get("/v1/usage/history")["series"].([]any)); n != 31 {
		t.Errorf("%d days by default, want 31: a month, and today", n)
	}
	hours := f.get("/v1/usage/history?granularity=hour")["series"].([]any)
	if n := len(hours); n != 24 {
		t.Errorf("%d hours by default, want 24", n)
	}
	// The account is the caller's, whatever is asked for.
	if w := f.do(http.MethodGet, "/v1/usage/history?metric=jobs&from=2026-03-13&account_id=bob&user_id=bob"); strings.Contains(w.Body.String(), "99") {
		t.Errorf("somebody else's: %s", w.Body)
	}
}

func TestHistoryAsATable(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.used(ann, "jobs", "admitted", f.clock(), 3, 4)
	w := f.do(http.MethodGet, "/v1/usage/history?metric=jobs&from=2026-03-14&format=csv")
	const body = "t,used,blocked\r\n2026-03-14T00:00:00Z,0,0\r\n2026-03-15T00:00:00Z,4,0\r\n"
	if diff := cmp.Diff(body, w.Body.String()); w.Code != http.StatusOK || diff != "" {
		t.Errorf("%d\n%s", w.Code, diff)
	}
	for name, value := range map[string]string{
		"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": `attachment; filename="usage-history.csv"`,
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}

func TestHistoryRefuses(t *testing.T) {
	t.Parallel()
	f := start(t)
	for query, field := range map[string]string{
		"metric=renders":                           "metric",
		"metric=":                                  "",
		"metric=jobs%25":                           "metric",
		"metric=%27--":                             "metric",
		"granularity=minute":                       "granularity",
		"format=xml":                               "format",
		"from=yesterday":                           "from",
		"from=2026-03-01+02":                       "from",
		"to=2026-02-30":                            "to",
		"from=2026-03-15&to=2026-03-15":            "to",
		"from=2020-01-01":                          "from",
		"from=2026-01-01&granularity=hour":         "from",
		"from=0001-01-01&to=9999-12-31":            "from",
		"from=" + strings.Repeat("9", 41):          "from",
		"metric=" + strings.Repeat("a", 65):        "metric",
		"from=-292277022399-01-01T00%3A00%3A00Z":   "from",
		"from=2026-03-01&to=99999-01-01T00:00:00Z": "to",
	} {
		w := f.do(http.MethodGet, "/v1/usage/history?"+query)
		if field == "" { // as if it had not been there
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d %s", query, w.Code, w.Body)
			}
			continue
		}
		if w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
			continue
		}
		detail := decode(t, w.Body.Bytes())["detail"].([]any)[0].(map[string]any)
		if diff := cmp.Diff([]any{"query", field}, detail["loc"]); diff != "" || detail["msg"] == "" || detail["type"] == "" {
			t.Errorf("%s: %v\n%s", query, detail, diff)
		}
	}
	if w := f.do(http.MethodGet, "/v1/usage/history?metric="+url.QueryEscape("a' OR '1'='1")); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHistoryWhileTheRecordsAreDown(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.recordsDown = true
	w := f.do(http.MethodGet, "/v1/usage/history?format=csv")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Content-Type") != "application/json" || f.log.Len() != 1 {
		t.Errorf("%d %v: %s; log %v", w.Code, w.Header(), w.Body, f.log.All())
	}
}
