package quota

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	monday  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	address = Subject("ip:192.0.2.1/32")
	keyed   = Subject("header:X-Device=1")
)

// entitled is user 1 in organization 7, which pays.
func entitled() Caller {
	return Caller{
		Principal: &Principal{Subject: UserSubject("1")},
		IP:        address,
		Entitlement: &Entitlement{
			Account: OrgSubject("7"),
			Plan: &Plan{
				Name: "pro", MultiplierPct: 250,
				RateLimits: map[string]Rate{"jobs": {Requests: 50, Window: time.Hour}},
				Quotas: map[string]Quota{
					"jobs":          {Limit: 500, Period: PeriodMonth, Status: 402},
					"api_calls":     {Limit: 50_000, Period: PeriodDay, Status: 429},
					"storage_bytes": {Limit: 1 << 30, Period: PeriodNone, Status: 402},
					"compute":       {Unlimited: true, Period: PeriodBilling, Status: 402},
				},
			},
			Anchor:        time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
			RateOverrides: map[string]Rate{"export": {Requests: 2, Window: time.Second}},
			Counted: map[string]Periods{
				"jobs":          Periods(0).With(PeriodMonth).With(PeriodBilling),
				"storage_bytes": Periods(0).With(PeriodNone),
			},
		},
	}
}

func anonymous() Caller { return Caller{Principal: &Principal{}, IP: address} }

func limits(name string, by By, scopes ...ScopeLimit) Applied {
	return Applied{Rule: &Rule{Name: name, By: by, Limits: scopes}}
}

func spends(name string, amounts map[string]int64, metrics ...string) Applied {
	r := Applied{Rule: &Rule{Name: name}}
	for _, m := range metrics {
		r.Spends = append(r.Spends, Metered{Metric: m})
		r.SpendAmounts = append(r.SpendAmounts, amounts[m])
	}
	return r
}

func shadow(r Applied) Applied { r.Shadow = true; return r }

func base(scope string, n int64, window time.Duration) ScopeLimit {
	return ScopeLimit{Scope: scope, Base: Rate{Requests: n, Window: window}}
}

// rated and spent are the charges expected.
func rated(s Subject, scope string, n int64, window time.Duration, rule int) Charge {
	return Charge{
		Key: Key{Digest: s.Digest(), Name: scope}, Limit: Limit{Max: n, Window: window},
		Cost: 1, Status: 429, Rule: rule,
	}
}

