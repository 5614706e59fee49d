package gate

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// Whatever the state of counters and records: Explain says what Admit then
// does, and takes nothing.
func TestExplainSaysWhatAdmitDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHarness(t)
		h.records.change(alice, func(e *quota.Entitlement) {
			e.Plan = &quota.Plan{
				Name: "p", MultiplierPct: 100,
				Quotas: map[string]quota.Quota{
					"jobs":  {Limit: rapid.Int64Range(0, 3).Draw(rt, "jobs"), Period: quota.PeriodMonth, Status: 402},
					"calls": {Limit: rapid.Int64Range(0, 3).Draw(rt, "calls"), Period: quota.PeriodDay, Status: 429},
				},
			}
		})
		outage := rapid.SampledFrom([]string{"", "engine", "records"}).Draw(rt, "outage")
		if outage == "records" {
			// What was loaded before is known, the rest is not.
			rules := drawRules(rt)
			if ticket, err := h.gate.Admit(t.Context(), h.caller(t, alice), rules, Policy{}); err == nil {
				ticket.Settle(t.Context(), Result{Status: 200, Fate: Answered})
			} else if ticket != nil {
				ticket.Discard()
			}
			h.records.onUsage = func() error { return errDown }
		}
		callers := []Caller{h.caller(t, alice), {Identity: Identity{Principal: anonymous, IP: "ip:192.0.2.1/32"}}}
		for range rapid.IntRange(1, 8).Draw(rt, "requests") {
			switch {
			case outage == "engine" && rapid.Bool().Draw(rt, "down"):
				h.engine.fail = func(call string) error {
					if call == "reserve" || call == "peek" {
						return errDown
					}
					return nil
				}
			default:
				h.engine.fail = nil
			}
			c := rapid.SampledFrom(callers).Draw(rt, "caller")
			if rapid.Bool().Draw(rt, "invalid") {
				c.Invalid = &InvalidError{Reason: "drawn"}
				c.Principal, c.Entitlement = anonymous, nil
			}
			rules := drawRules(rt)
			site := Policy{DenyAnonymous: rapid.Bool().Draw(rt, "deny anonymous")}
			first := h.gate.Explain(t.Context(), c, rules, site)
			second := h.gate.Explain(t.Context(), c, rules, site)
			// Waits run out while the test runs.
			waits := cmpopts.IgnoreFields(quota.Outcome{}, "Wait")
			if diff := cmp.Diff(first.Decision.Outcomes, second.Decision.Outcomes, waits); diff != "" {
				rt.Fatalf("explaining has taken something (-first +second):\n%s", diff)
			}
			ticket, err := h.gate.Admit(t.Context(), c, rules, site)
			if got, want := verdict(first.Denial), verdictOf(rt, err); got != want {
				rt.Fatalf("explained as %s, judged as %s", got, want)
			}
			switch {
			case err == nil:
				ticket.Settle(t.Context(), Result{Status: 200, Fate: Answered})
			case ticket != nil:
				ticket.Discard()
			}
		}
	})
}

func drawRules(rt *rapid.T) []quota.Applied {
	var rules []quota.Applied
	for i := range rapid.IntRange(0, 3).Draw(rt, "rules") {
		r := quota.Rule{
			Name: fmt.Sprintf("rule%d", i), Shadow: rapid.Bool().Draw(rt, "shadow"),
			DenyOnOutage:          rapid.Bool().Draw(rt, "deny on outage"),
			InvalidTokenAnonymous: rapid.Bool().Draw(rt, "invalid anonymous"),
		}
		if rapid.Bool().Draw(rt, "limit") {
			r.Limits = []quota.ScopeLimit{{Scope: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "scope"), Base: quota.Rate{Requests: 2, Window: time.Hour}}}
		}
		if rapid.Bool().Draw(rt, "spend") {
			r.Spends = spend(rapid.SampledFrom([]string{"jobs", "calls", "other"}).Draw(rt, "metric"), rapid.Int64Range(0, 2).Draw(rt, "amount"))
		}
		if rapid.Bool().Draw(rt, "require") {
			r.Require = []quota.Requirement{{User: true}}
		}
		rules = append(rules, applied(r))
	}
	return rules
}

func verdictOf(rt *rapid.T, err error) string {
	if err == nil {
		return verdict(nil)
	}
	d, ok := err.(*quota.Denial) //nolint:errorlint // nothing wraps it
	if !ok {
		rt.Fatalf("admitting: %v", err)
	}
	return verdict(d)
}

func verdict(d *quota.Denial) string {
	if d == nil {
		return "admitted"
	}
	return fmt.Sprintf("%d %s rule %q scope %q metric %q used %d policies %v", d.Status, d.Code, d.Rule, d.Scope, d.Metric, d.Used, d.Policies)
}
