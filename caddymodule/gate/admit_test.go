package gate

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

var ok200 = Result{Status: 200, Fate: Answered}

// limited is a plan with these quotas, per month or as a level.
func limited(jobs, storage int64) *quota.Plan {
	return &quota.Plan{Name: "tiny", MultiplierPct: 100, Quotas: map[string]quota.Quota{
		"jobs":    {Limit: jobs, Period: quota.PeriodMonth, Status: 402},
		"storage": {Limit: storage, Period: quota.PeriodNone, Status: 413},
	}}
}

func (h *harness) used(t testing.TB, metric string, p quota.Period) int64 {
	t.Helper()
	h.rt.Flush(t.Context())
	return h.records.used(alice, metric, p)
}

func TestAdmitDeniesWithItsTicket(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(1, 0)
	rule := applied(quota.Rule{Name: "make", Spends: spend("jobs", 1)})
	c := h.caller(t, alice)
	h.admit(t, c, rule).Settle(t.Context(), ok200)
	ticket, err := h.gate.Admit(t.Context(), c, []quota.Applied{rule}, Policy{})
	d := asDenial(t, err)
	if d.Status != 402 || d.Code != quota.CodeQuotaExceeded || d.Rule != "make" || d.Plan != "tiny" || d.Used != 1 {
		t.Errorf("got %+v", d)
	}
	if len(ticket.Charges()) != 1 || ticket.Decision().Admitted() || len(ticket.Decision().Outcomes) != 1 || len(ticket.Rules()) != 1 {
		t.Error("the ticket does not tell what was denied")
	}
	ticket.Discard()
	if n := h.used(t, "jobs", quota.PeriodMonth); n != 1 {
		t.Errorf("%d used, want 1", n)
	}
	for decision, want := range map[string]int64{OutcomeAdmitted: 1, quota.CodeQuotaExceeded: 1} {
		if n, _ := h.records.requests(alice, decision); n != want {
			t.Errorf("%d requests are charted as %s, want %d", n, decision, want)
		}
	}
}

// While usage cannot be loaded, on_outage decides, and what is admitted is
// counted all the same; rates need no records.
func TestAdmitWhileRecordsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(5, 100)
		var down atomic.Bool
		h.records.onUsage = func() error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		stop := h.start(t)
		defer stop()
		c := h.caller(t, alice)
		down.Store(true)
		rate := quota.Rule{Name: "rate", DenyOnOutage: true,
			Limits: []quota.ScopeLimit{{Scope: "api", Base: quota.Rate{Requests: 5, Window: time.Minute}}}}
		make1 := quota.Rule{Name: "make", Spends: spend("jobs", 1), RefundUnless: []int{2}}
		// The limiter of the rule with on_outage deny can be asked: it has only a rate.
		for range 5 {
			h.admit(t, c, applied(rate), applied(make1)).Settle(t.Context(), ok200)
		}
		if d := h.denied(t, c, applied(rate)); d.Code != quota.CodeRateLimited {
			t.Errorf("got %+v", d)
		}
		// What was counted here is certain, whatever else the records know.
		if d := h.denied(t, c, applied(make1)); d.Code != quota.CodeQuotaExceeded || d.Used != 5 {
			t.Errorf("got %+v", d)
		}
		strict := make1
		strict.DenyOnOutage = true
		if d := h.denied(t, c, applied(strict)); d.Status != 503 || d.Code != quota.CodeLimiterUnavailable || d.Rule != "make" {
			t.Errorf("got %+v", d)
		}
		// A rule that names the same metric second is without its limiter too.
		second := strict
		second.Name = "second"
		if d := h.denied(t, c, applied(make1), applied(second)); d.Rule != "second" {
			t.Errorf("got %+v", d)
		}
		strict.Shadow = true
		h.admit(t, c, applied(strict)).Settle(t.Context(), Result{Status: 500, Fate: Answered}) // given back
		if h.rt.Stats.ColdFailures.Load() == 0 || h.rt.Stats.LastFault().Part != "records" {
			t.Error("the failure is not told")
		}
		down.Store(false)
		if d := h.denied(t, c, applied(make1)); d.Used != 5 {
			t.Errorf("got %+v", d)
		}
		if n := h.used(t, "jobs", quota.PeriodMonth); n != 5 {
			t.Errorf("%d used, want 5", n)
		}
	})
}

