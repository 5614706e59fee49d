package integration

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// rounds is n, or many where longer runs are asked for.
func rounds(n, many int) int {
	if os.Getenv("QUOTA_TEST_LONG") != "" {
		return many
	}
	return n
}

// sent is what a client knows of one request.
type sent struct {
	id, user string
	status   int  // 0: no answer was read
	aborted  bool // the client left before the answer
	err      error
}

// traffic sends requests of many users until stop is closed.
type traffic struct {
	g     *gateway
	fleet fleet // if it is more than one gateway
	users int
	// abort says whether the client is to leave early.
	abort func(id string) bool

	n    atomic.Int64
	mu   sync.Mutex
	sent []sent
}

func (tr *traffic) client(c *http.Client, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		n := tr.n.Add(1)
		s := sent{id: fmt.Sprint("r", n), user: fmt.Sprint("u", int(n)%tr.users)}
		ctx, cancel := context.WithCancel(context.Background())
		if tr.abort != nil && tr.abort(s.id) {
			s.aborted = true
			ctx, cancel = context.WithTimeout(ctx, time.Duration(n%7)*time.Millisecond)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+tr.at(int(n))+"/work", nil)
		if err != nil {
			panic(err)
		}
		req.Header.Set("Authorization", "Bearer "+access(s.user))
		req.Header.Set(gatetest.IDHeader, s.id)
		res, err := c.Do(req)
		if err == nil {
			s.status = res.StatusCode
			if _, err = io.Copy(io.Discard, res.Body); err != nil {
				s.status = 0
			}
			_ = res.Body.Close()
		}
		s.err = err
		cancel()
		tr.mu.Lock()
		tr.sent = append(tr.sent, s)
		tr.mu.Unlock()
	}
}

// at is the address that the n-th request goes to.
func (tr *traffic) at(n int) string {
	if len(tr.fleet) > 0 {
		return tr.fleet[n/tr.users%len(tr.fleet)].addr // each user at each gateway
	}
	return tr.g.addr
}

// run keeps n clients busy until stop is closed, and waits for them.
func (tr *traffic) run(t testing.TB, n int, stop <-chan struct{}) {
	c := client(t)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { tr.client(c, stop) })
	}
	wg.Wait()
}

func closeAfter(d time.Duration) <-chan struct{} {
	stop := make(chan struct{})
	time.AfterFunc(d, func() { close(stop) })
	return stop
}

// account compares what the records say of each user with what the backend saw.
// Every request that it saw and did not answer with an error is charged; beyond
// that only requests whose outcome nobody knows may be, and each has a name.
func account(t *testing.T, g *gateway, b *gatetest.Backend, tr *traffic) {
	t.Helper()
	l := newLedger(t, b, tr)
	lost, extra, named := l.compare(t, g)
	for user, beyond := range named {
		t.Logf("%s: %d charged of the requests whose outcome nobody knows: %s", user, beyond, strings.Join(l.unknown[user], " "))
	}
	t.Logf("%d requests, %d at the backend: LOST %d, DOUBLED %d", len(tr.sent), l.seen, lost, extra)
	if lost != 0 || extra != 0 {
		t.Errorf("LOST %d, DOUBLED %d", lost, extra)
	}
}

// ledger is what clients and backend together know of a load.
type ledger struct {
	users   int
	seen    int                 // at the backend
	certain map[string]int64    // by user
	unknown map[string][]string // by user, the requests' names
}

func newLedger(t *testing.T, b *gatetest.Backend, tr *traffic) *ledger {
	t.Helper()
	l := &ledger{users: tr.users, certain: map[string]int64{}, unknown: map[string][]string{}}
	seen := map[string]gatetest.Entry{}
	for _, e := range b.Entries() {
		if _, twice := seen[e.ID]; !twice { // the proxy's transport tries a GET again whose connection broke
			seen[e.ID] = e
		}
	}
	l.seen = len(seen)
	for _, s := range tr.sent {
		e, reached := seen[s.id]
		switch {
		case s.aborted || s.status == 0 || s.status == 502:
			if reached && e.Complete && e.Status == 200 && s.status == 200 {
				l.certain[s.user]++
				continue
			}
			l.unknown[s.user] = append(l.unknown[s.user], s.id)
		case s.status == 200:
			if !reached {
				t.Errorf("%s was answered 200 and never reached the backend", s.id)
			}
			l.certain[s.user]++
		}
	}
	return l
}

// compare is what the records lack, what they have beyond all that may be
// charged, and how many requests of unknown outcome are charged of each user.
func (l *ledger) compare(t *testing.T, g *gateway) (lost, extra int64, named map[string]int64) {
	t.Helper()
	named = map[string]int64{}
	for i := range l.users {
		user := fmt.Sprint("u", i)
		beyond := g.used(t, user, "jobs", "month") - l.certain[user]
		lost += max(0, -beyond)
		extra += max(0, beyond-int64(len(l.unknown[user])))
		if beyond > 0 {
			named[user] = beyond
		}
	}
	return lost, extra, named
}

func TestSIGKILLUnderLoadLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const limit = 150
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, fmt.Sprintf(`	quota {
		rule work {
			limit work %d/1h
			spend jobs
		}
	}
`, limit)))
	g.exec(`UPDATE subscription_plans SET rate_limits = '{}'`)
	g.exec(`UPDATE plan_quotas SET limit_value = NULL WHERE metric = 'jobs'`)
	g.noticed()
	tr := &traffic{g: g, users: 20}
	for range rounds(6, 100) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { tr.run(t, 16, stop) })
		reached := tr.n.Load() + 200
		eventually(t, patience, "the gateway is busy", func() bool { return tr.n.Load() > reached })
		g.kill()
		close(stop)
		wg.Wait()
		g.run()
	}
	tr.run(t, 16, closeAfter(500*time.Millisecond))
	g.stop()
	account(t, g, b, tr)
	perUser := map[string]int{}
	for _, e := range b.Entries() {
		perUser[e.Subject]++
	}
	for user, n := range perUser {
		if n > limit {
			t.Errorf("%s: %d requests reached the backend within the hour, the limit is %d", user, n, limit)
		}
	}
}

func TestLoadWithAbortsErrorsAndReloads(t *testing.T) {
	t.Parallel()
	const (
		clients = 64
		limit   = 10
		window  = 2 * time.Second
	)
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		switch h := hash(r.Header.Get(gatetest.IDHeader)); {
		case h%11 == 0:
			return gatetest.Answer{Status: 500}
		case h%29 == 0:
			return gatetest.Answer{Abort: gatetest.AbortBefore}
		}
		return gatetest.Answer{}
	})
	config := site(b.Serve(t).URL, fmt.Sprintf(`	quota {
		rule work {
			limit work %d/%s
			spend jobs
			refund_unless 2xx
		}
	}
`, limit, window))
	i := strings.LastIndex(config, "\n}")
	g := start(t, "", config[:i]+" {\n\t\theader_up X-Passed-At {time.now.unix_ms}\n\t}"+config[i:])
	g.exec(`UPDATE subscription_plans SET rate_limits = '{}'`)
	g.exec(`UPDATE plan_quotas SET limit_value = 60 WHERE metric = 'jobs'`)
	g.noticed()
	tr := &traffic{g: g, users: 200, abort: func(id string) bool { return hash(id)%13 == 0 }}
	stop := closeAfter(time.Duration(rounds(8, 120)) * time.Second)
	var wg sync.WaitGroup
	reloads := 0
	wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if err := g.reload(); err != nil {
					t.Error(err)
					return
				}
				reloads++
			}
		}
	})
	tr.run(t, clients, stop)
	wg.Wait()
	g.stop()
	t.Logf("%d reloads", reloads)

	seen := map[string]bool{}
	for _, e := range b.Entries() {
		seen[e.ID] = true
	}
	handover := 0
	for _, s := range tr.sent {
		h := hash(s.id)
		if s.status == 0 && !s.aborted && !seen[s.id] {
			// At a reload Caddy closes the old listener, and the kernel resets the
			// connections that nobody had accepted yet; without our handler it does the same.
			handover++
			continue
		}
		ok := s.aborted || s.status == 200 || s.status == 429 || s.status == 402 ||
			(s.status == 500 && h%11 == 0) || (s.status == 502 && h%29 == 0)
		if !ok {
			t.Errorf("%s of %s failed with status %d, and it was not the backend's doing: %v", s.id, s.user, s.status, s.err)
		}
	}
	if handover > reloads*clients {
		t.Errorf("%d requests were reset before anybody had seen them, in %d reloads", handover, reloads)
	}
	t.Logf("%d connections reset with the old listeners", handover)
	account(t, g, b, tr)
	overAdmitted(t, b, limit, window)
}

// overAdmitted looks at every window by brute force. Its instants are those at
// which the gateway passed the requests on, a little after it had decided: windows
// are shorter by a slack that no mistake of a sliding window would fit into.
func overAdmitted(t *testing.T, b *gatetest.Backend, limit int, window time.Duration) {
	t.Helper()
	const slack = 300 * time.Millisecond
	perUser := map[string][]time.Time{}
	seen := map[string]bool{}
	for _, e := range b.Entries() {
		if seen[e.ID] {
			continue // the proxy's transport tries a GET again whose connection broke
		}
		seen[e.ID] = true
		ms, err := strconv.ParseInt(e.Header.Get("X-Passed-At"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		perUser[e.Subject] = append(perUser[e.Subject], time.UnixMilli(ms))
	}
	over := 0
	for user, at := range perUser {
		slices.SortFunc(at, time.Time.Compare)
		for i := range at {
			if i+limit < len(at) && at[i+limit].Sub(at[i]) < window-slack {
				if over++; over < 5 {
					t.Errorf("%s: %d requests from %s on within %s", user, limit+1, at[i], at[i+limit].Sub(at[i]))
				}
			}
		}
	}
	if over > 0 {
		t.Errorf("%d windows with more than %d admitted", over, limit)
	}
}

func hash(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s))
	return h.Sum32()
}

func TestCountersRefuseASecondProcess(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := second(path, g)
	if err == nil {
		t.Fatalf("a second process started on the same folder:\n%s", out)
	}
	if !strings.Contains(out, "another process") {
		t.Errorf("the error does not say what is wrong:\n%s", out)
	}
	g.do("GET", "/", access("u")).want(t, 200)
}

// second starts the same config on other ports and waits until it ends.
func second(path string, g *gateway) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := command(ctx, path, "run", "--config", g.file, "--adapter", "caddyfile")
	cmd.Env = append(slices.Clone(g.env), "PORT="+portOf(freeAddr(g.t)), "ADMIN="+freeAddr(g.t))
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return string(out), nil
	}
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return string(out), err
}
