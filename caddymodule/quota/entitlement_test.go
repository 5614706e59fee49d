package quota

import (
	"testing"
	"time"
)

func TestRateFor(t *testing.T) {
	t.Parallel()
	var (
		override = Rate{Requests: 1, Window: time.Second}
		absolute = Rate{Requests: 2, Window: time.Hour}
		given    = Rate{Requests: 7, Window: time.Minute}
		none     Rate
	)
	plan := func(pct int64, rates map[string]Rate) *Plan { return &Plan{MultiplierPct: pct, RateLimits: rates} }
	tests := []struct {
		name string
		e    Entitlement
		base Rate
		want Rate
		ok   bool
	}{
		{"override before all", Entitlement{RateOverrides: map[string]Rate{"a": override}, Plan: plan(500, map[string]Rate{"a": absolute})}, given, override, true},
		{"override of another scope", Entitlement{RateOverrides: map[string]Rate{"b": override}, Plan: plan(500, map[string]Rate{"a": absolute})}, given, absolute, true},
		{"override without a plan", Entitlement{RateOverrides: map[string]Rate{"a": override}}, none, override, true},
		{"the plan's is absolute", Entitlement{Plan: plan(500, map[string]Rate{"a": absolute})}, given, absolute, true},
		{"the plan's without a base", Entitlement{Plan: plan(500, map[string]Rate{"a": absolute})}, none, absolute, true},
		{"an override of none", Entitlement{RateOverrides: map[string]Rate{"a": {Window: time.Second}}, Plan: plan(100, nil)}, given, Rate{Window: time.Second}, true},
		{"free", Entitlement{Plan: plan(100, nil)}, given, given, true},
		{"pro", Entitlement{Plan: plan(500, nil)}, given, Rate{Requests: 35, Window: time.Minute}, true},
		{"a fraction is floored", Entitlement{Plan: plan(50, nil)}, given, Rate{Requests: 3, Window: time.Minute}, true},
		{"never below one", Entitlement{Plan: plan(1, nil)}, given, Rate{Requests: 1, Window: time.Minute}, true},
		{"the base without a plan", Entitlement{}, given, given, true},
		{"nobody's", Entitlement{Plan: plan(500, map[string]Rate{"b": absolute})}, none, FallbackRate, false},
		{"nobody's, without a plan", Entitlement{}, none, FallbackRate, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got, ok := tt.e.RateFor("a", tt.base); got != tt.want || ok != tt.ok {
				t.Errorf("%+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	after := time.Date(2026, 11, 23, 12, 0, 0, 700_000_000, time.UTC)
	tests := []struct {
		name string
		e    Entitlement
		p    Principal
		want bool
	}{
		{"nothing was revoked", Entitlement{}, Principal{}, false},
		{"issued before", Entitlement{TokensValidAfter: after}, Principal{IssuedAt: after.Add(-time.Hour)}, true},
		{"issued in the same second", Entitlement{TokensValidAfter: after}, Principal{IssuedAt: after.Add(200 * time.Millisecond)}, true},
		{"issued in the next second", Entitlement{TokensValidAfter: after}, Principal{IssuedAt: after.Add(300 * time.Millisecond)}, false},
		{"does not say when", Entitlement{TokensValidAfter: after}, Principal{}, true},
		{"a revoked session", Entitlement{RevokedSessions: map[string]struct{}{"s": {}}}, Principal{Session: "s", IssuedAt: after}, true},
		{"another session", Entitlement{RevokedSessions: map[string]struct{}{"s": {}}}, Principal{Session: "t"}, false},
		{"no session", Entitlement{RevokedSessions: map[string]struct{}{"": {}}}, Principal{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.e.Revoked(&tt.p); got != tt.want {
				t.Errorf("revoked: %v", got)
			}
		})
	}
}

func TestEntitlementPlan(t *testing.T) {
	t.Parallel()
	p := &Plan{Quotas: map[string]Quota{"jobs": {Limit: 10}}, Features: map[string]bool{"on": true, "off": false}}
	tests := []struct {
		name  string
		e     Entitlement
		limit int64
		ok    bool
	}{
		{"no plan", Entitlement{}, 0, false},
		{"the plan's", Entitlement{Plan: p}, 10, true},
		{"with a top-up", Entitlement{Plan: p, Quotas: map[string]Quota{"jobs": {Limit: 15}}}, 15, true},
		{"without any", Entitlement{Plan: p, Quotas: map[string]Quota{}}, 0, false},
	}
	for _, tt := range tests {
		if q, ok := tt.e.Quota("jobs"); q.Limit != tt.limit || ok != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, q, ok)
		}
	}
	e := Entitlement{Plan: p}
	if !e.HasFeature("on") || e.HasFeature("off") || e.HasFeature("none") || (&Entitlement{}).HasFeature("on") {
		t.Error("features")
	}
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		classes []int
		status  int
		want    bool
	}{
		{nil, 500, false}, {[]int{2}, 200, false}, {[]int{2}, 299, false}, {[]int{2}, 304, true}, {[]int{2, 3}, 304, false}, {[]int{2, 3}, 404, true},
	} {
		r := Rule{RefundUnless: tt.classes}
		if got := r.Refunds(tt.status); got != tt.want {
			t.Errorf("%v and %d: %v", tt.classes, tt.status, got)
		}
	}
}