// A repeated request frees once, as it is charged once; one that fails frees nothing,
// and does not keep the next from it.
func TestRepeatedFree(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.levels["storage"] = 500
	c := h.caller(t, alice)
	free := func(key string, status int) {
		rule := applied(quota.Rule{Name: "remove", Idempotent: true, Frees: spend("storage", 100)})
		rule.Once = quota.UserSubject(key).Digest()
		h.admit(t, c, rule).Settle(t.Context(), Result{Status: status, Fate: Answered})
	}
	free("a", 500)
	for range 3 {
		free("a", 200)
	}
	free("b", 204)
	if n := h.used(t, "storage", quota.PeriodNone); n != -200 {
		t.Errorf("the level moves by %d, want -200", n)
	}
}

// An amount that the request does not tell refuses who would be charged, and nobody
// who is refused for another reason, spends nothing, or is only watched.
func TestAdmitAnInvalidAmount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(10, 100)
	known, nobody := h.caller(t, alice), Caller{Identity: Identity{Principal: anonymous, IP: "ip:192.0.2.1/32"}}
	rule := func(change ...func(*quota.Rule)) quota.Applied {
		r := quota.Rule{Name: "make", Spends: []quota.Metered{{Metric: "jobs", Kind: quota.AmountPlaceholder}}}
		for _, f := range change {
			f(&r)
		}
		a := applied(r)
		a.SpendAmounts = []int64{quota.AmountInvalid}
		return a
	}
	needs := func(r *quota.Rule) { r.Require = []quota.Requirement{{User: true, Feature: "batch"}} }
	shadow := func(r *quota.Rule) { r.Shadow = true }
	if d := h.denied(t, known, rule()); d.Status != 400 || d.Code != quota.CodeBadRequest || d.Rule != "make" || !strings.Contains(d.Message, "jobs") {
		t.Errorf("got %+v", d)
	}
	if d := h.denied(t, known, rule(needs)); d.Code != quota.CodeFeature {
		t.Errorf("without the feature: %+v", d)
	}
	if d := h.denied(t, nobody, rule(needs)); d.Status != 401 {
		t.Errorf("without a user: %+v", d)
	}
	h.admit(t, nobody, rule()).Settle(t.Context(), ok200)
	h.admit(t, known, rule(shadow)).Settle(t.Context(), ok200)
	if n := h.used(t, "jobs", quota.PeriodMonth); n != 0 {
		t.Errorf("%d are counted", n)
	}
}

// Counters that fail have perhaps counted: nothing is sent again.
func TestAdmitWhileCountersFail(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(10, 100)
	c := h.caller(t, alice)
	rule := quota.Rule{Name: "make", Spends: spend("jobs", 1), Frees: spend("storage", 1)}
	h.engine.fail = func(string) error { return errDown }
	ticket := h.admit(t, c, applied(rule))
	if n := h.engine.reserves; n != 1 || len(ticket.Charges()) != 0 || !ticket.Decision().Admitted() {
		t.Errorf("%d reservations, %d charges", n, len(ticket.Charges()))
	}
	ticket.Settle(t.Context(), ok200)
	rule.DenyOnOutage = true
	ticket, err := h.gate.Admit(t.Context(), c, []quota.Applied{applied(rule)}, Policy{})
	if d := asDenial(t, err); d.Code != quota.CodeLimiterUnavailable || len(ticket.Charges()) != 0 {
		t.Errorf("got %+v", d)
	}
	ticket.Discard()
	if h.rt.Stats.CounterFailures.Load() != 2 || h.rt.Stats.RefundFailures.Load() != 1 || h.rt.Stats.LastFault().Part != "counters" {
		t.Errorf("%d and %d failures are told", h.rt.Stats.CounterFailures.Load(), h.rt.Stats.RefundFailures.Load())
	}
	// A client that leaves meanwhile is no outage.
	ctx, leave := context.WithCancel(t.Context())
	leave()
	ticket, err = h.gate.Admit(ctx, c, []quota.Applied{applied(quota.Rule{Name: "make", Spends: spend("jobs", 1)})}, Policy{})
	if err != nil || h.rt.Stats.CounterFailures.Load() != 2 {
		t.Errorf("got %v", err)
	}
	ticket.Settle(ctx, Result{})
}

