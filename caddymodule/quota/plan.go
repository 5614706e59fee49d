package quota

import (
	"errors"
	"fmt"
	"sort"
	"time"
)

// The metrics that every installation knows. A plan may name others.
const (
	MetricAPICalls       = "api_calls"
	MetricJobs           = "jobs"
	MetricComputeSeconds = "compute_seconds"
	MetricStorageBytes   = "storage_bytes"
)

// Rate is "at most Requests in any window of length Window".
type Rate struct {
	Requests int64         // 0..MaxAmount; 0 admits nothing
	Window   time.Duration // at least MinWindow, whole milliseconds
}

// The bounds of a rate's window.
const (
	MinWindow = 10 * time.Millisecond
	MaxWindow = 400 * 24 * time.Hour
)

// FallbackRate applies to a scope for which neither a plan nor the config says anything.
var FallbackRate = Rate{Requests: 60, Window: time.Minute}

// Validate refuses what counters could not hold exactly.
func (r Rate) Validate() error {
	if err := CheckAmount("requests", r.Requests); err != nil {
		return err
	}
	if r.Window < MinWindow || r.Window > MaxWindow {
		return fmt.Errorf("window %s is outside %s..%s", r.Window, MinWindow, MaxWindow)
	}
	if r.Window%time.Millisecond != 0 {
		return fmt.Errorf("window %s is not a whole number of milliseconds", r.Window)
	}
	return nil
}

// Scale is the base rate times a plan's multiplier in hundredths: max(1, floor),
// or 0 where the base is 0.
func (r Rate) Scale(pct int64) Rate {
	if r.Requests == 0 {
		return r
	}
	// Split so that the product stays below 2^63: Requests <= 2^53, pct <= 10^4.
	whole, rest := r.Requests/100, r.Requests%100
	r.Requests = min(MaxAmount, max(1, whole*pct+rest*pct/100))
	return r
}

// Quota is what a plan allows of one metric in one period.
type Quota struct {
	Limit     int64 // 0..MaxAmount; 0 is none
	Unlimited bool  // Limit is then 0 and not looked at
	Period    Period
	Status    int // of a denial: 402, 403, 413 or 429
}

// Validate refuses quotas that could not be enforced as written.
func (q Quota) Validate() error {
	if err := CheckAmount("limit", q.Limit); err != nil {
		return err
	}
	if q.Period > PeriodNone {
		return fmt.Errorf("unknown period %d", q.Period)
	}
	switch q.Status {
	case 402, 403, 413, 429:
		return nil
	}
	return fmt.Errorf("exceeded_status %d is not 402, 403, 413 or 429", q.Status)
}

// MaxMultiplierPct is the largest multiplier, in hundredths: 100.00.
const MaxMultiplierPct = 100_00

// Plan is what an account may do. A Plan is shared and never written to after it was loaded.
type Plan struct {
	ID, Name, DisplayName string
	// MultiplierPct scales the config's base limits, in hundredths: 1..MaxMultiplierPct.
	MultiplierPct int64
	RateLimits    map[string]Rate  // by scope, absolute
	Quotas        map[string]Quota // by metric
	Features      map[string]bool
}

// Validate reports everything that is wrong with the plan, each with its place.
func (p *Plan) Validate() error {
	var errs []error
	if !ValidName(p.Name) {
		errs = append(errs, fmt.Errorf("plan name %q: want 1 to 64 of a-z, 0-9, '_', '-', beginning with a letter or digit", p.Name))
	}
	if p.MultiplierPct < 1 || p.MultiplierPct > MaxMultiplierPct {
		errs = append(errs, fmt.Errorf("plan %s: rate_limit_multiplier is outside 0.01..100", p.Name))
	}
	for _, scope := range sortedKeys(p.RateLimits) {
		if !ValidName(scope) {
			errs = append(errs, fmt.Errorf("plan %s: scope %q is not a name", p.Name, scope))
		}
		if err := p.RateLimits[scope].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("plan %s: rate_limits.%s: %w", p.Name, scope, err))
		}
	}
	for _, metric := range sortedKeys(p.Quotas) {
		if !ValidName(metric) {
			errs = append(errs, fmt.Errorf("plan %s: metric %q is not a name", p.Name, metric))
		}
		if err := p.Quotas[metric].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("plan %s: quotas.%s: %w", p.Name, metric, err))
		}
	}
	return errors.Join(errs...)
}

// ValidName reports whether s can name a plan, scope, metric or rule:
// 1 to 64 of a-z, 0-9, '_', '-', beginning with a letter or digit.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > 64 || s[0] == '_' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
