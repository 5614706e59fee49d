package quota

import "time"

// SeedPlans are the plans of a fresh installation, compiled in so that callers
// have a plan while the records cannot be asked. The records' own seed is the
// same (a test compares them), but an operator's edits are in the records only.
// The first is the default plan. The result is the caller's own.
func SeedPlans() []*Plan {
	const gib = 1 << 30
	return []*Plan{
		seedPlan("01890a5d-ac96-774b-bcce-b302099a8001", "free", "Free Plan", 1_00,
			[4]int64{10, 5, 60, 10}, [4]int64{1_000, 10, gib, 3_600},
			map[string]bool{"api_access": true, "priority_support": false, "custom_models": false}),
		seedPlan("01890a5d-ac96-774b-bcce-b302099a8002", "pro", "Pro Plan", 5_00,
			[4]int64{50, 25, 300, 50}, [4]int64{50_000, 500, 50 * gib, 50 * 3_600},
			map[string]bool{"api_access": true, "priority_support": true, "custom_models": true, "advanced_analytics": true}),
		seedPlan("01890a5d-ac96-774b-bcce-b302099a8003", "enterprise", "Enterprise Plan", 20_00,
			[4]int64{200, 100, 1_200, 200}, [4]int64{-1, -1, 1_024 * gib, -1},
			map[string]bool{"api_access": true, "priority_support": true, "custom_models": true, "advanced_analytics": true, "dedicated_support": true}),
	}
}

// seedPlan takes the rates of login, register, api and jobs, and the quotas of
// api_calls, jobs, storage_bytes and compute_seconds; -1 is unlimited.
func seedPlan(id, name, display string, multiplier int64, rates, limits [4]int64, features map[string]bool) *Plan {
	limit := func(n int64, p Period, status int) Quota {
		return Quota{Limit: max(n, 0), Unlimited: n < 0, Period: p, Status: status}
	}
	return &Plan{
		ID: id, Name: name, DisplayName: display, MultiplierPct: multiplier,
		RateLimits: map[string]Rate{
			"login":    {Requests: rates[0], Window: time.Hour},
			"register": {Requests: rates[1], Window: time.Hour},
			"api":      {Requests: rates[2], Window: time.Minute},
			"jobs":     {Requests: rates[3], Window: time.Hour},
		},
		Quotas: map[string]Quota{
			MetricAPICalls:       limit(limits[0], PeriodDay, 429),
			MetricJobs:           limit(limits[1], PeriodMonth, 402),
			MetricStorageBytes:   limit(limits[2], PeriodNone, 402),
			MetricComputeSeconds: limit(limits[3], PeriodMonth, 402),
		},
		Features: features,
	}
}

// SeedPlan is the seed plan of that name, nil if there is none, and the periods
// in which the seed plans together count each metric.
func SeedPlan(name string) (*Plan, map[string]Periods) {
	var found *Plan
	counted := map[string]Periods{}
	for _, p := range SeedPlans() {
		if p.Name == name {
			found = p
		}
		for metric, q := range p.Quotas {
			counted[metric] = counted[metric].With(q.Period)
		}
	}
	return found, counted
}

// SeedMetric reports whether the seed plans have a quota of the metric: it is
// known whatever else the plans of an installation name.
func SeedMetric(name string) bool {
	switch name {
	case MetricAPICalls, MetricJobs, MetricStorageBytes, MetricComputeSeconds:
		return true
	}
	return false
}