// Counters that answer that usage is cold, and then nothing more.
func TestAdmitWhileAllFails(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	c := h.caller(t, alice)
	reserves := 0
	h.engine.fail = func(call string) error {
		if reserves++; call == "reserve" && reserves > 1 {
			return errDown
		}
		return nil
	}
	h.records.onUsage = func() error { return errDown }
	ticket := h.admit(t, c, applied(quota.Rule{Name: "make", Spends: append(spend("jobs", 1), metered1("compute_seconds", quota.AmountResponseSeconds)...)}))
	if len(ticket.Charges()) != 0 || h.rt.Stats.CounterFailures.Load() != 1 {
		t.Errorf("%d charges", len(ticket.Charges()))
	}
	ticket.Settle(t.Context(), ok200)

	// What is charged late may fail alone.
	h.engine.fail, h.records.onUsage = nil, nil
	ticket = h.admit(t, c, applied(quota.Rule{Name: "make", Spends: metered1("compute_seconds", quota.AmountResponseSeconds)}))
	h.engine.fail = func(string) error { return errDown }
	ticket.Settle(t.Context(), ok200)
	if n := h.rt.Stats.CounterFailures.Load(); n != 2 {
		t.Errorf("%d failures told, want 2", n)
	}
}

func metered1(metric string, kind quota.AmountKind) []quota.Metered {
	return []quota.Metered{{Metric: metric, Kind: kind}}
}

// Cold for ever: the outage policy, not an endless loop.
func TestAdmitWithCountersThatStayCold(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(10, 100)
	h.engine.onRefill = h.engine.rotate
	c := h.caller(t, alice)
	rule := quota.Rule{Name: "make", Spends: spend("jobs", 1)}
	h.admit(t, c, applied(rule)).Settle(t.Context(), ok200)
	rule.DenyOnOutage = true
	if d := h.denied(t, c, applied(rule)); d.Code != quota.CodeLimiterUnavailable {
		t.Errorf("got %+v", d)
	}
	h.engine.onRefill = nil
	if n := h.used(t, "jobs", quota.PeriodMonth); n != 1 {
		t.Errorf("%d used, want 1", n)
	}
	h.rt.usage = &shortUsage{h.records}
	_ = h.engine.Forget(t.Context(), alice) // does not fail
	if d := h.denied(t, c, applied(rule)); d.Code != quota.CodeLimiterUnavailable {
		t.Errorf("got %+v", d)
	}
}

// shortUsage answers fewer amounts than it was asked for.
type shortUsage struct{ UsageStore }

func (s *shortUsage) Usage(context.Context, quota.Subject, []quota.UsageKey, []string) ([]quota.Used, error) {
	return nil, nil
}

