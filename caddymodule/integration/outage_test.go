package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// onServers is a config as in production, with one rule whose spending is
// only counted; the backend is told when a request was passed on.
func onServers(backend string, limit int, window time.Duration) string {
	return strings.NewReplacer(
		"records sqlite {$DIR}/quota.db", "records postgres {env.QUOTA_DSN} {\n\t\t\tmigrate auto\n\t\t}\n\t\tcounters redis {env.QUOTA_REDIS}",
		"reverse_proxy "+strings.TrimPrefix(backend, "http://"),
		"reverse_proxy "+strings.TrimPrefix(backend, "http://")+" {\n\t\theader_up X-Passed-At {time.now.unix_ms}\n\t}",
	).Replace(site(backend, fmt.Sprintf("\tquota_health\n\tquota {\n\t\trule work {\n\t\t\tlimit work %d/%s\n\t\t\tspend jobs\n\t\t}\n\t}\n", limit, window)))
}

// unlimit lets nothing but the rules' own limits deny, and waits until each
// gateway knows of the others.
func (f fleet) unlimit() {
	f[0].exec(`UPDATE subscription_plans SET rate_limits = '{}'`)
	f[0].exec(`UPDATE plan_quotas SET limit_value = NULL WHERE metric = 'jobs'`)
	for _, g := range f {
		g.noticed()
		eventually(g.t, patience, "the gateways know of each other", func() bool { return g.sharing().Gateways == len(f) })
	}
}

func (f fleet) stop() {
	var wg sync.WaitGroup
	for _, g := range f {
		wg.Go(g.stop)
	}
	wg.Wait()
}

// sharing is what a gateway says of what it shares with others.
type sharing struct {
	Gateways int
	Outage   *struct{ Kind string }
}

func (g *gateway) sharing() sharing {
	g.t.Helper()
	res, err := client(g.t).Get("http://" + g.admin + "/quota/status")
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	var v struct{ Sharing sharing }
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		g.t.Fatal(err)
	}
	return v.Sharing
}

// However many gateways share a limit, no window has more than it, and what the
// records say was used is what the backend has seen.
func TestFleetIsExact(t *testing.T) { // alone: gateways that starve are taken for dead
	const (
		limit  = 10
		window = 2 * time.Second
	)
	b := gatetest.NewBackend(nil)
	f := runFleet(t, 4, onServers(b.Serve(t).URL, limit, window), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL())
	f.unlimit()
	tr := &traffic{g: f[0], fleet: f, users: 200}
	tr.run(t, 64, tr.until(t, int64(rounds(6_000, 1_000_000))))
	f.stop()
	account(t, f[0], b, tr)
	bound := limit
	if n := f.outages(); n > 0 { // the machine was too busy for Redis to answer in time
		t.Logf("%d outages", n)
		bound = 2 * limit
	}
	overAdmitted(t, b, bound, window)
	tr.noServerErrors(t)
}

// outages is how often the gateways went on without Redis, as their logs say.
func (f fleet) outages() int {
	n := 0
	for _, g := range f {
		n += strings.Count(g.logged(), "the counters are out of reach")
	}
	return n
}

// until is closed when n requests have been sent.
func (tr *traffic) until(t testing.TB, n int64) <-chan struct{} {
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for tr.n.Load() < n && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}()
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

// Gateways that are killed under load lose nothing and double nothing: what they
// had counted in Redis and not flushed is copied by those that live.
func TestKilledGatewaysLoseNothing(t *testing.T) { // alone: gateways that starve are taken for dead
	const limit = 400
	b := gatetest.NewBackend(nil)
	f := runFleet(t, 2, onServers(b.Serve(t).URL, limit, time.Hour), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL())
	f.unlimit()
	tr := &traffic{g: f[0], fleet: f, users: 20}
	for i := range rounds(3, 100) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { tr.run(t, 16, stop) })
		reached := tr.n.Load() + 200
		eventually(t, patience, "the gateways are busy", func() bool { return tr.n.Load() > reached })
		f[i%2].kill()
		close(stop)
		wg.Wait()
		f[i%2].run()
	}
	l := newLedger(t, b, tr)
	eventually(t, 4*patience, "what the dead had counted is copied", func() bool {
		lost, _, _ := l.compare(t, f[0])
		return lost == 0
	})
	f.stop()
	account(t, f[0], b, tr)
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

