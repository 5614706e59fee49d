package quota

import (
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestScaleModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(
			rapid.Int64Range(1, 1000), rapid.Int64Range(1, MaxAmount),
			rapid.SampledFrom([]int64{1, 99, 100, 101, MaxAmount - 1, MaxAmount}),
		).Draw(t, "requests")
		pct := rapid.OneOf(rapid.Int64Range(1, MaxMultiplierPct), rapid.SampledFrom([]int64{1, 50, 99, 100, 101, 150, MaxMultiplierPct})).Draw(t, "pct")

		product := new(big.Rat).Mul(new(big.Rat).SetInt64(n), big.NewRat(pct, 100))
		floor := new(big.Int).Quo(product.Num(), product.Denom())
		want := int64(MaxAmount)
		if floor.Cmp(big.NewInt(MaxAmount)) < 0 {
			want = max(1, floor.Int64())
		}
		if got := (Rate{Requests: n, Window: time.Minute}).Scale(pct); got != (Rate{Requests: want, Window: time.Minute}) {
			t.Fatalf("%d x %d%% = %+v, want %d", n, pct, got, want)
		}
	})
}

func TestScaleOfNothing(t *testing.T) {
	t.Parallel()
	if got := (Rate{Window: time.Minute}).Scale(500); got.Requests != 0 {
		t.Errorf("a limit of none became %d", got.Requests)
	}
}

func TestPlanValidate(t *testing.T) {
	t.Parallel()
	valid := func() *Plan {
		return &Plan{
			Name: "pro", MultiplierPct: 500,
			RateLimits: map[string]Rate{"api": {Requests: 300, Window: time.Minute}},
			Quotas:     map[string]Quota{"jobs": {Limit: 500, Period: PeriodMonth, Status: 402}, "compute_seconds": {Unlimited: true, Status: 402}},
		}
	}
	rate := func(r Rate) func(*Plan) { return func(p *Plan) { p.RateLimits["api"] = r } }
	quota := func(q Quota) func(*Plan) { return func(p *Plan) { p.Quotas["jobs"] = q } }
	tests := []struct {
		name   string
		change func(*Plan)
		want   []string // parts of the error; none: valid
	}{
		{"valid", func(*Plan) {}, nil},
		{"nothing is allowed", func(p *Plan) { rate(Rate{Window: MinWindow})(p); quota(Quota{Status: 429})(p) }, nil},
		{"the largest of all", func(p *Plan) {
			rate(Rate{Requests: MaxAmount, Window: MaxWindow})(p)
			quota(Quota{Limit: MaxAmount, Period: PeriodNone, Status: 413})(p)
			p.MultiplierPct = MaxMultiplierPct
		}, nil},
		{"no name", func(p *Plan) { p.Name = "" }, []string{`plan name ""`}},
		{"capital", func(p *Plan) { p.Name = "Pro" }, []string{`plan name "Pro"`}},
		{"multiplier of none", func(p *Plan) { p.MultiplierPct = 0 }, []string{"rate_limit_multiplier"}},
		{"negative multiplier", func(p *Plan) { p.MultiplierPct = -100 }, []string{"rate_limit_multiplier"}},
		{"huge multiplier", func(p *Plan) { p.MultiplierPct = MaxMultiplierPct + 1 }, []string{"rate_limit_multiplier"}},
		{"scope name", func(p *Plan) { p.RateLimits["a b"] = Rate{Requests: 1, Window: time.Second} }, []string{`scope "a b"`}},
		{"metric name", func(p *Plan) { p.Quotas["jobs/day"] = Quota{Status: 402} }, []string{`metric "jobs/day"`}},
		{"negative requests", rate(Rate{Requests: -1, Window: time.Minute}), []string{"rate_limits.api: requests is negative: -1"}},
		{"requests beyond 2^53", rate(Rate{Requests: MaxAmount + 1, Window: time.Minute}), []string{"requests is above 2^53: 9007199254740993"}},
		{"no window", rate(Rate{Requests: 1}), []string{"window 0s is outside"}},
		{"negative window", rate(Rate{Requests: 1, Window: -time.Second}), []string{"window -1s is outside"}},
		{"short window", rate(Rate{Requests: 1, Window: 9 * time.Millisecond}), []string{"window 9ms is outside"}},
		{"long window", rate(Rate{Requests: 1, Window: MaxWindow + time.Millisecond}), []string{"is outside"}},
		{"microseconds", rate(Rate{Requests: 1, Window: 10*time.Millisecond + time.Microsecond}), []string{"whole number of milliseconds"}},
		{"negative limit", quota(Quota{Limit: -1, Status: 402}), []string{"quotas.jobs: limit is negative: -1"}},
		{"limit beyond 2^53", quota(Quota{Limit: MaxAmount + 1, Status: 402}), []string{"limit is above 2^53"}},
		{"unknown period", quota(Quota{Period: PeriodNone + 1, Status: 402}), []string{"unknown period 4"}},
		{"unknown status", quota(Quota{Status: 200}), []string{"exceeded_status 200"}},
		{"everything at once, in order", func(p *Plan) {
			p.Name, p.MultiplierPct = "-", 0
			quota(Quota{})(p)
			rate(Rate{})(p)
		}, []string{"plan name", "multiplier", "rate_limits.api", "quotas.jobs"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := valid()
			tt.change(p)
			err := p.Validate()
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			rest := err.Error()
			for _, part := range tt.want {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Fatalf("%q is missing, or out of order, in %q", part, err)
				}
				rest = after
			}
		})
	}
}

func FuzzValidName(f *testing.F) {
	for _, s := range []string{"", "a", "2fa", "_a", "-a", "a_b-c", "A", "a b", "é", "a\x00", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		f.Add(s)
	}
	pattern := regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,63}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := ValidName(s); got != pattern.MatchString(s) {
			t.Errorf("ValidName(%q) = %v", s, got)
		}
	})
}
