package integration

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// jobsSite charges jobs as the default Caddyfile does.
const jobsSite = `	quota {
		rule jobs {
			match {
				method POST
				path /jobs
			}
			require user
			limit jobs 1000000/1h
			spend jobs
			refund_unless 2xx
		}
		rule api {
			limit api 60/1m
			spend api_calls
		}
	}
`

// roomy lifts the rates of the seed plans out of the way of a test of quotas.
func (g *gateway) roomy() {
	g.t.Helper()
	g.exec(`UPDATE subscription_plans SET rate_limits = '{}', rate_limit_multiplier = 100`)
	g.noticed()
}

func TestNewUserHasTheDefaultPlan(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	r := g.do("GET", "/items", access("newcomer")).want(t, 200)
	if got, want := r.Header.Get("RateLimit-Policy"), `"api";q=60;w=60, "api_calls/day";q=1000`; got != want {
		t.Errorf("RateLimit-Policy = %s, want %s", got, want)
	}
	if got, want := r.Header.Get("X-RateLimit-Remaining"), "59"; got != want {
		t.Errorf("X-RateLimit-Remaining = %s, want %s", got, want)
	}
}

func TestCreateJobRespectsQuota(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	g.roomy()
	for range 10 {
		g.do("POST", "/jobs", access("worker")).want(t, 200)
	}
	r := g.do("POST", "/jobs", access("worker")).want(t, 402)
	d := r.detail(t)
	for key, want := range map[string]any{
		"error": "quota_exceeded", "metric": "jobs", "current": 10.0, "limit": 10.0, "period": "month",
		"plan": "free", "upgrade_url": "https://app.example.com/pricing",
		"message":     "You have reached your monthly job limit",
		"decision_id": r.Header.Get("X-Quota-Decision-Id"),
	} {
		if d[key] != want {
			t.Errorf("detail.%s = %v, want %v", key, d[key], want)
		}
	}
	now := time.Now().UTC()
	reset := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
	if d["reset_at"] != reset {
		t.Errorf("detail.reset_at = %v, want %s", d["reset_at"], reset)
	}
	if n := b.Count(func(e gatetest.Entry) bool { return e.Method == "POST" }); n != 10 {
		t.Errorf("the backend saw %d jobs, want 10", n)
	}
	// A denial consumes nothing, of no counter.
	before := g.do("GET", "/items", access("worker")).Header.Get("X-RateLimit-Remaining")
	g.do("POST", "/jobs", access("worker")).want(t, 402)
	after := g.do("GET", "/items", access("worker")).Header.Get("X-RateLimit-Remaining")
	if a, b := number(t, before), number(t, after); b != a-1 {
		t.Errorf("X-RateLimit-Remaining went from %d to %d over a denial and one request", a, b)
	}
}

func TestUpgradeAndDowngradeKeepUsage(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	g.roomy()
	for range 10 {
		g.do("POST", "/jobs", access("climber")).want(t, 200)
	}
	g.do("POST", "/jobs", access("climber")).want(t, 402)
	g.subscribe("climber", "pro")
	g.noticed()
	r := g.do("POST", "/jobs", access("climber")).want(t, 200)
	if want := `"jobs/month";r=489`; !strings.Contains(r.Header.Get("RateLimit"), want) {
		t.Errorf("RateLimit = %s, want %s in it", r.Header.Get("RateLimit"), want)
	}
	g.subscribe("climber", "free")
	g.noticed()
	if d := g.do("POST", "/jobs", access("climber")).want(t, 402).detail(t); d["current"] != 11.0 {
		t.Errorf("detail.current = %v, want 11", d["current"])
	}
	g.subscribe("climber", "enterprise") // unlimited jobs
	g.noticed()
	g.do("POST", "/jobs", access("climber")).want(t, 200)
}

func TestMultiplierWithDifferentPlans(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule search {
			limit search 20/1m
		}
		rule api {
			limit api 7/1m
		}
	}
