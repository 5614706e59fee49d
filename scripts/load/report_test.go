package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const policy = `"api";q=2;w=10, "api_calls/day";q=1000`

// at is a request that was sent and answered at these seconds.
func at(user int, begun, end float64, status int) sent {
	start := time.Unix(1_700_000_000, 0)
	seconds := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	return sent{user: user, begun: seconds(begun), end: seconds(end), status: status, policy: policy}
}

func TestOverAdmitted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sents []sent
		want  int
	}{
		"as many as the limit":          {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200)}, 0},
		"one more within the window":    {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(0, 9, 9.9, 200)}, 1},
		"one more, at its end":          {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(0, 9.5, 10, 200)}, 0},
		"perhaps admitted later":        {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(0, 9, 30, 200)}, 0},
		"another user":                  {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(1, 2, 3, 200)}, 0},
		"denied":                        {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(0, 2, 3, 429), at(0, 2, 3, 402)}, 0},
		"an error of the backend":       {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 500), at(0, 2, 3, 200)}, 1},
		"no answer":                     {[]sent{at(0, 0, 1, 200), at(0, 1, 2, 200), at(0, 2, 3, 0)}, 0},
		"slow ones are answered last":   {[]sent{at(0, 0, 8, 200), at(0, 7, 7.1, 200), at(0, 7, 7.2, 200)}, 1},
		"perhaps admitted earlier":      {[]sent{at(0, -5, 8, 200), at(0, 7, 7.1, 200), at(0, 7, 7.2, 200)}, 0},
		"in the order of other clients": {[]sent{at(0, 9, 9.5, 200), at(0, 0, 1, 200), at(0, 1, 2, 200)}, 1},
	} {
		r, err := newReport(tt.sents, time.Second)
		if err != nil || r.over != tt.want {
			t.Errorf("%s: %d over, %v, want %d", name, r.over, err, tt.want)
		}
		if failed := r.verdict() != nil; failed != (tt.want > 0) {
			t.Errorf("%s: %v", name, r.verdict())
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r, err := newReport([]sent{at(0, 0, 1, 200), at(0, 1, 1.5, 200), at(0, 2, 2.1, 429), at(1, 0, 3, 0)}, 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	r.print(&b)
	for _, want := range []string{"4 requests in 4s, 1 a second", "admitted              2        500ms           1s", "denied                1", "unanswered            1", "status 429", "limit api        2 in 10s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if none, err := newReport(nil, time.Second); err != nil || none.verdict() == nil {
		t.Errorf("a load that nobody answered passed: %v", err)
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1)*time.Millisecond)
	}
	got := []time.Duration{percentile(hundred, 50), percentile(hundred, 99), percentile(hundred[:1], 99), percentile(nil, 50)}
	if diff := cmp.Diff([]time.Duration{50 * time.Millisecond, 99 * time.Millisecond, time.Millisecond, 0}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	t.Setenv("JWT_SECRET", "a secret of at least thirty-two bytes")
	for arg, want := range map[string]string{
		"-url=http://example.com/":   "example.com is not this machine",
		"-url=http://10.0.0.1/":      "10.0.0.1 is not this machine",
		"-url=localhost":             "is not a URL",
		"-users=0":                   "are above 0",
		"surplus":                    `unexpected argument "surplus"`,
		"-url=http://127.0.0.1:1/x":  "",
		"-url=http://[::1]:1/x":      "",
		"-url=http://localhost:99/x": "",
	} {
		_, err := parse([]string{arg})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", arg, err, want)
		}
	}
	t.Setenv("JWT_SECRET", "")
	if _, err := parse([]string{"-secret-file=" + t.TempDir() + "/none"}); err == nil || !strings.Contains(err.Error(), "set JWT_SECRET") {
		t.Errorf("without a secret: %v", err)
	}
}
