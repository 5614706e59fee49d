package quota

import (
	"slices"
	"time"
)

// UsageCharges name the counters of everything that the account may have used
// at now: each metric that it or any plan knows, in each period in which it is
// counted. They cost nothing: they are for Peek.
func UsageCharges(e *Entitlement, now time.Time) []Charge {
	metrics := []string{MetricAPICalls, MetricComputeSeconds, MetricJobs, MetricStorageBytes}
	for metric := range e.AllQuotas() {
		metrics = append(metrics, metric)
	}
	for metric := range e.Counted {
		metrics = append(metrics, metric)
	}
	slices.Sort(metrics)
	digest := e.Account.Digest()
	var cs []Charge
	for _, metric := range slices.Compact(metrics) {
		counted := e.countedIn(metric)
		for p := PeriodDay; p <= PeriodNone; p++ {
			if !counted.Has(p) {
				continue
			}
			start, end := p.Span(now, e.Anchor)
			cs = append(cs, Charge{
				Key:   Key{Digest: digest, Name: metric, Space: SpaceUsage, Period: p, Start: unix(start)},
				Limit: Limit{Unlimited: true}, Account: e.Account, End: unix(end),
			})
		}
	}
	return cs
}

// countedIn is the periods in which a metric of the account is counted: all
// that any plan uses for it, and the month, for display. A level has none but itself.
func (e *Entitlement) countedIn(metric string) Periods {
	counted := e.Counted[metric]
	if q, ok := e.Quota(metric); ok {
		counted = counted.With(q.Period)
	}
	if counted == 0 && metric == MetricStorageBytes {
		counted = counted.With(PeriodNone)
	}
	if !counted.Has(PeriodNone) {
		counted = counted.With(PeriodMonth)
	}
	return counted
}