`))
	for plan, want := range map[string]string{
		"free":       `"search";q=20;w=60, "api";q=60;w=60`,
		"pro":        `"search";q=100;w=60, "api";q=300;w=60`,
		"enterprise": `"search";q=400;w=60, "api";q=1200;w=60`,
	} {
		g.subscribe("of-"+plan, plan)
		g.noticed()
		if got := g.do("GET", "/", access("of-"+plan)).Header.Get("RateLimit-Policy"); got != want {
			t.Errorf("%s: RateLimit-Policy = %s, want %s", plan, got, want)
		}
	}
	// Anonymous callers have no plan: base limits.
	if got, want := g.do("GET", "/", "").Header.Get("RateLimit-Policy"), `"search";q=20;w=60, "api";q=7;w=60`; got != want {
		t.Errorf("anonymous: RateLimit-Policy = %s, want %s", got, want)
	}
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		code, _ := strconv.Atoi(r.URL.Query().Get("status"))
		return gatetest.Answer{Status: code}
	})
	server := b.Serve(t)
	dead := gatetest.FreeAddr(t)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule jobs {
			match path /jobs*
			spend jobs
			refund_unless 2xx 3xx
		}
		rule never {
			match path /never*
			spend jobs
		}
	}
	handle /jobs/dead {
		reverse_proxy `+dead+`
	}
	handle {
		reverse_proxy `+strings.TrimPrefix(server.URL, "http://")+`
	}
}
`)
	user := access("refunded")
	for _, path := range []string{"/jobs?status=500", "/jobs?status=404", "/jobs?status=429", "/jobs/dead"} {
		g.do("POST", path, user)
	}
	left := func() string { return g.do("GET", "/jobs?status=404", user).Header.Get("RateLimit") }
	if got := left(); !strings.Contains(got, "r=9;") {
		t.Errorf("RateLimit = %s after four requests that were given back, want r=9 while one is open", got)
	}
	g.do("POST", "/jobs?status=302", user).want(t, 302)
	if got := left(); !strings.Contains(got, "r=8;") {
		t.Errorf("RateLimit = %s after a redirect, want r=8", got)
	}
	g.do("POST", "/never?status=500", user).want(t, 500)
	if got := left(); !strings.Contains(got, "r=7;") {
		t.Errorf("RateLimit = %s after a rule without refunds, want r=7", got)
	}
}

// What becomes of a request whose client has left nobody knows: were it given
// back, an aborted job would be a free one.
func TestChargeStaysWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	defer close(hold)
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		if r.Header.Get("X-Hold") != "" {
			return gatetest.Answer{Hold: hold}
		}
		return gatetest.Answer{Status: 404}
	})
	server := b.Serve(t)
	g := start(t, "", site(server.URL, jobsSite))
	g.roomy()
	user := access("leaving")
	ctx, leave := context.WithCancel(t.Context())
	left := g.begin(ctx, "POST", "/jobs", user, "X-Hold: 1")
	if err := b.Await(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("the client that left: %v", err)
	}
	if err := b.Await(t.Context(), 1, func(e gatetest.Entry) bool { return !e.Ended.IsZero() }); err != nil {
		t.Fatal(err)
	}
	// Each of these is given back after its answer, the first must not be. The
	// gateway settles shortly after its backend sees the end: a charge that is
	// given back would show within these.
	for range 20 {
		if got := g.do("POST", "/jobs", user).want(t, 404).Header.Get("RateLimit"); !strings.Contains(got, `"jobs/month";r=8;`) {
			t.Fatalf("RateLimit = %s after a client left, want r=8 while one is open", got)
		}
	}
}

// The client may say how much it will upload. Whatever it says, it is not let
// through uncounted.
func TestAbsurdAmountsAreDenied(t *testing.T) {
	t.Parallel()
	server := gatetest.NewBackend(nil).Serve(t)
	g := start(t, "", site(server.URL, `	quota {
		rule asked {
			match path /asked
			spend jobs {http.request.uri.query.n}
		}
	}
`))
	user := access("boasting")
	g.do("POST", "/asked?n=1", user).want(t, 200)
	const most = "9007199254740992" // 2^53
	g.do("POST", "/asked?n="+most, user).want(t, 402)
	g.do("POST", "/asked?n=9007199254740993", user).want(t, 400)
	g.subscribe("boasting", "enterprise") // unlimited jobs
	g.noticed()
	g.do("POST", "/asked?n="+most, user).want(t, 400)
	g.do("POST", "/asked?n=1", user).want(t, 200)
}

func TestStorageRisesAndFalls(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		if r.Method == http.MethodDelete {
			return gatetest.Answer{Header: http.Header{"X-Freed-Bytes": {r.URL.Query().Get("bytes")}}}
		}
		return gatetest.Answer{}
	})
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule upload {
			match method PUT
			require user
			spend storage_bytes request_bytes
			refund_unless 2xx
		}
		rule delete {
			match method DELETE
			free storage_bytes {http.response.header.X-Freed-Bytes}
		}
	}
