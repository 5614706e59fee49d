package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
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
	path     string
	at       time.Time
	took     time.Duration
	status   int  // 0: no answer was read
	aborted  bool // the client left before the answer
	err      error
	// written: its head went out, on any of the connections that net/http tried.
	written *atomic.Bool
}

// traffic sends requests of many users until stop is closed.
type traffic struct {
	g     *gateway
	fleet fleet // if it is more than one gateway
	users int
	// paths are asked for in turn; none: /work.
	paths []string
	// every is the pause between two requests of one client; 0: none.
	every time.Duration
	// token is a user's credential; nil: as access makes it.
	token func(user string) string
	// abort says whether the client is to leave early.
	abort func(id string) bool

	n    atomic.Int64
	mu   sync.Mutex
	sent []sent
}

func (tr *traffic) client(t testing.TB, c, leaving *http.Client, stop <-chan struct{}) {
	var pace <-chan time.Time
	if tr.every > 0 {
		tick := time.NewTicker(tr.every)
		defer tick.Stop()
		pace = tick.C
	}
	for {
		select {
		case <-stop:
			return
		default:
		}
		tr.once(t, c, leaving)
		if pace == nil {
			continue
		}
		select {
		case <-pace:
		case <-stop:
			return
		}
	}
}

// once sends the next request, by another client where it is to be left early, and
// notes what became of it.
func (tr *traffic) once(t testing.TB, c, leaving *http.Client) {
	n := tr.n.Add(1)
	s := sent{id: fmt.Sprint("r", n), user: fmt.Sprint("u", int(n)%tr.users), path: tr.path(int(n)), at: time.Now(), written: new(atomic.Bool)}
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{WroteHeaders: func() { s.written.Store(true) }})
	ctx, cancel := context.WithCancel(ctx)
	if tr.abort != nil && tr.abort(s.id) {
		s.aborted, c = true, leaving
		ctx, cancel = context.WithTimeout(ctx, time.Duration(n%7)*time.Millisecond)
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+tr.at(int(n))+s.path, nil)
	if err != nil {
		t.Error(err)
		return
	}
	token := access
	if tr.token != nil {
		token = tr.token
	}
	req.Header.Set("Authorization", "Bearer "+token(s.user))
	req.Header.Set(gatetest.IDHeader, s.id)
	res, err := c.Do(req)
	if err == nil {
		s.status = res.StatusCode
		if _, err = io.Copy(io.Discard, res.Body); err != nil {
			s.status = 0
		}
		_ = res.Body.Close()
	}
	s.err, s.took = err, time.Since(s.at)
	tr.mu.Lock()
	tr.sent = append(tr.sent, s)
	tr.mu.Unlock()
}

// at is the address that the n-th request goes to.
func (tr *traffic) at(n int) string {
	if len(tr.fleet) > 0 {
		return tr.fleet[n/tr.users%len(tr.fleet)].addr // each user at each gateway
	}
	return tr.g.addr
}

// path is what the n-th request asks for: each user asks for each at each gateway.
func (tr *traffic) path(n int) string {
	if len(tr.paths) == 0 {
		return "/work"
	}
	return tr.paths[n/tr.users/max(1, len(tr.fleet))%len(tr.paths)]
}

// run keeps n clients busy until stop is closed, and waits for them.
func (tr *traffic) run(t testing.TB, n int, stop <-chan struct{}) {
	c, leaving := client(t), client(t)
	// net/http puts a connection back before it has handed the answer over: whoever
	// leaves in between breaks the request of the other that has it.
	leaving.Transport.(*http.Transport).DisableKeepAlives = true
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { tr.client(t, c, leaving, stop) })
	}
	wg.Wait()
}

// during keeps n clients busy while f runs.
func (tr *traffic) during(t testing.TB, n int, f func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { tr.run(t, n, stop) })
	defer wg.Wait()
	defer close(stop)
	f()
}

// reach waits until n requests have been sent, however long that takes.
func (tr *traffic) reach(t testing.TB, n int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for tr.n.Load() < n && t.Context().Err() == nil {
		<-tick.C
	}
}

// more waits until another n requests have been sent.
func (tr *traffic) more(t testing.TB, n int64) {
	t.Helper()
	reached := tr.n.Load() + n
	eventually(t, patience, "the gateways are busy", func() bool { return tr.n.Load() >= reached })
}

func closeAfter(d time.Duration) <-chan struct{} {
	stop := make(chan struct{})
	time.AfterFunc(d, func() { close(stop) })
	return stop
}

// noServerErrors wants no failure that is not the client's own.
func (tr *traffic) noServerErrors(t *testing.T) {
	t.Helper()
	for _, s := range tr.sent {
		if s.status >= 500 || (s.status == 0 && !s.aborted) {
			t.Errorf("%s of %s: status %d, %v", s.id, s.user, s.status, s.err)
		}
	}
}

// took are how long the requests of a path took that were sent within a time, sorted.
func (tr *traffic) took(path string, from, to time.Time) []time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var ds []time.Duration
	for _, s := range tr.sent {
		if s.path == path && !s.at.Before(from) && s.at.Before(to) {
			ds = append(ds, s.took)
		}
	}
	slices.Sort(ds)
	return ds
}

// quantile is the duration that the part of all, which are sorted, does not pass.
func quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}
