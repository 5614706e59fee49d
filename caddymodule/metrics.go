package caddymodule

import (
	"errors"
	"maps"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

// The collectors are made once for the process: made anew with each config,
// they would begin at zero on every reload. Labels come from the config and the
// plans only, never from a request.
var (
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quotagate_decisions_total",
		Help: "Requests judged, by rule, scope or metric that decided, plan and outcome.",
	}, []string{"rule", "scope", "plan", "outcome"})
	callSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "quotagate_call_duration_seconds",
		Help:    "Duration of the gateway's own calls, by what is called.",
		Buckets: []float64{.000005, .00001, .00005, .0001, .0005, .001, .005, .01, .05, .1, .5, 1},
	}, []string{"call"})
	reserveSeconds = callSeconds.WithLabelValues(gate.CallReserve)
	buildInfo      = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "quotagate_build_info", Help: "Always 1; the version is in the labels.",
		ConstLabels: buildLabels(),
	}, func() float64 { return 1 })
)

// running is what the gauges look at: the runtime of the newest config, and its counters.
var running atomic.Pointer[observed]

type observed struct {
	*gate.Runtime
	counters Counters
}

// collectors are all of ours.
func collectors() []prometheus.Collector {
	return []prometheus.Collector{decisions, callSeconds, buildInfo, runtimeCollector{}}
}

// observeCall records how long a call took.
func observeCall(call string, d time.Duration) {
	if call == gate.CallReserve {
		reserveSeconds.Observe(d.Seconds())
		return
	}
	callSeconds.WithLabelValues(call).Observe(d.Seconds())
}

// buildLabels are the versions of this module, of Caddy and of Go.
func buildLabels() prometheus.Labels {
	const path = "github.com/quotagate/quotagate"
	labels := prometheus.Labels{"version": "unknown", "caddy": "unknown", "go": goruntime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return labels
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		switch m.Path {
		case path:
			labels["version"] = m.Version
		case "github.com/caddyserver/caddy/v2":
			labels["caddy"] = m.Version
		}
	}
	return labels
}

// decisionKey is the labels of one series.
type decisionKey struct{ rule, scope, plan, outcome string }

// handlerMetrics counts a handler's decisions. The series are looked up once
// and kept: their number is bounded by rules, plans and outcomes.
type handlerMetrics struct {
	mu     sync.Mutex // of writers
	series atomic.Pointer[map[decisionKey]prometheus.Counter]
}

func (m *handlerMetrics) inc(k decisionKey) {
	if known := m.series.Load(); known != nil {
		if c, ok := (*known)[k]; ok {
			c.Inc()
			return
		}
	}
	m.add(k).Inc()
}

// add keeps another series in a copy: what was published is never written to.
func (m *handlerMetrics) add(k decisionKey) prometheus.Counter {
	c := decisions.WithLabelValues(k.rule, k.scope, k.plan, k.outcome)
	m.mu.Lock()
	defer m.mu.Unlock()
	series := map[decisionKey]prometheus.Counter{}
	if known := m.series.Load(); known != nil {
		maps.Copy(series, *known)
	}
	series[k] = c
	m.series.Store(&series)
	return c
}

// admitted counts each rule that applied to an admitted request.
func (m *handlerMetrics) admitted(x *exchange) {
	plan := x.caller.PlanName()
	rules := x.ticket.Rules()
	if len(rules) == 0 {
		m.inc(decisionKey{plan: plan, outcome: gate.OutcomeAdmitted})
		return
	}
	for i := range rules {
		m.inc(decisionKey{rule: rules[i].Name, scope: gate.ChartScope(rules[i].Rule), plan: plan, outcome: x.ticket.Outcome(i)})
	}
}

// denied counts the one rule that denied.
func (m *handlerMetrics) denied(x *exchange) {
	d := x.denied
	m.inc(decisionKey{rule: d.Rule, scope: d.Scope + d.Metric, plan: x.caller.PlanName(), outcome: d.Code})
}

// register puts collectors into a config's registry. One that is there already
// (a second app or handler of the config) is the same one.
func register(reg *prometheus.Registry, cs ...prometheus.Collector) error {
	for _, c := range cs {
		if err := reg.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}
