package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// explained asks the admin API, and fails unless it answers with the status.
func (g *gateway) explained(t testing.TB, status int, body string) *caddymodule.Explained {
	t.Helper()
	res, err := http.Post("http://"+g.admin+"/quota/explain", "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != status {
		t.Fatalf("explaining %s: %s: %s", body, res.Status, b)
	}
	var e caddymodule.Explained
	if status == http.StatusOK {
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatalf("explaining: %v: %s", err, b)
		}
	}
	return &e
}

// reached is how many requests have reached the backend.
func reached(b *gatetest.Backend) int { return b.Count(func(gatetest.Entry) bool { return true }) }

const explainSite = `	@judged not path /unjudged
	quota @judged {
		rule login {
			match {
				method POST
				path /v1/auth/login
			}
			by ip
			limit login 2/1h
			invalid_token anonymous
		}
		rule jobs {
			match {
				method POST
				path /jobs
			}
			require user
			limit jobs
			spend jobs
		}
		rule export {
			match {
				path /export
			}
			require feature advanced_analytics
		}
		rule team {
			match {
				path /team
			}
			by header X-Team
			limit team 1/1h
		}
		rule trial {
			match {
				path /trial
			}
			limit trial 1/1h
			mode shadow
		}
		rule upload {
			match {
				path /upload
			}
			spend storage_bytes request_bytes
		}
		rule api {
			match {
				not path /v1/auth/*
			}
			limit api 5/1m
			spend api_calls
		}
	}
`

// Whatever is asked for: what is explained is what then happens, and explaining
// neither takes anything nor reaches the backend.
func TestExplainSaysWhatHappens(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, explainSite))
	g.subscribe("payer", "pro")
	g.noticed()
	user, payer := access("user"), access("payer")
	expired := token(map[string]any{"sub": "user", "type": "access", "exp": 1})
	for i, tc := range []struct{ method, path, token, team string }{
		{"GET", "/items", "", ""}, {"GET", "/items", user, ""}, {"GET", "/items", expired, ""},
		{"POST", "/v1/auth/login", "", ""}, {"POST", "/v1/auth/login", expired, ""}, {"POST", "/v1/auth/login", user, ""},
		{"POST", "/jobs", "", ""}, {"POST", "/jobs", user, ""}, {"POST", "/jobs", payer, ""},
		{"GET", "/export", user, ""}, {"GET", "/export", payer, ""},
		{"GET", "/team", user, "red"}, {"GET", "/team", payer, "red"}, {"GET", "/team", payer, "blue"},
		{"GET", "/trial", user, ""}, {"GET", "/trial", user, ""},
		{"GET", "/unjudged", user, ""},
		{"GET", "/items", user, ""}, {"GET", "/items", user, ""}, {"GET", "/items", user, ""},
		{"GET", "/a%2Fb//c?x=%20", payer, ""},
	} {
		seen := reached(b)
		ask := fmt.Sprintf(`{"method":%q,"url":%q,"headers":{"X-Team":%q`, tc.method, "http://"+g.addr+tc.path, tc.team)
		if tc.token != "" {
			ask += fmt.Sprintf(`,"Authorization":["Bearer %s"]`, tc.token)
		}
		ask += `}}`
		first := g.explained(t, 200, ask)
		second := g.explained(t, 200, ask)
		if diff := cmp.Diff(withoutTime(first), withoutTime(second)); diff != "" {
			t.Fatalf("case %d: explaining has changed something (-first +second):\n%s", i, diff)
		}
		if n := reached(b); n != seen {
			t.Fatalf("case %d: explaining has sent %d requests to the backend", i, n-seen)
		}
		headers := []string{}
		if tc.team != "" {
			headers = append(headers, "X-Team: "+tc.team)
		}
		r := g.do(tc.method, tc.path, tc.token, headers...)
		want := 200
		if first.Denial != nil {
			want = first.Denial.Status
		}
		if first.Judged == (tc.path == "/unjudged") {
			t.Errorf("case %d: judged %v", i, first.Judged)
		}
		if r.StatusCode != want {
			t.Errorf("case %d: %s %s was explained as %+v (%+v), and answered with %d: %s",
				i, tc.method, tc.path, first, first.Denial, r.StatusCode, r.body)
		}
		if first.Judged && first.Admitted != (r.StatusCode == 200) {
			t.Errorf("case %d: admitted %v, status %d", i, first.Admitted, r.StatusCode)
		}
	}
}

// withoutTime drops what moves with the clock.
func withoutTime(e *caddymodule.Explained) *caddymodule.Explained {
	c := *e
	c.Counters = append([]caddymodule.ExplainedCounter(nil), e.Counters...)
	for i := range c.Counters {
		c.Counters[i].ResetSeconds = nil
	}
	if e.Denial != nil {
		d := *e.Denial
		d.RetryAfterSeconds = 0
		c.Denial = &d
	}
	return &c
}