func TestSettleLevels(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(10, 100)
	h.records.levels["storage"] = 30 // set by an admin
	c := h.caller(t, alice)
	upload := applied(quota.Rule{Name: "upload", Spends: spend("storage", 50)})
	remove := func(amounts ...int64) {
		var rules []quota.Applied
		for i, n := range amounts {
			rules = append(rules, applied(quota.Rule{Name: fmt.Sprint("remove", i), Frees: spend("storage", n)}))
		}
		ticket := h.admit(t, c, rules...)
		ticket.Settle(t.Context(), Result{Status: 204, Fate: Answered})
	}
	net := func(want int64) {
		t.Helper()
		if n := h.used(t, "storage", quota.PeriodNone); n != want {
			t.Errorf("%d used, want %d", n, want)
		}
	}
	remove(10, 5) // of a level that is not known yet; named twice, freed once
	net(-10)
	h.admit(t, c, upload).Settle(t.Context(), ok200)
	net(40)
	if d := h.denied(t, c, upload); d.Status != 413 || d.Used != 70 || d.RetryAfter != 0 {
		t.Errorf("got %+v", d)
	}
	remove(1000)
	net(-30) // nothing is left of the 30
	h.admit(t, c, upload).Settle(t.Context(), Result{Status: 200, Fate: Unreached})
	net(-30)
	ticket := h.admit(t, c, applied(quota.Rule{Name: "remove", Frees: spend("storage", 9)}))
	ticket.Settle(t.Context(), Result{Status: 500, Fate: Answered})
	net(-30)

	// What was taken of a level is given back also where the level cannot be loaded.
	both := applied(quota.Rule{Name: "both", Spends: append(spend("jobs", 1), spend("storage", 5)...)})
	ticket = h.admit(t, c, both)
	h.records.onUsage = func() error { return errDown }
	_ = h.engine.Forget(t.Context(), alice) // does not fail
	ticket.Settle(t.Context(), Result{Fate: Unreached})
	h.records.onUsage = nil
	net(-30)
	if n := h.used(t, "jobs", quota.PeriodMonth); n != 0 || h.rt.Stats.RefundFailures.Load() != 0 {
		t.Errorf("%d used, %d failures told", n, h.rt.Stats.RefundFailures.Load())
	}
}

func TestSettleLateFrees(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.records.plan = limited(10, 100)
	h.records.levels["storage"] = 100
	rule := applied(quota.Rule{Name: "r", Frees: []quota.Metered{{Metric: "storage", Kind: quota.AmountPlaceholder, Text: "{x}"}}})
	config := rule.FreeAmounts
	ticket := h.admit(t, h.caller(t, alice), rule)
	ticket.ResolveFrees(func(m quota.Metered) int64 { return int64(len(m.Text)) })
	ticket.Settle(t.Context(), ok200)
	if n := h.used(t, "storage", quota.PeriodNone); n != -3 || config[0] != quota.AmountLate {
		t.Errorf("%d used, want -3; the config's amounts are %v", n, config)
	}
	// Nobody said how much: nothing.
	h.admit(t, h.caller(t, alice), rule).Settle(t.Context(), ok200)
	body := applied(quota.Rule{Name: "r", Frees: []quota.Metered{{Metric: "storage", Kind: quota.AmountRequestBytes}}})
	h.admit(t, h.caller(t, alice), body).Settle(t.Context(), Result{Status: 200, Fate: Answered, BodyBytes: 7})
	if n := h.used(t, "storage", quota.PeriodNone); n != -10 {
		t.Errorf("%d used, want -10", n)
	}
}

