package gate

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is a Runtime over fakes, not started, and a Gate on it.
type harness struct {
	engine  *fakeEngine
	records *fakeRecords
	rt      *Runtime
	gate    *Gate
	// principals of get, one for each subject, as a verifier shares them.
	principals sync.Map
}

func newHarness(t testing.TB, change ...func(*Options)) *harness {
	t.Helper()
	h := &harness{engine: newFakeEngine(), records: newFakeRecords()}
	o := Options{
		Loader: h.records, Bus: h.records, Usage: h.records, Engine: h.engine,
		Fallback: func(s quota.Subject) *quota.Entitlement {
			return &quota.Entitlement{Account: s, Version: fallbackVersion}
		},
		TTL: time.Minute, Stale: 10 * time.Minute, CacheSize: 1000, Log: zap.NewNop(),
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if h.rt, err = NewRuntime(o); err != nil {
		t.Fatal(err)
	}
	h.rt.Judge(true)
	h.gate = New(Config{Runtime: h.rt, Prefix4: 32, Prefix6: 64, Log: zap.NewNop()})
	return h
}

// fallbackVersion marks an entitlement that nobody loaded.
const fallbackVersion = -1

// start starts the runtime, and stops it at the end of the test or bubble.
func (h *harness) start(t testing.TB) (stop func()) {
	t.Helper()
	h.rt.Start(t.Context())
	return func() { h.rt.Stop(context.WithoutCancel(t.Context())) }
}

const alice = quota.Subject("user:alice")

// caller resolves a user as a request does.
func (h *harness) caller(t testing.TB, s quota.Subject) Caller {
	t.Helper()
	c, err := h.gate.Resolve(t.Context(), Identity{Principal: &quota.Principal{Subject: s}, IP: "ip:192.0.2.1/32"},
		httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// applied makes a matched rule with its constant amounts.
func applied(r quota.Rule) quota.Applied {
	a := quota.Applied{Rule: &r}
	amounts := func(ms []quota.Metered) []int64 {
		out := make([]int64, len(ms))
		for i, m := range ms {
			if out[i] = m.Constant; m.Kind != quota.AmountConstant {
				out[i] = quota.AmountLate
			}
		}
		return out
	}
	a.SpendAmounts, a.FreeAmounts = amounts(r.Spends), amounts(r.Frees)
	return a
}

func spend(metric string, n int64) []quota.Metered {
	return []quota.Metered{{Metric: metric, Constant: n}}
}

// admit admits or fails the test.
func (h *harness) admit(t testing.TB, c Caller, rules ...quota.Applied) *Ticket {
	t.Helper()
	ticket, err := h.gate.Admit(t.Context(), c, rules, Policy{})
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// denied expects a denial and discards its ticket.
func (h *harness) denied(t testing.TB, c Caller, rules ...quota.Applied) *quota.Denial {
	t.Helper()
	ticket, err := h.gate.Admit(t.Context(), c, rules, Policy{})
	d := asDenial(t, err)
	if ticket != nil {
		ticket.Discard()
	}
	return d
}

func asDenial(t testing.TB, err error) *quota.Denial {
	t.Helper()
	d, ok := err.(*quota.Denial) //nolint:errorlint // nothing wraps it
	if !ok {
		t.Fatalf("got %v, want a denial", err)
	}
	return d
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