func TestExplainNamesWhereALimitStands(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, explainSite))
	ask := func(path, token string) map[string]string {
		from := map[string]string{}
		e := g.explained(t, 200, fmt.Sprintf(
			`{"method":"POST","url":"http://%s%s","headers":{"Authorization":"Bearer %s","Content-Length":"7"}}`, g.addr, path, token))
		for _, c := range e.Counters {
			from[c.Policy] = c.LimitFrom
		}
		return from
	}
	want := map[string]string{
		"api": "plan", "jobs": "plan", "jobs/month": "plan", "api_calls/day": "plan", "api_calls/month": "none",
	}
	if diff := cmp.Diff(want, ask("/jobs", access("user"))); diff != "" {
		t.Errorf("limits of /jobs stand in (-want +got):\n%s", diff)
	}
	if got := ask("/trial", access("user"))["trial"]; got != "base" {
		t.Errorf("the limit of trial stands in %s, want base", got)
	}
	if got := ask("/v1/auth/login", access("user"))["login"]; got != "base" {
		t.Errorf("the limit of login by ip stands in %s, want base: a plan's never applies", got)
	}
	if got := ask("/upload", access("user"))["storage_bytes/none"]; got != "plan" {
		t.Errorf("the limit of storage stands in %s, want plan", got)
	}
}

func TestExplainRefusesBadQuestions(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, explainSite))
	for _, body := range []string{
		``, `{`, `[]`, `{"url":"items"}`, `{"url":"ftp://x/"}`, `{"url":"http:///x"}`, `{"url":"/","method":"A B"}`,
		`{"url":"/","remote_ip":"here"}`, `{"url":"/","listen":":1"}`, `{"url":"/","nonsense":1}`,
		`{"url":"/","headers":{"a b":"c"}}`, `{"url":"/","headers":{"A":"b\r\nC: d"}}`, `{"url":"/","headers":{"Host":["a","b"]}}`,
		`{"url":"/","headers":{"Content-Length":"-1"}}`, `{"url":"/","headers":{"A":1}}`, `{"url":"/%zz"}`,
	} {
		g.explained(t, http.StatusBadRequest, body)
	}
	if res := g.adminDo(t, "GET", "/quota/explain"); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET /quota/explain: %s, want 405", res.Status)
	}
	if n := reached(b); n != 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

// adminDo sends a request without a body to the admin API.
func (g *gateway) adminDo(t testing.TB, method, path string) *reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &reply{res, b}
}

func TestAdminStatusAndCache(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, explainSite))
	g.do("GET", "/items", access("user")).want(t, 200)
	g.do("GET", "/items", access("user")).want(t, 200)
	var st caddymodule.Status
	if err := json.Unmarshal(g.adminDo(t, "GET", "/quota/status").want(t, 200).body, &st); err != nil {
		t.Fatal(err)
	}
	if st.Version == "" || st.Caddy == "" || st.Go == "" || st.AppliedChange <= 0 {
		t.Errorf("versions or applied change are missing: %+v", st)
	}
	if st.Cache.Entries != 1 || st.Cache.Hits < 1 || st.Cache.Misses != 1 {
		t.Errorf("cache %+v, want one entry, one miss and a hit", st.Cache)
	}
	if st.Failures != (caddymodule.FailureStatus{}) || st.LastFault != nil {
		t.Errorf("failures %+v, last fault %+v, want none", st.Failures, st.LastFault)
	}
	g.adminDo(t, "DELETE", "/quota/cache").want(t, 200)
	g.do("GET", "/items", access("user")).want(t, 200)
	if err := json.Unmarshal(g.adminDo(t, "GET", "/quota/status").want(t, 200).body, &st); err != nil {
		t.Fatal(err)
	}
	if st.Cache.Misses != 2 {
		t.Errorf("%d misses after the cache was dropped, want 2", st.Cache.Misses)
	}
	for _, tc := range []struct{ method, path string }{{"POST", "/quota/status"}, {"GET", "/quota/cache"}} {
		if r := g.adminDo(t, tc.method, tc.path); r.StatusCode != 405 || r.Header.Get("Allow") == "" {
			t.Errorf("%s %s: %s, Allow %q, want 405", tc.method, tc.path, r.Status, r.Header.Get("Allow"))
		}
	}
}

// A config without Quotagate says so.
func TestAdminWithoutTheApp(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, explainSite))
	g.write("{\n\tadmin {$ADMIN}\n\tpersist_config off\n}\nhttp://:{$PORT} {\n\tquota_health\n\trespond 204\n}\n")
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	if r := g.adminDo(t, "GET", "/quota/status"); r.StatusCode != 404 {
		t.Errorf("GET /quota/status: %s, want 404", r.Status)
	}
	if got := string(g.do("GET", "/readyz", "").want(t, 200).body); got != `{"status":"ready","checks":{}}`+"\n" {
		t.Errorf("/readyz: %s", got)
	}
}