func spent(metric string, p Period, l Limit, cost int64, status, rule int) Charge {
	start, end := p.Span(monday, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
	return Charge{
		Key:   Key{Digest: OrgSubject("7").Digest(), Name: metric, Space: SpaceUsage, Period: p, Start: unix(start)},
		Limit: l, Cost: cost, Account: OrgSubject("7"), End: unix(end), Status: status, Rule: rule,
	}
}

func TestAppendCharges(t *testing.T) {
	t.Parallel()
	one := map[string]int64{"jobs": 1, "api_calls": 1, "storage_bytes": 4096, "compute": 0, "other": 3}
	unlimited := Limit{Unlimited: true}
	keyedRule := func(by By, key Subject) Applied {
		r := limits("r", by, base("a", 10, time.Minute))
		r.Key = key
		return r
	}
	once := UserSubject("key").Digest()
	idempotent := spends("r", one, "api_calls")
	idempotent.Once = once
	seconds := spends("r", map[string]int64{"compute": AmountLate}, "compute")

	withOnce := func(cs ...Charge) []Charge {
		for i := range cs {
			cs[i].Once = once
		}
		return cs
	}
	forced := func(cs ...Charge) []Charge {
		for i := range cs {
			cs[i].Force = true
		}
		return cs
	}
	tests := []struct {
		name   string
		caller Caller
		rules  []Applied
		want   []Charge
		warned []Warning
	}{
		{name: "no rules", caller: entitled()},
		{name: "default counts the account", caller: entitled(), rules: []Applied{limits("r", ByDefault, base("a", 10, time.Minute))}, want: []Charge{rated(OrgSubject("7"), "a", 25, time.Minute, 0)}},
		{name: "account", caller: entitled(), rules: []Applied{limits("r", ByAccount, base("a", 10, time.Minute))}, want: []Charge{rated(OrgSubject("7"), "a", 25, time.Minute, 0)}},
		{name: "user", caller: entitled(), rules: []Applied{limits("r", ByUser, base("a", 10, time.Minute))}, want: []Charge{rated(UserSubject("1"), "a", 25, time.Minute, 0)}},
		{name: "ip is never scaled", caller: entitled(), rules: []Applied{limits("r", ByIP, base("jobs", 10, time.Minute))}, want: []Charge{rated(address, "jobs", 10, time.Minute, 0)}},
		{name: "header", caller: entitled(), rules: []Applied{keyedRule(ByHeader, keyed)}, want: []Charge{rated(keyed, "a", 25, time.Minute, 0)}},
		{name: "header absent", caller: entitled(), rules: []Applied{keyedRule(ByHeader, "")}, want: []Charge{rated(address, "a", 25, time.Minute, 0)}},
		{name: "value", caller: entitled(), rules: []Applied{keyedRule(ByValue, "value:x")}, want: []Charge{rated("value:x", "a", 25, time.Minute, 0)}},
		{name: "value empty", caller: entitled(), rules: []Applied{keyedRule(ByValue, "")}, want: []Charge{rated(address, "a", 25, time.Minute, 0)}},
		{name: "anonymous by default", caller: anonymous(), rules: []Applied{limits("r", ByDefault, base("jobs", 10, time.Minute))}, want: []Charge{rated(address, "jobs", 10, time.Minute, 0)}},
		{name: "anonymous by user", caller: anonymous(), rules: []Applied{limits("r", ByUser, base("a", 10, time.Minute))}, want: []Charge{rated(address, "a", 10, time.Minute, 0)}},
		{name: "anonymous by account", caller: anonymous(), rules: []Applied{limits("r", ByAccount, base("a", 10, time.Minute))}, want: []Charge{rated(address, "a", 10, time.Minute, 0)}},
		{name: "anonymous by ip", caller: anonymous(), rules: []Applied{limits("r", ByIP, base("a", 10, time.Minute))}, want: []Charge{rated(address, "a", 10, time.Minute, 0)}},
		{name: "anonymous by header", caller: anonymous(), rules: []Applied{keyedRule(ByHeader, keyed)}, want: []Charge{rated(keyed, "a", 10, time.Minute, 0)}},
		{name: "anonymous by value, empty", caller: anonymous(), rules: []Applied{keyedRule(ByValue, "")}, want: []Charge{rated(address, "a", 10, time.Minute, 0)}},
		{name: "the plan's limit", caller: entitled(), rules: []Applied{limits("r", ByDefault, ScopeLimit{Scope: "jobs"})}, want: []Charge{rated(OrgSubject("7"), "jobs", 50, time.Hour, 0)}},
		{name: "nobody's limit", caller: entitled(), rules: []Applied{limits("r", ByDefault, ScopeLimit{Scope: "z"})}, want: []Charge{rated(OrgSubject("7"), "z", 60, time.Minute, 0)}, warned: []Warning{{"r", "z"}}},
		{name: "a later rule's base", caller: anonymous(), rules: []Applied{limits("r", ByDefault, ScopeLimit{Scope: "a"}), limits("s", ByDefault, base("a", 2, time.Hour))}, want: []Charge{rated(address, "a", 2, time.Hour, 0)}},
		{name: "a later rule's base, scaled", caller: entitled(), rules: []Applied{limits("r", ByDefault, ScopeLimit{Scope: "a"}), limits("s", ByIP, base("a", 10, time.Minute))}, want: []Charge{rated(OrgSubject("7"), "a", 25, time.Minute, 0), rated(address, "a", 10, time.Minute, 1)}},
		{name: "an amount that nobody told", caller: entitled(), rules: []Applied{shadow(spends("r", map[string]int64{"api_calls": AmountInvalid}, "api_calls"))}},
		{name: "anonymous, plan's limit only", caller: anonymous(), rules: []Applied{limits("r", ByDefault, ScopeLimit{Scope: "jobs"})}, want: []Charge{rated(address, "jobs", 60, time.Minute, 0)}, warned: []Warning{{"r", "jobs"}}},
		{
			name: "a scope twice is charged once, by the first", caller: entitled(),
			rules: []Applied{limits("r", ByDefault, base("a", 10, time.Minute), base("b", 4, time.Hour)), limits("s", ByAccount, base("a", 1000, time.Hour), base("c", 2, time.Hour))},
			want:  []Charge{rated(OrgSubject("7"), "a", 25, time.Minute, 0), rated(OrgSubject("7"), "b", 10, time.Hour, 0), rated(OrgSubject("7"), "c", 5, time.Hour, 1)},
		},
		{
			name: "a scope of two subjects is two counters", caller: entitled(),
			rules: []Applied{limits("r", ByIP, base("a", 10, time.Minute)), limits("s", ByUser, base("a", 10, time.Minute))},
			want:  []Charge{rated(address, "a", 10, time.Minute, 0), rated(UserSubject("1"), "a", 25, time.Minute, 1)},
		},
		{
			name: "those two are one for an anonymous caller", caller: anonymous(),
			rules: []Applied{limits("r", ByIP, base("a", 10, time.Minute)), limits("s", ByUser, base("a", 20, time.Minute))},
			want:  []Charge{rated(address, "a", 10, time.Minute, 0)},
		},
		{
			name: "enforced goes before shadow, in its place", caller: entitled(),
			rules: []Applied{shadow(limits("trial", ByDefault, base("a", 1, time.Minute), base("b", 1, time.Minute))), limits("r", ByDefault, base("a", 10, time.Hour))},
			want:  append([]Charge{rated(OrgSubject("7"), "a", 25, time.Hour, 1)}, forced(rated(OrgSubject("7"), "b", 2, time.Minute, 0))...),
		},
		{
			name: "shadow does not go before enforced", caller: entitled(),
			rules: []Applied{limits("r", ByDefault, base("a", 10, time.Hour)), shadow(limits("trial", ByDefault, base("a", 1, time.Minute)))},
			want:  []Charge{rated(OrgSubject("7"), "a", 25, time.Hour, 0)},
		},
		{
			name: "the first of two shadows, the first of two enforced", caller: entitled(),
			rules: []Applied{shadow(limits("t", ByDefault, base("a", 1, time.Minute))), shadow(limits("u", ByDefault, base("a", 2, time.Minute))), limits("r", ByDefault, base("a", 4, time.Hour)), limits("s", ByDefault, base("a", 8, time.Hour))},
			want:  []Charge{rated(OrgSubject("7"), "a", 10, time.Hour, 2)},
		},
		{
			name: "spend in every period that counts", caller: entitled(), rules: []Applied{spends("r", one, "jobs")},
			want: []Charge{spent("jobs", PeriodMonth, Limit{Max: 500}, 1, 402, 0), spent("jobs", PeriodBilling, unlimited, 1, 0, 0)},
		},
		{
			name: "spend with the month for display", caller: entitled(), rules: []Applied{spends("r", one, "api_calls")},
			want: []Charge{spent("api_calls", PeriodDay, Limit{Max: 50_000}, 1, 429, 0), spent("api_calls", PeriodMonth, unlimited, 1, 0, 0)},
		},
		{
			name: "spend of a level", caller: entitled(), rules: []Applied{spends("r", one, "storage_bytes")},
			want: []Charge{spent("storage_bytes", PeriodNone, Limit{Max: 1 << 30}, 4096, 402, 0)},
		},
		{
			name: "spend of a metric that the plan does not name", caller: entitled(), rules: []Applied{spends("r", one, "other")},
			want: []Charge{spent("other", PeriodMonth, unlimited, 3, 0, 0)},
		},
		{
			name: "response seconds need one", caller: entitled(), rules: []Applied{seconds},
			want: func() []Charge {
				cs := []Charge{spent("compute", PeriodMonth, unlimited, 0, 0, 0), spent("compute", PeriodBilling, unlimited, 0, 402, 0)}
				cs[0].Need, cs[1].Need = 1, 1
				return cs
			}(),
		},
		{name: "spends of an anonymous caller are skipped", caller: anonymous(), rules: []Applied{spends("r", one, "jobs", "other")}},
		{
			name: "idempotent", caller: entitled(), rules: []Applied{idempotent},
			want: withOnce(spent("api_calls", PeriodDay, Limit{Max: 50_000}, 1, 429, 0), spent("api_calls", PeriodMonth, unlimited, 1, 0, 0)),
		},
		{
			name: "a metric twice is charged once, enforced before shadow", caller: entitled(),
			rules: []Applied{shadow(spends("trial", map[string]int64{"storage_bytes": 9}, "storage_bytes")), spends("r", one, "storage_bytes"), spends("s", map[string]int64{"storage_bytes": 5}, "storage_bytes")},
			want:  []Charge{spent("storage_bytes", PeriodNone, Limit{Max: 1 << 30}, 4096, 402, 1)},
		},
		{
			name: "shadow spends", caller: entitled(), rules: []Applied{shadow(spends("r", one, "storage_bytes"))},
			want: forced(spent("storage_bytes", PeriodNone, Limit{Max: 1 << 30}, 4096, 402, 0)),
		},
		{
			name: "scope and metric of one name do not meet; limits stand first", caller: entitled(),
			rules: []Applied{spends("r", one, "storage_bytes"), limits("s", ByAccount, base("storage_bytes", 4, time.Second))},
			want:  []Charge{rated(OrgSubject("7"), "storage_bytes", 10, time.Second, 1), spent("storage_bytes", PeriodNone, Limit{Max: 1 << 30}, 4096, 402, 0)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var warned []Warning
			got := AppendCharges(nil, tt.caller, tt.rules, monday, func(w Warning) { warned = append(warned, w) })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.warned, warned); diff != "" {
				t.Error(diff)
			}
			if again := AppendCharges(nil, tt.caller, tt.rules, monday, nil); !cmp.Equal(got, again) {
				t.Error("without a warn function the charges are others")
			}
		})
	}
}

