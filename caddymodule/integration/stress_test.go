package integration

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

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
		tr.during(t, 16, func() {
			tr.more(t, 200)
			g.kill()
		})
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

// loadClients are busy at once in TestLoadWithAbortsErrorsAndReloads.
const loadClients = 64

func TestLoadWithAbortsErrorsAndReloads(t *testing.T) {
	t.Parallel()
	const (
		limit  = 10
		window = 2 * time.Second
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
	g := start(t, "", site(b.Serve(t).URL, fmt.Sprintf(`	log
	quota {
		rule work {
			limit work %d/%s
			spend jobs
			refund_unless 2xx
		}
	}
`, limit, window)))
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
	tr.run(t, loadClients, stop)
	wg.Wait()
	g.stop()
	t.Logf("%d reloads", reloads)

	tr.failNobody(t, b, reloads)
	account(t, g, b, tr)
	overAdmitted(t, b, tr, limit, window)
}

// failNobody wants no failed request that was not the backend's own, or the client's.
func (tr *traffic) failNobody(t *testing.T, b *gatetest.Backend, reloads int) {
	t.Helper()
	reached := firstOfEach(b)
	handover, aborts := 0, 0
	var swapped []string
	for _, s := range tr.sent {
		h := hash(s.id)
		if s.aborted {
			aborts++
		}
		if s.status == 499 && !s.aborted {
			// The proxy's transport puts a connection back before it has handed the answer
			// over, so that a client that leaves in between cancels the next request on it.
			// Such a request stays charged.
			swapped = append(swapped, s.id)
			continue
		}
		if _, seen := reached[s.id]; s.status == 0 && !s.aborted && !seen {
			// At a reload Caddy closes the old listener, and the kernel resets the
			// connections that nobody had accepted yet; without our handler it does the same.
			handover++
			continue
		}
		ok := s.aborted || s.status == 200 || s.status == 429 || s.status == 402 ||
			(s.status == 500 && h%11 == 0) || (s.status == 502 && h%29 == 0)
		if !ok {
			t.Errorf("%s of %s failed with status %d, and it was not the backend's doing: %v\n%s", s.id, s.user, s.status, s.err, tr.g.loggedOf(s.id))
		}
	}
	if most := reloads * loadClients; handover > most {
		t.Errorf("%d requests were reset before anybody had seen them, in %d reloads", handover, reloads)
	}
	t.Logf("%d connections reset with the old listeners", handover)
	if t.Logf("cancelled in the place of others that were aborted: %v", swapped); len(swapped) > aborts/20 {
		t.Errorf("%d requests were cancelled in the place of others, of which there were %d", len(swapped), aborts)
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
	cmd.Env = append(slices.Clone(g.env), "PORT="+portOf(gatetest.FreeAddr(g.t)), "ADMIN="+gatetest.FreeAddr(g.t))
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return string(out), nil
	}
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return string(out), err
}
