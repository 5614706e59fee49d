package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent = "traceparent: 00-" + traceID + "-00f067aa0ba902b7-01" // W3C Trace Context, section 3.2
)

// What a client says of its trace reaches the backend as it is.
func TestTraceContextPasses(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, "\tquota {\n\t\trule api {\n\t\t\tlimit api 9/1m\n\t\t}\n\t}\n"))
	sent := []string{traceparent, "tracestate: congo=t61rcWkgMzE", "baggage: userId=alice"}
	g.do(http.MethodGet, "/", access("u"), sent...).want(t, http.StatusOK)
	got := b.Entries()[0].Header
	for _, h := range sent {
		name, value, _ := strings.Cut(h, ": ")
		if got.Get(name) != value {
			t.Errorf("%s: %q at the backend, want %q", name, got.Get(name), value)
		}
	}
}

// With Caddy's tracing the gateway is a span of the client's trace, and a denial
// can be found by it.
func TestTracingKnowsDenials(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, "\ttracing\n\tquota {\n\t\trule api {\n\t\t\tlimit api 1/1h\n\t\t}\n\t}\n"))
	g.do(http.MethodGet, "/", "", traceparent).want(t, http.StatusOK)
	at := b.Entries()[0].Header.Get("Traceparent")
	if !strings.Contains(at, traceID) || "traceparent: "+at == traceparent {
		t.Errorf("traceparent %q at the backend, want a span of the gateway in the client's trace", at)
	}
	g.do(http.MethodGet, "/", "", traceparent).want(t, http.StatusTooManyRequests)
	eventually(t, patience, "the denial is in the log with its trace", func() bool {
		return strings.Contains(g.logged(), `"trace_id":"`+traceID+`"`)
	})
}
