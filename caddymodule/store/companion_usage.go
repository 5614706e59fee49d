package store

import (
	"context"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// builtin are the metrics that every installation knows.
var builtin = [...]string{quota.MetricAPICalls, quota.MetricComputeSeconds, quota.MetricJobs, quota.MetricStorageBytes}

func (v *view) knows(metric string) bool {
	_, named := v.catalogue.counted[metric]
	return named || slices.Contains(builtin[:], metric)
}

// isLevel reports whether the metric is a level: all plans that name it say so,
// and storage_bytes where none does.
func (v *view) isLevel(metric string) bool {
	if periods, ok := v.catalogue.counted[metric]; ok {
		return periods == quota.Periods(0).With(quota.PeriodNone)
	}
	return metric == quota.MetricStorageBytes
}

// usageOf is what was used over all epochs.
func usageOf(ctx context.Context, q *sqlgen.Queries, account quota.Subject, k quota.UsageKey) (int64, error) {
	var used quota.Used
	err := addUsage(ctx, q, account, k, nil, &used)
	return used.Amount, err
}