`))
	g.exec(`UPDATE plan_quotas SET limit_value = 1000 WHERE metric = 'storage_bytes'`)
	g.noticed()
	put := func(size int, chunked bool) *reply {
		t.Helper()
		var body interface {
			Read([]byte) (int, error)
		} = bytes.NewReader(make([]byte, size))
		if chunked {
			body = struct{ *bytes.Reader }{bytes.NewReader(make([]byte, size))}
		}
		r, err := g.try(client(t), "PUT", "/file", access("hoarder"), body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put(600, false).want(t, 200)
	d := put(401, false).want(t, 402).detail(t)
	if d["metric"] != "storage_bytes" || d["current"] != 600.0 || d["period"] != "none" || d["reset_at"] != nil {
		t.Errorf("detail = %v", d)
	}
	put(399, true).want(t, 200) // of unknown length: charged as read
	put(2, false).want(t, 402)
	g.do("DELETE", "/file?bytes=500", access("hoarder")).want(t, 200)
	put(501, false).want(t, 200)
	put(1, false).want(t, 402)
	// More than there is frees what there is.
	g.do("DELETE", "/file?bytes=5000", access("hoarder")).want(t, 200)
	put(1000, false).want(t, 200)
	// A correction by hand lowers the level.
	eventually(t, patience, "the level is flushed", func() bool { return g.used(t, "hoarder", "storage_bytes", "none") == 1000 })
	g.exec(`INSERT INTO usage_levels (account_id, metric, value) VALUES ('hoarder', 'storage_bytes', 10)`)
	g.noticed()
	put(990, false).want(t, 200)
	put(1, false).want(t, 402)
}

// A deletion that is repeated under its key frees once, wherever it is counted.
func TestRepeatedDeletionFreesOnce(t *testing.T) {
	t.Parallel()
	for name, counters := range map[string]string{"memory": "memory", "redis": "redis " + gatetest.Redis(t).URL()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			global := strings.Replace(preamble, "quota {", "quota {\n\t\tcounters "+counters, 1)
			g := start(t, "", strings.Replace(site(gatetest.NewBackend(nil).Serve(t).URL, `	quota {
		rule upload {
			match method PUT
			spend storage_bytes request_bytes
		}
		rule delete {
			match method DELETE
			idempotent
			free storage_bytes 100
		}
	}
`), preamble, global, 1))
			user := access("tidy")
			r, err := g.try(client(t), "PUT", "/file", user, bytes.NewReader(make([]byte, 500)))
			if err != nil {
				t.Fatal(err)
			}
			r.want(t, 200)
			for range 3 {
				g.do("DELETE", "/file", user, "Idempotency-Key: one").want(t, 200)
			}
			g.do("DELETE", "/file", user, "Idempotency-Key: two").want(t, 200)
			g.do("DELETE", "/file", user).want(t, 200)
			eventually(t, patience, "300 of 500 are freed", func() bool { return g.used(t, "tidy", "storage_bytes", "none") == 200 })
		})
	}
}

func TestComputeSecondsAreChargedAtTheEnd(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule compute {
			spend compute_seconds response_seconds
		}
	}
`))
	g.exec(`UPDATE plan_quotas SET limit_value = 2 WHERE metric = 'compute_seconds'`)
	g.noticed()
	// A second begun is a second used; admitted while any is left.
	g.do("GET", "/", access("thinker")).want(t, 200)
	g.do("GET", "/", access("thinker")).want(t, 200)
	if d := g.do("GET", "/", access("thinker")).want(t, 402).detail(t); d["metric"] != "compute_seconds" || d["current"] != 2.0 {
		t.Errorf("detail = %v", d)
	}
}

func TestIdempotencyKeyIsChargedOnce(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule jobs {
			spend jobs
			idempotent
		}
	}
`))
	user := access("repeater")
	for range 20 {
		g.do("POST", "/jobs", user, "Idempotency-Key: one").want(t, 200)
	}
	g.do("POST", "/jobs", user, "Idempotency-Key: two").want(t, 200)
	g.do("POST", "/other", user, "Idempotency-Key: one").want(t, 200)
	r := g.do("POST", "/jobs", user).want(t, 200)
	if !strings.Contains(r.Header.Get("RateLimit"), "r=6;") {
		t.Errorf("RateLimit = %s, want r=6 after four charges", r.Header.Get("RateLimit"))
	}
	g.do("POST", "/jobs", access("somebody-else"), "Idempotency-Key: one").want(t, 200)
}

func TestShadowRulesNeverDeny(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule trial {
			limit trial 1/1h
			spend jobs
			require feature custom_models
			mode shadow
		}
	}
`))
	g.exec(`UPDATE plan_quotas SET limit_value = 1 WHERE metric = 'jobs'`)
	g.noticed()
	for range 5 {
		r := g.do("GET", "/", access("watched")).want(t, 200)
		if h := r.Header.Get("RateLimit"); h != "" {
			t.Errorf("RateLimit = %s for a shadow rule", h)
		}
	}
	eventually(t, patience, "usage is counted", func() bool { return g.used(t, "watched", "jobs", "month") == 5 })
}

func TestUsageIsWrittenAndSurvivesARestart(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	g.roomy()
	for range 7 {
		g.do("POST", "/jobs", access("steady")).want(t, 200)
	}
	g.stop()
	if n := g.used(t, "steady", "jobs", "month"); n != 7 {
		t.Fatalf("the records say %d jobs after the stop, want 7", n)
	}
	g.run()
	for range 3 {
		g.do("POST", "/jobs", access("steady")).want(t, 200)
	}
	g.do("POST", "/jobs", access("steady")).want(t, 402)
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%q is not a number", s)
	}
	return n
}
