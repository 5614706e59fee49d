package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const tightSite = `	quota {
		rule tight {
			limit tight 2/1s
		}
	}
`

func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, tightSite))
	user := access("patient")
	g.do("GET", "/", user).want(t, 200)
	g.do("GET", "/", user).want(t, 200)
	r := g.do("GET", "/", user).want(t, 429)
	wait := number(t, r.Header.Get("Retry-After"))
	if wait < 1 || wait > 2 {
		t.Fatalf("Retry-After = %d for a window of a second", wait)
	}
	if d := r.detail(t); d["retry_after"] != float64(wait) {
		t.Errorf("detail.retry_after = %v, want %d", d["retry_after"], wait)
	}
	<-time.After(time.Duration(wait) * time.Second) // that waiting helps is what is tested
	g.do("GET", "/", user).want(t, 200)
}

func TestProblemDetailsOnRequest(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, tightSite))
	for range 3 {
		g.do("GET", "/", access("p"))
	}
	r := g.do("GET", "/", access("p"), "Accept: application/problem+json").want(t, 429)
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type = %s", got)
	}
	var p map[string]any
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	if p["type"] != "https://iana.org/assignments/http-problem-types#quota-exceeded" || p["status"] != 429.0 {
		t.Errorf("problem = %s", r.body)
	}
	if vp, _ := p["violated-policies"].([]any); len(vp) != 1 || vp[0] != "tight" {
		t.Errorf("violated-policies = %v", p["violated-policies"])
	}
	if !strings.Contains(strings.Join(r.Header.Values("Vary"), ","), "Accept") {
		t.Errorf("Vary = %v", r.Header.Values("Vary"))
	}
}

func TestErrorsPassToHandleErrors(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule tight {
			limit tight 1/1h
		}
		errors pass
	}
	handle_errors {
		respond "{err.status_code} by {quota.rule} for {http.auth.user.id} on {quota.plan}"
	}
	reverse_proxy `+strings.TrimPrefix(b.Serve(t).URL, "http://")+`
}
`)
	g.do("GET", "/", access("p")).want(t, 200)
	r := g.do("GET", "/", access("p")).want(t, 429)
	if got, want := string(r.body), "429 by tight for p on free"; got != want {
		t.Errorf("body %q, want %q", got, want)
	}
	if r.Header.Get("Retry-After") == "" || r.Header.Get("RateLimit") == "" {
		t.Errorf("headers %v", r.Header)
	}
	g.do("GET", "/", "").want(t, 200)
	r = g.do("GET", "/", "").want(t, 429)
	if got, want := string(r.body), "429 by tight for  on anonymous"; got != want {
		t.Errorf("body %q for an anonymous caller, want %q", got, want)
	}
}

// Unless log_subjects is on, no line names a user: neither that of a denial nor
// that of Caddy's access log, which has a field for it.
func TestLogsNameNobodyUnlessAsked(t *testing.T) {
	t.Parallel()
	const logged = `	log
	quota {
		rule tight {
			limit tight 1/1h
		}
	}
	header {
		defer
		X-User {http.auth.user.id}
	}
`
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprintf("log_subjects=%t", on), func(t *testing.T) {
			t.Parallel()
			config := site(gatetest.NewBackend(nil).Serve(t).URL, logged)
			if on {
				config = strings.Replace(config, "upgrade_url", "log_subjects on\n\t\tupgrade_url", 1)
			}
			g := start(t, "", config)
			if got := g.do("GET", "/", access("somebody")).want(t, 200).Header.Get("X-User"); got != "somebody" {
				t.Errorf("{http.auth.user.id} = %q", got)
			}
			g.do("GET", "/", access("somebody")).want(t, 429)
			g.stop()
			log := g.logged()
			if n := strings.Count(log, `"handled request"`); n != 2 || !strings.Contains(log, `"request denied"`) {
				t.Fatalf("%d lines in the access log, want 2, and one of the denial:\n%s", n, log)
			}
			for _, text := range []string{`"user_id":"somebody"`, `"subject":"user:somebody"`} {
				if strings.Contains(log, text) != on {
					t.Errorf("%s in the log: %t, want %t:\n%s", text, !on, on, log)
				}
			}
		})
	}
}

// What is admitted is told what is left also where no handler writes a header:
// the backend cannot be reached, a handler fails, or there is none.
func TestHeadersWhereNothingIsWritten(t *testing.T) {
	t.Parallel()
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule api {
			limit calls 100/1h
		}
	}
	handle /unreachable {
		reverse_proxy `+gatetest.FreeAddr(t)+`
	}
	handle /missing {
		root * {$DIR}
		file_server
	}
	handle /failing {
		error 418
	}
	handle /passed {
		error 404
	}
	handle_errors 404 {
		respond "not here" 404
	}
}
`)
	for path, status := range map[string]int{"/unreachable": 502, "/missing": 404, "/failing": 418, "/passed": 404, "/nothing": 200} {
		r := g.do("GET", path, access("p")).want(t, status)
		if got, want := r.Header.Values("RateLimit-Policy"), `"calls";q=100;w=3600`; len(got) != 1 || got[0] != want {
			t.Errorf("%s: RateLimit-Policy = %q, want %s", path, got, want)
		}
		if len(r.Header.Values("RateLimit")) != 1 || len(r.Header.Values("X-RateLimit-Remaining")) != 1 {
			t.Errorf("%s: headers %v", path, r.Header)
		}
	}
}

func TestBackendsOwnHeadersWin(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule tight {
			limit tight 5/1h
		}
	}
	header X-Quota-Left "{quota.remaining.tight}"
	reverse_proxy `+strings.TrimPrefix(b.Serve(t).URL, "http://")+`
}
`)
	r := g.do("GET", "/", access("p")).want(t, 200)
	if got := r.Header.Get("RateLimit"); got != `"tight";r=4;t=3600` {
		t.Errorf("RateLimit = %s", got)
	}
	b.Answer(nil)
}

func TestReloadKeepsCountersAndMetrics(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule tight {
			limit tight 10/1h
			spend jobs
		}
	}
`))
	for range 5 {
		g.do("GET", "/", access("r")).want(t, 200)
		if err := g.reload(); err != nil {
			t.Fatal(err)
		}
	}
	r := g.do("GET", "/", access("r")).want(t, 200)
	if got := r.Header.Get("RateLimit"); !strings.HasPrefix(got, `"tight";r=4;`) || !strings.Contains(got, `"jobs/month";r=4;`) {
		t.Errorf("RateLimit = %s after six requests and five reloads", got)
	}
	m := g.metric(t, `quotagate_decisions_total{outcome="admitted",plan="free",rule="tight",scope="tight"}`)
	if m != "6" {
		t.Errorf("decisions = %s, want 6", m)
	}
}

// metric is the value of one series.
func (g *gateway) metric(t testing.TB, series string) string {
	t.Helper()
	_, body := g.adminGet(t, "/metrics")
	for line := range strings.SplitSeq(body, "\n") {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return rest
		}
	}
	t.Fatalf("no series %s in\n%s", series, body)
	return ""
}