// Whatever becomes of Redis: callers meet no error, usage is exact, limits hold
// within the bound that is documented, and the gateways share again soon after.
func TestRedisOutages(t *testing.T) { // alone: gateways that starve are taken for dead
	aof := []string{"--appendonly", "yes", "--appendfsync", "everysec"}
	for name, tt := range map[string]struct {
		args  []string
		loses bool // rate windows, at the most as much as a limit
		fail  func(t *testing.T, s *gatetest.RedisServer)
	}{
		"killed, without a file": {nil, true, func(t *testing.T, s *gatetest.RedisServer) {
			s.Kill(t)
			wait(t, time.Second)
			s.Start(t)
		}},
		"killed, with an append-only file": {aof, true, func(t *testing.T, s *gatetest.RedisServer) {
			s.Kill(t)
			wait(t, time.Second)
			s.Start(t)
		}},
		"frozen": {nil, false, func(t *testing.T, s *gatetest.RedisServer) {
			s.Freeze(t)
			wait(t, 1500*time.Millisecond)
			s.Thaw(t)
		}},
		"scripts flushed": {nil, false, func(t *testing.T, s *gatetest.RedisServer) {
			s.Do(t, "SCRIPT", "FLUSH")
			wait(t, 300*time.Millisecond)
		}},
		"out of memory": {nil, false, func(t *testing.T, s *gatetest.RedisServer) {
			s.Do(t, "CONFIG", "SET", "maxmemory", "1")
			wait(t, time.Second)
			s.Do(t, "CONFIG", "SET", "maxmemory", "0")
		}},
		"a replica": {nil, false, func(t *testing.T, s *gatetest.RedisServer) {
			s.Do(t, "REPLICAOF", "127.0.0.1", "1")
			wait(t, time.Second)
			s.Do(t, "REPLICAOF", "NO", "ONE")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const (
				limit  = 10
				window = 4 * time.Second
			)
			server := gatetest.Redis(t, tt.args...)
			b := gatetest.NewBackend(nil)
			f := runFleet(t, 2, onServers(b.Serve(t).URL, limit, window), gatetest.Postgres(t).Database(t), server.URL())
			f.unlimit()
			tr := &traffic{g: f[0], fleet: f, users: 20}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { tr.run(t, 8, stop) })
			eventually(t, patience, "the gateways are busy", func() bool { return tr.n.Load() > 200 })
			tt.fail(t, server)
			began := time.Now()
			for _, g := range f {
				eventually(t, patience, "the gateways share again", func() bool { return g.sharing().Outage == nil })
			}
			t.Logf("shared again after %s", time.Since(began).Round(time.Millisecond))
			reached := tr.n.Load() + 200
			eventually(t, patience, "the gateways are busy", func() bool { return tr.n.Load() > reached })
			close(stop)
			wg.Wait()
			f.stop()
			account(t, f[0], b, tr)
			tr.noServerErrors(t)
			// What gateways admit by themselves is at most the limit once more, and so
			// is what a Redis that lost its windows admits.
			bound := 2 * limit
			if tt.loses {
				bound = 3 * limit
			}
			overAdmitted(t, b, bound, window)
		})
	}
}

// wait lets an outage last.
func wait(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// A rule that denies in an outage answers 503 while Redis is away, and nothing else does.
func TestRulesThatDenyInAnOutage(t *testing.T) {
	t.Parallel()
	server := gatetest.Redis(t)
	b := gatetest.NewBackend(nil)
	config := strings.NewReplacer(
		"records sqlite {$DIR}/quota.db", "records sqlite {$DIR}/quota.db\n\t\tcounters redis {env.QUOTA_REDIS}",
	).Replace(site(b.Serve(t).URL, `	quota_health
	quota {
		rule strict {
			match {
				path /strict
			}
			limit strict 100/1m
			on_outage deny
		}
		rule api {
			limit api 100/1m
		}
	}
`))
	g := runFleet(t, 1, config, "", server.URL())[0]
	g.do("GET", "/strict", access("u")).want(t, http.StatusOK)
	server.Kill(t)
	g.do("GET", "/items", access("u")).want(t, http.StatusOK)
	if d := g.do("GET", "/strict", access("u")).want(t, http.StatusServiceUnavailable).detail(t); d["error"] != "limiter_unavailable" {
		t.Errorf("detail = %v", d)
	}
	eventually(t, patience, "readiness shows it", func() bool {
		r := g.do("GET", "/readyz", "").want(t, http.StatusOK)
		return strings.Contains(string(r.body), `"counters":{"status":"degraded"`)
	})
	server.Start(t)
	eventually(t, patience, "the rule is checked again", func() bool { return g.do("GET", "/strict", access("u")).StatusCode == http.StatusOK })
	if n := b.Count(nil); n < 3 {
		t.Errorf("the backend saw %d requests", n)
	}
}
