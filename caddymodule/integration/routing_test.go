package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// spellings are ways to write the path of the job endpoint, and paths that look
// like it, as a client may put them on the request line.
var spellings = []string{
	"/jobs", "/jobs/", "/jobs?x=1", "/jobs?", "/jobs/?", "/%6aobs", "/%6Aobs", "/%6a%6f%62%73", "/jobs%2f", "/jobs%2F",
	"//jobs", "///jobs", "/./jobs", "/jobs/.", "/jobs/..", "/x/../jobs", "/x/%2e%2e/jobs", "/%2e/jobs", "/%2Fjobs", "/jobs//",
	"/JOBS", "/Jobs", "/jObs", "/jobs;a=b", "/jobs%3b", "/jobs%3Fx", "/jobs%20", "/%20jobs", "/jobs%23", "/jobs%25", "/jobs%252f",
	"/jobs%C2%A0", "/jobs%E2%80%A8", "/jobs%c0%af", "/jobs%ff", "/job%73", "/jobs+", "/jobs:8080", "/jobs.json", "/jobs/x", "/jobsx", "/%EF%BC%8Fjobs",
	"http://other.example/jobs", "http://other.example//jobs", "http://other.example", "/jobs%5c", "/%5cjobs",
}

// controls are spellings with a control character, which FastAPI may route where
// no matcher sees them: Python's $ matches before a final newline.
var controls = []string{"/jobs%0a", "/jobs%0A", "/jobs%0d", "/jobs%00", "/jobs%09", "/jobs%7f", "/%0ajobs"}

// However a client spells the path: FastAPI's own router decides what is a job,
// and each job that it makes, and no other request, is charged as one.
func TestSpellingsAgainstFastAPIsRouting(t *testing.T) {
	t.Parallel()
	f := startFastAPI(t, "")
	g, _ := startRoot(t, "", f.upstreams()...)
	u := g.register("speller")
	g.signIn(&u)
	g.subscribe(u.id, "enterprise")
	g.noticed()

	post := func(addr, target string) int {
		t.Helper()
		status, _ := rawTo(t, addr, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			target, addr, u.token))
		return status
	}
	jobs := func() int { return f.count(t, `SELECT count(*) FROM jobs WHERE user_id = $1::text::uuid`, u.id) }
	made := 0
	for _, target := range spellings {
		before := jobs()
		direct := post(f.dashboard, target)
		alone := jobs() - before
		got := post(g.addr, target)
		through := jobs() - before - alone
		// A proxy sends on the path of an absolute URL alone (RFC 9112, section 3.2.1), which the backend by itself does not.
		if absolute := strings.HasPrefix(target, "http:"); !absolute && (got != direct || through != alone) {
			t.Errorf("POST %s: %d and %d jobs through the gateway, %d and %d without it", target, got, through, direct, alone)
		}
		made += through
		if used := g.jobsUsed(u); used != made {
			t.Fatalf("POST %s: %d jobs were made and %d charged", target, made, used)
		}
	}
	if made < 4 {
		t.Errorf("only %d spellings made a job: the test shows nothing", made)
	}
	for _, target := range controls {
		before := jobs()
		if got := post(g.addr, target); got != http.StatusBadRequest {
			t.Errorf("POST %s: %d, want 400", target, got)
		}
		if jobs() != before || g.jobsUsed(u) != made {
			t.Errorf("POST %s made a job, or was charged", target)
		}
	}
}

// jobsUsed is what the gateway has charged of the month's jobs.
func (g *gateway) jobsUsed(a member) int {
	g.t.Helper()
	var answer struct {
		Usage struct {
			JobsCreated int `json:"jobs_created"`
		}
	}
	decode(g.t, g.do(http.MethodGet, "/v1/subscription/usage", a.token).want(g.t, http.StatusOK), &answer)
	return answer.Usage.JobsCreated
}

// Other methods than the rule's reach nothing that makes a job, whatever a
// client writes beside them.
func TestMethodsAgainstFastAPIsRouting(t *testing.T) {
	t.Parallel()
	f := startFastAPI(t, "")
	g, _ := startRoot(t, "", f.upstreams()...)
	u := g.register("methodist")
	g.signIn(&u)
	for _, tt := range []struct{ method, header string }{
		{"post", ""}, {"Post", ""}, {"GET", "X-HTTP-Method-Override: POST"}, {"PUT", "X-HTTP-Method: POST"}, {"GET", "X-Method-Override: POST"},
	} {
		request := fmt.Sprintf("%s /jobs HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\nConnection: close\r\n", tt.method, g.addr, u.token)
		if tt.header != "" {
			request += tt.header + "\r\n"
		}
		status, _ := g.raw(t, request+"\r\n")
		if made, used := f.count(t, `SELECT count(*) FROM jobs`), g.jobsUsed(u); made != used {
			t.Errorf("%s with %q: %d, %d jobs were made and %d charged", tt.method, tt.header, status, made, used)
		}
	}
	if got := g.do(http.MethodPost, "/jobs", u.token).want(t, http.StatusCreated); strings.TrimSpace(string(got.body)) == "" {
		t.Error("no job was made")
	}
}
