package gate

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// told are the percents that the records were told of, in order.
func (h *harness) told() []int64 {
	h.rt.Flush(context.Background())
	h.records.mu.Lock()
	defer h.records.mu.Unlock()
	var percents []int64
	for _, t := range h.records.thresholds {
		percents = append(percents, t.Percent)
	}
	h.records.thresholds = nil
	return percents
}

func (h *harness) wantTold(t *testing.T, want ...int64) {
	t.Helper()
	if diff := cmp.Diff(want, h.told(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("thresholds:\n%s", diff)
	}
}

func TestThresholdsAreToldOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(5, 0)
	rule := applied(quota.Rule{Name: "make", Spends: spend("jobs", 1), RefundUnless: []int{2}})
	use := func(r Result) {
		t.Helper()
		h.admit(t, h.caller(t, alice), rule).Settle(t.Context(), r)
	}
	deny := func() {
		t.Helper()
		if d := h.denied(t, h.caller(t, alice), rule); d.Code != quota.CodeQuotaExceeded {
			t.Errorf("denied for %s", d.Code)
		}
	}
	for range 3 {
		use(ok200)
	}
	h.wantTold(t)
	use(Result{Fate: Unreached}) // the fourth, given back
	h.wantTold(t)
	use(ok200)
	h.wantTold(t, 80)
	use(ok200)
	h.wantTold(t, 100)
	deny()
	h.wantTold(t)
	// A lower limit is another limit: what is used is beyond both of its thresholds.
	h.records.change(alice, func(e *quota.Entitlement) { e.Plan = limited(2, 0) })
	h.rt.Entitlements.Drop()
	deny()
	h.wantTold(t, 80, 100)
}

func TestThresholdsWaitForTheRecords(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(1, 0)
	h.records.onFlush = func(context.Context, quota.Flush) error { return errDown }
	h.request(t, alice)
	h.wantTold(t)
	h.records.onFlush = nil
	h.wantTold(t, 80, 100)
	h.wantTold(t)
}

func TestThresholdsAreBounded(t *testing.T) {
	t.Parallel()
	ts := thresholds{known: map[quota.Threshold]struct{}{}}
	for round := range 3 {
		for i := range 2 * knownThresholds {
			ts.note(quota.Threshold{Metric: fmt.Sprint(round, "-", i), Percent: 100})
		}
		if len(ts.known) > knownThresholds || len(ts.reached) > knownThresholds+1 {
			t.Fatalf("%d known, %d waiting", len(ts.known), len(ts.reached))
		}
		ts.reached = nil
	}
}
