package integration

import (
	"encoding/json"
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
