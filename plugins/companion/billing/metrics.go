package billing

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// The collectors are made once for the process: made anew with each config,
// they would begin at zero on every reload. No label comes from a request.
var (
	webhooks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quotagate_billing_webhooks_total",
		Help: "Webhooks of the payment provider, by what became of them.",
	}, []string{"outcome"})
	syncs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quotagate_billing_syncs_total",
		Help: "Customers read from the payment provider, by what came of it.",
	}, []string{"outcome"})
	fetchSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "quotagate_billing_fetch_duration_seconds",
		Help:    "Duration of one successful read of a customer from the payment provider.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	})
	changes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quotagate_billing_subscription_changes_total",
		Help: "What happened to subscriptions, by kind.",
	}, []string{"change"})
	purchases = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quotagate_billing_requests_total",
		Help: "Requests of users to the payment provider, by operation and outcome.",
	}, []string{"operation", "outcome"})
	queueLength = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quotagate_billing_queue_customers",
		Help: "Customers that wait to be read (pending), or were given up (dead).",
	}, []string{"state"})
	queueAge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "quotagate_billing_queue_overdue_seconds",
		Help: "For how long the customer who waits for the longest has not been read, however often that was tried.",
	})
	unknownPrices = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "quotagate_billing_unknown_price_subscriptions",
		Help: "Running subscriptions whose price no plan knows.",
	})
	driftGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quotagate_billing_drift_subscriptions",
		Help: "Subscriptions in which the last full comparison found a difference, by kind.",
	}, []string{"kind"})
	reconciled = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quotagate_billing_reconciled_timestamp_seconds",
		Help: "When each task of reconciliation last came to its end.",
	}, []string{"task"}) // job is Prometheus' own
)

// collectors are all of billing's.
func collectors() []prometheus.Collector {
	return []prometheus.Collector{
		webhooks, syncs, fetchSeconds, changes, purchases, queueLength, queueAge, unknownPrices, driftGauge, reconciled,
	}
}

// registerMetrics puts the collectors into a config's registry. One that is
// there already is the same one. What may become of a webhook is counted from 0,
// so that the first one shows as an increase.
func registerMetrics(reg *prometheus.Registry) error {
	for _, outcome := range []string{
		"accepted", "duplicate", "bad_signature", "wrong_mode", "bad_event", "too_large", "unavailable", "missed",
	} {
		webhooks.WithLabelValues(outcome)
	}
	for _, c := range collectors() {
		if err := reg.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}

// observeHealth shows what an operator should look at.
func observeHealth(h store.BillingHealth, now time.Time) {
	queueLength.WithLabelValues("pending").Set(float64(h.Pending))
	queueLength.WithLabelValues("dead").Set(float64(h.Dead))
	unknownPrices.Set(float64(h.UnknownPrices))
	late := 0.0
	if !h.OldestDue.IsZero() {
		late = max(0, now.Sub(h.OldestDue).Seconds())
	}
	queueAge.Set(late)
}
