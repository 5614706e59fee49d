package gate

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// constantEngine admits everything at no cost, so that only the gate is measured.
type constantEngine struct{ *fakeEngine }

func (constantEngine) Reserve(_ context.Context, cs []quota.Charge, d *quota.Decision) error {
	d.Reset(len(cs))
	for i := range cs {
		d.Outcomes[i] = quota.Outcome{Used: cs[i].Cost, Charged: cs[i].Cost}
	}
	return nil
}

func benchHarness(b testing.TB) (*harness, []quota.Applied) {
	h := newHarness(b, func(o *Options) {
		o.Engine = constantEngine{newFakeEngine()}
		o.TTL = time.Hour
	})
	h.gate = New(Config{
		Runtime: h.rt, Prefix4: 32, Prefix6: 64,
		Verifiers: []Verifier{says(&quota.Principal{Subject: alice}, nil)},
	})
	return h, []quota.Applied{
		applied(quota.Rule{Name: "api", Limits: []quota.ScopeLimit{{Scope: "api"}}}),
		applied(quota.Rule{Name: "jobs", Spends: spend("api_calls", 1), RefundUnless: []int{2}}),
	}
}

// BenchmarkAdmit is one admitted request of a cached account with three charges.
func BenchmarkAdmit(b *testing.B) {
	h, rules := benchHarness(b)
	c := h.caller(b, alice)
	ctx := b.Context()
	if ticket := h.admit(b, c, rules...); len(ticket.Charges()) != 3 {
		b.Fatalf("%d charges, want 3", len(ticket.Charges()))
	}
	b.ReportAllocs()
	for b.Loop() {
		ticket, err := h.gate.Admit(ctx, c, rules, Policy{})
		if err != nil {
			b.Fatal(err)
		}
		ticket.Settle(ctx, ok200)
	}
}

// BenchmarkRequest is BenchmarkAdmit with what comes before it.
func BenchmarkRequest(b *testing.B) {
	h, rules := benchHarness(b)
	r := httptest.NewRequest("GET", "/v1/models", nil)
	r.Header.Set("Connection", "keep-alive")
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		id, err := h.gate.Identify(r, "192.0.2.1")
		if err != nil {
			b.Fatal(err)
		}
		c, err := h.gate.Resolve(ctx, id, r)
		if err != nil {
			b.Fatal(err)
		}
		ticket, err := h.gate.Admit(ctx, c, rules, Policy{})
		if err != nil {
			b.Fatal(err)
		}
		ticket.Settle(ctx, ok200)
	}
}

func BenchmarkEntitlementHit(b *testing.B) {
	h, _ := benchHarness(b)
	h.get(b, alice)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.rt.Entitlements.Get(b.Context(), alice, "")
		}
	})
}

// The figures of the benchmark are a promise: a request that is admitted from
// the cache allocates nothing here.
func TestAdmitAllocatesNothing(t *testing.T) {
	h, rules := benchHarness(t)
	c := h.caller(t, alice)
	ctx := t.Context()
	got := testing.AllocsPerRun(2000, func() {
		ticket, err := h.gate.Admit(ctx, c, rules, Policy{})
		if err != nil {
			t.Fatal(err)
		}
		ticket.Settle(ctx, ok200)
	})
	if got > 0 && !raceEnabled {
		t.Errorf("%v allocations, want none", got)
	}
}
