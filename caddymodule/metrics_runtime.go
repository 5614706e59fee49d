package caddymodule

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

// runtimeCollector reads the running gate's own counters when it is asked.
type runtimeCollector struct{}

type statistic struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*observed) float64
}

func counter(name, help string, value func(*gate.Stats) int64) statistic {
	return statistic{
		prometheus.NewDesc("quotagate_"+name, help, nil, nil), prometheus.CounterValue,
		func(rt *observed) float64 { return float64(value(rt.Stats)) },
	}
}

func gauge(name, help string, value func(*observed) float64) statistic {
	return statistic{prometheus.NewDesc("quotagate_"+name, help, nil, nil), prometheus.GaugeValue, value}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

var statistics = []statistic{
	counter("entitlement_cache_hits_total", "Entitlements found in the cache.",
		func(s *gate.Stats) int64 { return s.CacheHits.Load() }),
	counter("entitlement_cache_misses_total", "Entitlements that were loaded or waited for.",
		func(s *gate.Stats) int64 { return s.CacheMisses.Load() }),
	counter("entitlement_stale_total", "Answers from a stale entitlement while the records failed.",
		func(s *gate.Stats) int64 { return s.CacheStale.Load() }),
	counter("entitlement_fallback_total", "Answers by the default plan because the records failed.",
		func(s *gate.Stats) int64 { return s.Fallbacks.Load() }),
	counter("records_load_failures_total", "Loads of entitlements that failed.",
		func(s *gate.Stats) int64 { return s.LoadFailures.Load() }),
	counter("records_watch_failures_total", "Times that watching the records for changes failed.",
		func(s *gate.Stats) int64 { return s.WatchFailures.Load() }),
	counter("changes_total", "Changes of the records that were applied.",
		func(s *gate.Stats) int64 { return s.Changes.Load() }),
	counter("counters_cold_loads_total", "Loads of what was used, for counters that did not know.",
		func(s *gate.Stats) int64 { return s.ColdLoads.Load() }),
	counter("counters_failures_total", "Calls of the counters that failed.",
		func(s *gate.Stats) int64 {
			return s.CounterFailures.Load() + s.RefundFailures.Load() + s.ColdFailures.Load()
		}),
	counter("counters_outages_total", "Times that the counters went out of reach.",
		func(s *gate.Stats) int64 { return s.BreakerOpened.Load() }),
	gauge("counters_out_of_reach", "1 while the counters are out of reach and limits are kept in this process, else 0.",
		func(rt *observed) float64 {
			return flag(rt.Outage() != nil)
		}),
	gauge("counters_may_be_evicted", "1 while the store of the counters is set up so that it may evict some, else 0.",
		func(rt *observed) float64 {
			store, ok := rt.counters.(Evicter)
			return flag(ok && store.MayEvict())
		}),
	counter("local_admitted_total", "Requests admitted in this process while the counters were out of reach.",
		func(s *gate.Stats) int64 { return s.LocalAdmitted.Load() }),
	counter("local_denied_total", "Requests denied in this process while the counters were out of reach.",
		func(s *gate.Stats) int64 { return s.LocalDenied.Load() }),
	gauge("gateways", "Gateways that share the limits, as far as this one knows.",
		func(rt *observed) float64 { return float64(rt.Gateways()) }),
	counter("epochs_reaped_total", "Epochs of dead gateways that this one closed.",
		func(s *gate.Stats) int64 { return s.EpochsReaped.Load() }),
	counter("epochs_copied_total", "Epochs of dead gateways whose usage this one copied from the counters.",
		func(s *gate.Stats) int64 { return s.EpochsCopied.Load() }),
	counter("usage_flush_failures_total", "Flushes of usage that failed and are tried again.",
		func(s *gate.Stats) int64 { return s.FlushFailures.Load() }),
	counter("usage_rollups_dropped_total", "Requests missing in the charts because the records were down for long.",
		func(s *gate.Stats) int64 { return s.RollupsDropped.Load() }),
	counter("scopes_without_limit_total", "Requests limited by 60 in 60 s because nobody names a limit of their scope.",
		func(s *gate.Stats) int64 { return s.UnlimitedScopes.Load() }),
	counter("streams_closed_total", "Open streams closed because their caller was suspended or revoked.",
		func(s *gate.Stats) int64 { return s.StreamsClosed.Load() }),
	gauge("entitlement_cache_entries", "Accounts in the cache.",
		func(rt *observed) float64 { return float64(rt.Entitlements.Len()) }),
	gauge("applied_change", "Number of the newest change that requests are judged by.",
		func(rt *observed) float64 { return float64(rt.Entitlements.Applied()) }),
	gauge("open_streams", "Open streams of known callers.",
		func(rt *observed) float64 { return float64(rt.Streams.Len()) }),
	gauge("usage_flush_lag_seconds", "Seconds since usage was last written to the records.",
		func(rt *observed) float64 { return rt.Stats.FlushLag().Seconds() }),
}

var faultsDesc = prometheus.NewDesc("quotagate_counters_faults_total", "Failed calls of the counters, by kind.", []string{"kind"}, nil)

// Describe implements prometheus.Collector.
func (runtimeCollector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range statistics {
		to <- s.desc
	}
	to <- faultsDesc
}

// Collect implements prometheus.Collector.
func (runtimeCollector) Collect(to chan<- prometheus.Metric) {
	rt := running.Load()
	if rt == nil {
		return
	}
	for _, s := range statistics {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(rt))
	}
	for kind, n := range rt.Stats.CounterFaults() {
		to <- prometheus.MustNewConstMetric(faultsDesc, prometheus.CounterValue, float64(n), string(kind))
	}
}
