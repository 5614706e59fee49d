package answer

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const id = "019aaf3c-8000-7000-8000-000000000001"

func rateDenial() *quota.Denial {
	return &quota.Denial{
		Status: 429, Code: quota.CodeRateLimited, Message: "Rate limit exceeded for api", Scope: "api",
		Limit: quota.Limit{Max: 60, Window: time.Minute}, RetryAfter: 11500 * time.Millisecond, Policies: []string{"api"}, ID: id,
	}
}

func jobsDenial() *quota.Denial {
	return &quota.Denial{
		Status: 402, Code: quota.CodeQuotaExceeded, Message: "You have reached your monthly job limit", Metric: "jobs", Used: 10,
		Limit: quota.Limit{Max: 10}, Period: quota.PeriodMonth, ResetAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Plan: "free",
		RetryAfter: 648000 * time.Second, Policies: []string{"jobs/month", "jobs"}, ID: id,
	}
}

func with(d *quota.Denial, change func(*quota.Denial)) *quota.Denial {
	change(d)
	d.ID = id
	return d
}

func TestWrite(t *testing.T) {
	t.Parallel()
	const problemType = `"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Request cannot be satisfied as assigned quota has been exceeded"`
	upgrade := Options{UpgradeURL: "https://app/pricing"}
	tests := []struct {
		name    string
		denial  *quota.Denial
		options Options
		accept  []string
		body    string
		header  map[string]string // beside those of every denial
	}{
		{
			name: "rate", denial: rateDenial(), options: upgrade,
			body:   `{"detail":{"error":"rate_limit_exceeded","message":"Rate limit exceeded for api","scope":"api","limit":60,"window":60,"retry_after":12,"decision_id":"` + id + `"}}`,
			header: map[string]string{"Retry-After": "12"},
		},
		{
			name: "rate that waiting does not help", denial: with(rateDenial(), func(d *quota.Denial) { d.RetryAfter = 0 }),
			body: `{"detail":{"error":"rate_limit_exceeded","message":"Rate limit exceeded for api","scope":"api","limit":60,"window":60,"retry_after":null,"decision_id":"` + id + `"}}`,
		},
		{
			name: "monthly quota", denial: jobsDenial(), options: upgrade,
			body:   `{"detail":{"error":"quota_exceeded","message":"You have reached your monthly job limit","metric":"jobs","current":10,"limit":10,"period":"month","reset_at":"2026-12-01T00:00:00Z","plan":"free","upgrade_url":"https://app/pricing","decision_id":"` + id + `"}}`,
			header: map[string]string{"Retry-After": "648000"},
		},
		{
			name: "daily quota with 429",
			denial: with(jobsDenial(), func(d *quota.Denial) {
				d.Status, d.Metric, d.Period, d.Message, d.RetryAfter = 429, "api_calls", quota.PeriodDay, "You have reached your daily API call limit", time.Millisecond
			}),
			body:   `{"detail":{"error":"quota_exceeded","message":"You have reached your daily API call limit","metric":"api_calls","current":10,"limit":10,"period":"day","reset_at":"2026-12-01T00:00:00Z","retry_after":1,"plan":"free","decision_id":"` + id + `"}}`,
			header: map[string]string{"Retry-After": "1"},
		},
		{
			name: "level",
			denial: with(jobsDenial(), func(d *quota.Denial) {
				d.Metric, d.Period, d.ResetAt, d.RetryAfter, d.Message = "storage_bytes", quota.PeriodNone, time.Time{}, 0, "You have reached your storage limit"
			}),
			body: `{"detail":{"error":"quota_exceeded","message":"You have reached your storage limit","metric":"storage_bytes","current":10,"limit":10,"period":"none","reset_at":null,"plan":"free","decision_id":"` + id + `"}}`,
		},
		{
			name: "403 quota has no Retry-After", denial: with(jobsDenial(), func(d *quota.Denial) { d.Status, d.Plan = 403, "" }),
			body: `{"detail":{"error":"quota_exceeded","message":"You have reached your monthly job limit","metric":"jobs","current":10,"limit":10,"period":"month","reset_at":"2026-12-01T00:00:00Z","decision_id":"` + id + `"}}`,
		},
		{
			name: "invalid token", denial: with(quota.Refuse(quota.CodeInvalidToken), func(*quota.Denial) {}),
			body:   `{"detail":"Could not validate credentials"}`,
			header: map[string]string{"Www-Authenticate": `Bearer error="invalid_token"`},
		},
		{
			name: "no credential", denial: with(quota.Refuse(quota.CodeUnauthenticated), func(*quota.Denial) {}),
			body:   `{"detail":"Could not validate credentials"}`,
			header: map[string]string{"Www-Authenticate": "Bearer"},
		},
		{
			name: "feature", denial: with(quota.Refuse(quota.CodeFeature), func(d *quota.Denial) { d.Feature, d.Plan = "exports", "free" }), options: upgrade,
			body: `{"detail":{"error":"feature_not_available","message":"Your plan does not include this feature","feature":"exports","plan":"free","upgrade_url":"https://app/pricing","decision_id":"` + id + `"}}`,
		},
		{
			name: "suspended", denial: with(quota.Refuse(quota.CodeSuspended), func(*quota.Denial) {}), options: upgrade,
			body: `{"detail":{"error":"account_suspended","message":"This account is suspended","decision_id":"` + id + `"}}`,
		},
		{
			name: "limiter unavailable", denial: with(quota.Refuse(quota.CodeLimiterUnavailable), func(*quota.Denial) {}),
			body:   `{"detail":{"error":"limiter_unavailable","message":"Limits cannot be checked at the moment","decision_id":"` + id + `"}}`,
			header: map[string]string{"Retry-After": "1"},
		},
		{
			name: "bad request", denial: with(quota.Refuse(quota.CodeBadRequest), func(*quota.Denial) {}),
			body: `{"detail":{"error":"bad_request","message":"The request is malformed","decision_id":"` + id + `"}}`,
		},
		{
			name: "problem", denial: rateDenial(), accept: []string{"application/problem+json"},
			body:   `{` + problemType + `,"status":429,"detail":"Rate limit exceeded for api","code":"rate_limit_exceeded","violated-policies":["api"],"scope":"api","limit":60,"window":60,"retry_after":12,"decision_id":"` + id + `"}`,
			header: map[string]string{"Retry-After": "12", "Content-Type": "application/problem+json"},
		},
		{
			name: "problem always", denial: jobsDenial(), options: Options{Style: StyleProblem}, accept: []string{"application/json"},
			body:   `{` + problemType + `,"status":402,"detail":"You have reached your monthly job limit","code":"quota_exceeded","violated-policies":["jobs/month","jobs"],"metric":"jobs","current":10,"limit":10,"period":"month","reset_at":"2026-12-01T00:00:00Z","plan":"free","decision_id":"` + id + `"}`,
			header: map[string]string{"Retry-After": "648000", "Content-Type": "application/problem+json"},
		},
		{
			name: "a sentence", denial: with(quota.Refuse(quota.CodeAdmin), func(*quota.Denial) {}),
			body: `{"detail":"Admin access required"}`,
		},
		{
			name: "problem of another kind", denial: with(quota.Refuse(quota.CodeNotOrgMember), func(*quota.Denial) {}), options: Options{Style: StyleProblem},
			body:   `{"type":"about:blank","title":"Forbidden","status":403,"detail":"You are not a member of this organization","code":"not_org_member","decision_id":"` + id + `"}`,
			header: map[string]string{"Content-Type": "application/problem+json"},
		},
		{
			name: "problem of a 401", denial: with(quota.Refuse(quota.CodeInvalidToken), func(*quota.Denial) {}), options: Options{Style: StyleProblem},
			body:   `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"Could not validate credentials","code":"invalid_token","decision_id":"` + id + `"}`,
			header: map[string]string{"Content-Type": "application/problem+json", "Www-Authenticate": `Bearer error="invalid_token"`},
		},
	}
	for _, tt := range tests {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			t.Run(tt.name+" "+method, func(t *testing.T) {
				t.Parallel()
				r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
				if tt.accept != nil {
					r.Header["Accept"] = tt.accept
				}
				w := httptest.NewRecorder()
				if err := Write(w, r, tt.denial, tt.options); err != nil {
					t.Fatal(err)
				}
				want := http.Header{
					"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(tt.body))},
					"Cache-Control": {"no-store"}, "Vary": {"Accept"}, "X-Quota-Decision-Id": {id},
				}
				for k, v := range tt.header {
					want[k] = []string{v}
				}
				if diff := cmp.Diff(want, w.Header()); diff != "" {
					t.Error(diff)
				}
				body := tt.body
				if method == "HEAD" {
					body = ""
				}
				if diff := cmp.Diff(body, w.Body.String()); diff != "" {
					t.Error(diff)
				}
				if w.Code != tt.denial.Status {
					t.Errorf("status %d, want %d", w.Code, tt.denial.Status)
				}
			})
		}
	}
}