func TestCharts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.records.plan = limited(10, 100)
		c := h.caller(t, alice)
		settle := func(r Result, rules ...quota.Applied) { h.admit(t, c, rules...).Settle(t.Context(), r) }
		jobs := applied(quota.Rule{Name: "a", Spends: append(spend("jobs", 2), spend("storage", 50)...), RefundUnless: []int{2}})
		settle(ok200, jobs)
		settle(Result{Status: 500, Fate: Answered}, jobs)
		late := applied(quota.Rule{Name: "b", Spends: []quota.Metered{{Metric: "bytes", Kind: quota.AmountRequestBytes}}})
		settle(Result{Status: 201, Fate: Answered, BodyBytes: 9}, late)
		shadow := quota.Rule{Name: "c", Shadow: true, Require: []quota.Requirement{{Feature: "x"}}}
		settle(ok200, applied(shadow))
		shadow = quota.Rule{Name: "d", Shadow: true, Spends: spend("storage", 1000)}
		settle(ok200, applied(shadow))
		// A scope and a metric of the same name are one word, another name is a second one.
		limits := []quota.ScopeLimit{{Scope: "api", Base: quota.Rate{Requests: 100, Window: time.Hour}}}
		settle(ok200, applied(quota.Rule{Name: "e", Limits: limits, Spends: append(spend("calls", 3), spend("renders", 4)...)}))
		settle(ok200, applied(quota.Rule{Name: "f", Limits: limits, Spends: append(spend("calls", 5), spend("api", 6)...)}))
		anonymousCaller := Caller{Identity: Identity{Principal: anonymous, IP: "ip:unknown"}}
		h.admit(t, anonymousCaller, jobs).Settle(t.Context(), ok200)
		h.rt.Flush(t.Context())
		got := map[string][2]int64{}
		for _, u := range h.records.rollups {
			got[fmt.Sprintf("%s %s %d", u.Scope, u.Decision, u.StatusClass)] = [2]int64{u.Requests, u.Cost}
			if u.Hour%3600 != 0 || u.Account != alice {
				t.Errorf("got %+v", u)
			}
		}
		want := map[string][2]int64{
			"jobs admitted 2": {1, 2}, "jobs admitted 5": {1, 0}, "bytes admitted 2": {1, 9},
			"storage admitted 2": {1, 50}, "storage admitted 5": {1, 0},
			"c shadow_denied 2": {1, 0}, "storage shadow_denied 2": {1, 1000},
			"api admitted 2": {2, 3 + 6}, "calls admitted 2": {2, 3 + 5}, "renders admitted 2": {1, 4},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// An amount that no counter can hold is no outage: it would pass uncounted.
func TestAdmitRefusesWhatCountersCannotHold(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	overflow := func(times int) {
		h.engine.fail = func(call string) error {
			if call != "reserve" || times == 0 {
				return nil
			}
			times--
			return fmt.Errorf("reserving: %w", quota.ErrOverflow)
		}
	}
	enforced := applied(quota.Rule{Name: "r", Spends: spend("bytes", quota.MaxAmount)})
	trial := applied(quota.Rule{Name: "trial", Spends: spend("seconds", quota.MaxAmount), Shadow: true})
	overflow(1)
	if d := h.denied(t, h.caller(t, alice), enforced); d.Status != 400 || d.Code != quota.CodeBadRequest {
		t.Errorf("refused with %d %s, want 400 %s", d.Status, d.Code, quota.CodeBadRequest)
	}
	overflow(1)
	ticket := h.admit(t, h.caller(t, alice), trial)
	if n := len(ticket.Charges()); n != 0 {
		t.Errorf("%d charges of a rule in shadow mode that cannot be counted", n)
	}
	ticket.Discard()
	overflow(2)
	if d := h.denied(t, h.caller(t, alice), enforced, trial); d.Status != 400 {
		t.Errorf("refused with %d, want 400", d.Status)
	}
	if n := h.rt.Stats.CounterFailures.Load(); n != 0 {
		t.Errorf("%d failures of the counters, which are well", n)
	}
}

// Nor is it one while the records cannot tell what was used.
func TestAdmitRefusesWhatCountersCannotHoldUnloaded(t *testing.T) {
	t.Parallel()
	h, f := owing(t)
	f.all.Store(true)
	reserves := 0
	h.engine.fail = func(call string) error {
		if call == "reserve" {
			reserves++
		}
		if reserves < 2 { // the first finds that usage is not known
			return nil
		}
		return quota.ErrOverflow
	}
	if d := h.denied(t, h.caller(t, alice), applied(quota.Rule{Name: "r", Spends: spend("jobs", 1)})); d.Status != 400 {
		t.Errorf("refused with %d, want 400", d.Status)
	}
}