// TestAppendChargesFollowsThePlan: an upgrade meets the counters of the plan before it.
func TestAppendChargesFollowsThePlan(t *testing.T) {
	t.Parallel()
	counted := map[string]Periods{"jobs": Periods(0).With(PeriodDay).With(PeriodMonth)}
	keys := func(q Quota) map[Key]bool {
		c := entitled()
		c.Entitlement.Counted = counted
		c.Entitlement.Quotas = map[string]Quota{"jobs": q}
		all := map[Key]bool{}
		for _, ch := range AppendCharges(nil, c, []Applied{spends("r", map[string]int64{"jobs": 1}, "jobs")}, monday, nil) {
			all[ch.Key] = ch.Limit.Unlimited
		}
		return all
	}
	free, pro := keys(Quota{Limit: 10, Period: PeriodDay, Status: 402}), keys(Quota{Limit: 500, Period: PeriodMonth, Status: 402})
	for k := range pro {
		if _, ok := free[k]; !ok {
			t.Errorf("the other plan did not count %+v", k)
		}
	}
	if len(free) != 2 || len(pro) != 2 {
		t.Errorf("%d and %d counters", len(free), len(pro))
	}
}

func typical() (Caller, []Applied) {
	return entitled(), []Applied{
		limits("login", ByIP, base("login", 10, time.Hour)),
		{
			Rule: &Rule{
				Name: "api", Limits: []ScopeLimit{base("api", 60, time.Minute), {Scope: "jobs"}},
				Spends: []Metered{{Metric: "api_calls"}, {Metric: "jobs"}},
			},
			SpendAmounts: []int64{1, 1},
		},
	}
}