type brokenWriter struct{ http.ResponseWriter }

var errGone = errors.New("gone")

func (brokenWriter) Write([]byte) (int, error) { return 0, errGone }

func TestWriteReportsALostClient(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err := Write(brokenWriter{httptest.NewRecorder()}, r, rateDenial(), Options{}); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
}

func TestAddVary(t *testing.T) {
	t.Parallel()
	tests := []struct{ have, want []string }{
		{nil, []string{"Accept"}},
		{[]string{"Origin"}, []string{"Origin", "Accept"}},
		{[]string{"Accept-Encoding, accept"}, []string{"Accept-Encoding, accept"}},
		{[]string{"*"}, []string{"*"}},
	}
	for _, tt := range tests {
		h := http.Header{}
		if tt.have != nil {
			h["Vary"] = tt.have
		}
		addVary(h, "Accept")
		if diff := cmp.Diff(tt.want, h["Vary"]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPrefersProblem(t *testing.T) {
	t.Parallel()
	tests := []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false},
		{[]string{"application/json"}, false},
		{[]string{"application/*"}, false},
		{[]string{"text/html"}, false},
		{[]string{"application/problem+json"}, true},
		{[]string{"Application/Problem+JSON"}, true},
		{[]string{"application/problem+json, application/json"}, true},
		{[]string{"application/json, application/problem+json"}, true},
		{[]string{"application/json", "application/problem+json"}, true},
		{[]string{"application/problem+json;q=0.5, application/json"}, false},
		{[]string{"application/problem+json;q=0.5, application/json;q=0.4"}, true},
		{[]string{"application/problem+json;q=0"}, false},
		{[]string{"application/problem+json;q=0, */*"}, false},
		{[]string{"application/problem+json; q=0.9, */*;q=0.1"}, true},
		{[]string{"application/problem+json;q=0.5, */*"}, false},
		{[]string{"application/json;q=0, */*"}, true},
		{[]string{"application/json;q=0.2, application/*;q=0.9"}, true},
		{[]string{"application/problem+json;charset=utf-8;q=0.8, application/json;q=0.7"}, true},
		{[]string{`application/problem+json;x="a,b;q=0";q=1`}, true},
		{[]string{"application/problem+json;q=nan"}, false},
		{[]string{"application/problem+json;q=2"}, false},
		{[]string{"application/problem+json;q=1.001"}, false},
		{[]string{"application/problem+json;q=0.0001"}, false},
		{[]string{"application/problem+json;Q=0.001"}, true},
		{[]string{"text/html, , application/problem+json"}, true},
		{[]string{"app/*"}, false},
		{[]string{"/*"}, false},
	}
	for _, tt := range tests {
		if got := prefersProblem(tt.accept); got != tt.want {
			t.Errorf("prefersProblem(%q) = %v", tt.accept, got)
		}
	}
}

func FuzzPrefersProblem(f *testing.F) {
	for _, s := range []string{"", "*/*", `a/b;q="`, `a/b;q="\`, "application/problem+json;q=0.5, */*;q=0.3", ";;,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		prefersProblem([]string{s})
		if !prefersProblem([]string{"application/problem+json", "application/json;q=0"}) {
			t.Error("the plainest request is not understood")
		}
	})
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\r\t\b\f\x00\x1f\x7f", "é \u2028\u2029 \U0001f600", "\xff\xc3", "</script>", "\xe2\x80\xa8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		reference, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want, got string
		if err := json.Unmarshal(reference, &want); err != nil {
			t.Fatal(err)
		}
		mine := appendString(nil, s)
		if err := json.Unmarshal(mine, &got); err != nil {
			t.Fatalf("%q: %v", mine, err)
		}
		if got != want {
			t.Errorf("%q is read back as %q, want %q", mine, got, want)
		}
	})
}

func FuzzAppendBody(f *testing.F) {
	f.Add("rate_limit_exceeded", "Rate limit exceeded for api", "api", int64(60), int64(time.Minute), 429)
	f.Add("quota_exceeded", "\"\x00\xff", "jobs\u2028", int64(-1), int64(-1), 402)
	f.Add("invalid_token", "", "", int64(0), int64(0), 401)
	f.Add("feature_not_available", "x", "y", int64(1), int64(1), 403)
	f.Fuzz(func(t *testing.T, code, message, name string, limit, wait int64, status int) {
		d := &quota.Denial{
			Status: status, Code: code, Message: message, Scope: name, Metric: name, Feature: name, Plan: name, ID: name, Rule: name,
			Limit: quota.Limit{Max: limit, Window: time.Duration(wait)}, RetryAfter: time.Duration(wait), Policies: []string{name, message},
		}
		o := Options{UpgradeURL: message}
		for _, body := range [][]byte{AppendBody(nil, d, o), AppendProblem(nil, d, o)} {
			if !json.Valid(body) {
				t.Errorf("not JSON: %s", body)
			}
		}
	})
}

// discard is a ResponseWriter without the cost of a recorder.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

func BenchmarkWrite(b *testing.B) {
	d, w := rateDenial(), &discard{h: http.Header{}}
	r := httptest.NewRequestWithContext(b.Context(), "GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		if err := Write(w, r, d, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
