package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// pinged are records and counters that can only be pinged.
type pinged struct {
	Records
	ping func(context.Context) error
	n    atomic.Int64
}

func (p *pinged) Ping(ctx context.Context) error {
	p.n.Add(1)
	return p.ping(ctx)
}

type pingedCounters struct {
	Counters
	*pinged
}

func (p pingedCounters) Ping(ctx context.Context) error { return p.pinged.Ping(ctx) }

func well(context.Context) error { return nil }

// pingedApp is an app over dependencies that can only be pinged; gateErr is why
// its gate could not be opened.
func pingedApp(records, counters *pinged, gateErr error) *App {
	rt := &runtime{
		records: &resource[Records]{open: func() (Records, error) { return records, nil }},
		engine:  &resource[Counters]{open: func() (Counters, error) { return pingedCounters{pinged: counters}, nil }},
		err:     gateErr,
	}
	rt.once.Do(func() {})
	return &App{runtime: rt}
}

func newHealth() (*Health, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	log := zap.New(core)
	return &Health{ctx: caddy.Context{}, log: log, probe: newProbe(log)}, logs
}

func TestHealthReport(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	fail := func(context.Context) error { return errors.New("dial postgres://quota:hunter2@db: refused") }
	ok := Check{Status: statusOK}
	for _, tc := range []struct {
		name              string
		records, counters func(context.Context) error
		gate              error
		want              Report
	}{
		{"ready", well, well, nil, Report{statusReady, map[string]Check{"records": ok, "counters": ok}}},
		{"records fail", fail, well, nil, Report{statusDegraded, map[string]Check{
			"records": {statusDegraded, "records report an error, which is in the log"}, "counters": ok,
		}}},
		{"counters hang", well, hang, nil, Report{statusDegraded, map[string]Check{
			"records": ok, "counters": {statusDegraded, "counters do not answer within 1s"},
		}}},
		{"both hang", hang, hang, nil, Report{statusDegraded, map[string]Check{
			"records":  {statusDegraded, "records do not answer within 1s"},
			"counters": {statusDegraded, "counters do not answer within 1s"},
		}}},
		{"no gate", well, well, errors.New("secret"), Report{statusFailed, map[string]Check{
			"gate": {statusFailed, "the gate could not be opened"},
		}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h, _ := newHealth()
				began := time.Now()
				got := h.judge(pingedApp(&pinged{ping: tc.records}, &pinged{ping: tc.counters}, tc.gate))
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("report (-want +got):\n%s", diff)
				}
				if took := time.Since(began); took > probeTimeout {
					t.Errorf("it took %s, want %s at most", took, probeTimeout)
				}
			})
		})
	}
}

// However often it is asked, also at once, each dependency is pinged once a second.
func TestHealthPingsSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHealth()
		records, counters := &pinged{ping: well}, &pinged{ping: well}
		app := pingedApp(records, counters, nil)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { h.judge(app) })
		}
		wg.Wait()
		if n, m := records.n.Load(), counters.n.Load(); n != 1 || m != 1 {
			t.Errorf("%d and %d pings, want one of each", n, m)
		}
		time.Sleep(probeTTL) // the bubble's clock
		h.judge(app)
		if n := records.n.Load(); n != 2 {
			t.Errorf("%d pings after %s, want 2", n, probeTTL)
		}
	})
}

// A ping that ignores its context holds up nobody, and is not heaped up.
func TestHealthOutlivesADeafPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHealth()
		release := make(chan struct{})
		deaf := &pinged{ping: func(context.Context) error { <-release; return nil }}
		app := pingedApp(deaf, &pinged{ping: well}, nil)
		for range 5 {
			if got := h.judge(app).Checks["records"]; got.Status != statusDegraded {
				t.Errorf("records are %+v, want degraded", got)
			}
			time.Sleep(probeTTL)
		}
		if n := deaf.n.Load(); n != 1 {
			t.Errorf("%d pings, want the one that hangs", n)
		}
		close(release)
		synctest.Wait()
		if got := h.judge(app).Status; got != statusReady {
			t.Errorf("status %s once it answers, want ready", got)
		}
	})
}

// The log has what the answer hides, once for each change.
func TestHealthLogsChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, logs := newHealth()
		failing := errors.New("connection refused")
		records := &pinged{ping: func(context.Context) error { return failing }}
		app := pingedApp(records, &pinged{ping: well}, nil)
		for range 3 {
			h.judge(app)
			time.Sleep(probeTTL)
		}
		failing = nil
		h.judge(app)
		var got []string
		for _, e := range logs.All() {
			got = append(got, e.Message)
		}
		want := []string{"a dependency is failing", "a dependency is well again"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

// Without an app there is nothing to be degraded, and no app is made.
func TestHealthPaths(t *testing.T) {
	t.Parallel()
	h, _ := newHealth()
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusTeapot)
		return nil
	})
	for _, tc := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/livez", 200, `{"status":"ok"}`},
		{"HEAD", "/livez", 200, ``},
		{"GET", "/readyz", 200, `{"status":"ready","checks":{}}`},
		{"HEAD", "/readyz", 200, ``},
		{"POST", "/livez", 418, ``},
		{"GET", "/livez/", 418, ``},
		{"GET", "/", 418, ``},
	} {
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil), next); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(w.Body.String()); w.Code != tc.status || got != tc.body {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, w.Code, got, tc.status, tc.body)
		}
		if got := w.Header().Get("Cache-Control"); tc.status == 200 && got != "no-store" {
			t.Errorf("%s %s: Cache-Control %q, want no-store", tc.method, tc.path, got)
		}
	}
}