func TestAppendChargesAllocates(t *testing.T) {
	c, rules := typical()
	c.Entitlement.Account = OrgSubject("0197f3a0-0000-7000-8000-000000000001")
	buf := make([]Charge, 0, 16)
	if n := testing.AllocsPerRun(100, func() { buf = AppendCharges(buf[:0], c, rules, monday, nil) }); n != 0 {
		t.Errorf("%v allocations with capacity", n)
	}
}

func BenchmarkAppendCharges(b *testing.B) {
	c, rules := typical()
	c.Entitlement.Account = OrgSubject("0197f3a0-0000-7000-8000-000000000001")
	buf := make([]Charge, 0, 16)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendCharges(buf[:0], c, rules, monday, nil)
	}
}

// An amount that somebody made up is denied like any other that is too much:
// beside what is used, a counter might not be able to hold it.
func TestAppendChargesOfAbsurdAmounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		amount, want int64
		metric       string
		shadow       bool
	}{
		{"too much for the quota", 501, 501, "jobs", false},
		{"half of what a counter holds", MaxAmount / 2, MaxAmount / 2, "jobs", false},
		{"more", MaxAmount/2 + 1, 501, "jobs", false},
		{"all", MaxAmount, 501, "jobs", false},
		{"all, in shadow mode, is counted as it is", MaxAmount, MaxAmount, "jobs", true},
		{"all of what is unlimited", MaxAmount, MaxAmount, "compute", false},
		{"all of what the plan does not name", MaxAmount, MaxAmount, "other", false},
	} {
		rule := spends("r", map[string]int64{tt.metric: tt.amount}, tt.metric)
		if tt.shadow {
			rule = shadow(rule)
		}
		for _, c := range AppendCharges(nil, entitled(), []Applied{rule}, monday, nil) {
			if c.Cost != tt.want {
				t.Errorf("%s: %s/%s costs %d, want %d", tt.name, c.Key.Name, c.Key.Period, c.Cost, tt.want)
			}
			if limited := !c.Limit.Unlimited; limited && c.Fits(0) != (tt.want <= c.Limit.Max) {
				t.Errorf("%s: %s/%s fits: %t", tt.name, c.Key.Name, c.Key.Period, c.Fits(0))
			}
		}
	}
}
