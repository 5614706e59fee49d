package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		key           Key
		message, name string
	}{
		{Key{Name: "api"}, "Rate limit exceeded for api", "api"},
		{Key{Name: "jobs"}, "Rate limit exceeded for jobs", "jobs"},
		{Key{Name: "jobs", Space: SpaceUsage, Period: PeriodMonth}, "You have reached your monthly job limit", "jobs/month"},
		{Key{Name: "api_calls", Space: SpaceUsage, Period: PeriodDay}, "You have reached your daily API call limit", "api_calls/day"},
		{Key{Name: "compute_seconds", Space: SpaceUsage, Period: PeriodMonth}, "You have reached your monthly compute limit", "compute_seconds/month"},
		{Key{Name: "storage_bytes", Space: SpaceUsage, Period: PeriodNone}, "You have reached your storage limit", "storage_bytes/none"},
		{Key{Name: "pdf_exports", Space: SpaceUsage, Period: PeriodBilling}, "You have reached your pdf exports limit for this billing period", "pdf_exports/billing"},
	}
	for _, tt := range tests {
		c := Charge{Key: tt.key}
		if got := c.Message(); got != tt.message {
			t.Errorf("message %q, want %q", got, tt.message)
		}
		if got := string(c.AppendPolicy(nil)); got != tt.name {
			t.Errorf("policy %q, want %q", got, tt.name)
		}
	}
}

func TestNewDenial(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	api := rated(UserSubject("1"), "api", 60, time.Minute, 1)
	jobs := Charge{
		Key: Key{Name: "jobs", Space: SpaceUsage, Period: PeriodMonth}, Limit: Limit{Max: 10}, Cost: 1, End: end.Unix(), Status: 402,
	}
	level := Charge{Key: Key{Name: "storage_bytes", Space: SpaceUsage, Period: PeriodNone}, Limit: Limit{Max: 10}, Cost: 1, Status: 413}
	trial := rated(UserSubject("1"), "trial", 1, time.Minute, 0)
	trial.Force = true
	rules := []Applied{{Rule: &Rule{Name: "jobs"}}, {Rule: &Rule{Name: "api"}}}
	e := &Entitlement{Plan: &Plan{Name: "free"}}
	tests := []struct {
		name     string
		charges  []Charge
		outcomes []Outcome
		e        *Entitlement
		want     Denial
	}{
		{
			"rate", []Charge{trial, api}, []Outcome{{Used: 1, Exceeded: true, Wait: time.Hour}, {Used: 60, Exceeded: true, Wait: 12 * time.Second}}, e,
			Denial{Status: 429, Code: "rate_limit_exceeded", Message: "Rate limit exceeded for api", Rule: "api", RetryAfter: 12 * time.Second, Scope: "api", Limit: Limit{Max: 60, Window: time.Minute}, Used: 60, Plan: "free", Policies: []string{"api"}},
		},
		{
			"rate of an anonymous caller, no wait left", []Charge{api}, []Outcome{{Used: 60, Exceeded: true}}, nil,
			Denial{Status: 429, Code: "rate_limit_exceeded", Message: "Rate limit exceeded for api", Rule: "api", RetryAfter: time.Millisecond, Scope: "api", Limit: Limit{Max: 60, Window: time.Minute}, Used: 60, Policies: []string{"api"}},
		},
		{
			"rate that never fits", []Charge{api}, []Outcome{{Exceeded: true, Wait: -1}}, nil,
			Denial{Status: 429, Code: "rate_limit_exceeded", Message: "Rate limit exceeded for api", Rule: "api", Scope: "api", Limit: Limit{Max: 60, Window: time.Minute}, Policies: []string{"api"}},
		},
		{
			"quota and rate", []Charge{api, api, jobs}, []Outcome{{Used: 60, Exceeded: true, Wait: time.Second}, {Used: 60, Exceeded: true, Wait: time.Second}, {Used: 10, Exceeded: true}}, e,
			Denial{Status: 402, Code: "quota_exceeded", Message: "You have reached your monthly job limit", Rule: "jobs", RetryAfter: end.Sub(monday), Metric: "jobs", Period: PeriodMonth, Limit: Limit{Max: 10}, Used: 10, ResetAt: end, Plan: "free", Policies: []string{"api", "jobs/month"}},
		},
		{
			"level", []Charge{level}, []Outcome{{Used: 10, Exceeded: true}}, &Entitlement{},
			Denial{Status: 413, Code: "quota_exceeded", Message: "You have reached your storage limit", Rule: "jobs", Metric: "storage_bytes", Period: PeriodNone, Limit: Limit{Max: 10}, Used: 10, Policies: []string{"storage_bytes/none"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := Decision{Outcomes: tt.outcomes}
			d.Judge(tt.charges, monday)
			if diff := cmp.Diff(&tt.want, NewDenial(tt.charges, &d, tt.e, rules, monday)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	for code, status := range map[string]int{
		CodeUnauthenticated: 401, CodeInvalidToken: 401, CodeSuspended: 403, CodeDeleted: 403, CodeNotOrgMember: 403,
		CodeFeature: 403, CodeScope: 403, CodeAdmin: 403, CodeLimiterUnavailable: 503, CodeBadRequest: 400, "other": 403,
	} {
		d := Refuse(code)
		if d.Status != status || d.Code != code || d.Message == "" || d.Error() != code+": "+d.Message {
			t.Errorf("%s: %+v", code, d)
		}
	}
}
