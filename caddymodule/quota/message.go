package quota

import "strings"

// Message is what a person reads when the charge was denied. It ends without a stop.
func (c *Charge) Message() string {
	if c.Key.Space == SpaceRate {
		return "Rate limit exceeded for " + c.Key.Name
	}
	limit := metricWords(c.Key.Name) + " limit"
	switch c.Key.Period {
	case PeriodDay:
		limit = "daily " + limit
	case PeriodMonth:
		limit = "monthly " + limit
	case PeriodBilling:
		limit += " for this billing period"
	}
	return "You have reached your " + limit
}

// metricWords names a metric inside a sentence.
func metricWords(metric string) string {
	switch metric {
	case MetricAPICalls:
		return "API call"
	case MetricJobs:
		return "job"
	case MetricComputeSeconds:
		return "compute"
	case MetricStorageBytes:
		return "storage"
	}
	return strings.ReplaceAll(metric, "_", " ")
}

// AppendPolicy appends the name of the charge's policy as clients see it: the
// scope of a rate, "<metric>/<period>" of a quota.
func (c *Charge) AppendPolicy(dst []byte) []byte {
	dst = append(dst, c.Key.Name...)
	if c.Key.Space == SpaceUsage {
		dst = append(dst, '/')
		dst = append(dst, c.Key.Period.String()...)
	}
	return dst
}
