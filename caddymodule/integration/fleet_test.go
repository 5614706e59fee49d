package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// fleet are gateways that share their records and counters, each a process of
// its own; any of them administers. root is an admin.
type fleet []*gateway

// startFleet runs n gateways on a Postgres and a Redis of their own.
func startFleet(t testing.TB, n int, backend, body string) fleet {
	t.Helper()
	return runFleet(t, n, fleetConfig(backend, body), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL())
}

// fleetConfig is a config of gateways that administer, and wait for Redis however
// busy the machine is.
func fleetConfig(backend, body string) string {
	return patient(onBoth(strings.Replace(site(backend, "\tquota_admin\n"+body),
		"\t}\n}\nhttp", "\t}\n\tquota_companion {\n\t\tadmins root\n\t}\n}\nhttp", 1)))
}

// onBoth has the records of a config in Postgres and its counters in Redis.
func onBoth(config string) string {
	return strings.Replace(config, "records sqlite {$DIR}/quota.db",
		"records postgres {env.QUOTA_DSN} {\n\t\t\tmigrate auto\n\t\t}\n\t\tcounters redis {env.QUOTA_REDIS}", 1)
}

// patient waits for Redis however busy the machine is: nothing is counted in a
// process alone.
func patient(config string) string {
	return strings.Replace(config, "{env.QUOTA_REDIS}", "{env.QUOTA_REDIS} {\n\t\t\ttimeout 10s\n\t\t}", 1)
}

// runFleet runs n gateways with that Caddyfile on these servers. Each may be
// prepared before it is started.
func runFleet(t testing.TB, n int, caddyfile, dsn, redis string, prepare ...func(i int, g *gateway)) fleet {
	t.Helper()
	all := make(fleet, n)
	for i := range all {
		dir := t.TempDir()
		g := &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: gatetest.FreeAddr(t), admin: gatetest.FreeAddr(t), dsn: dsn}
		g.extra = []string{"QUOTA_DSN=" + dsn, "QUOTA_REDIS=" + redis}
		for _, f := range prepare {
			f(i, g)
		}
		g.write(caddyfile)
		g.run()
		all[i] = g
	}
	return all
}

// ask sends a request of root's to the i-th gateway, in turn.
func (f fleet) ask(i int, method, path, body string, headers ...string) *reply {
	g := f[i%len(f)]
	g.t.Helper()
	headers = append(headers, "Content-Type: application/json")
	r, err := g.try(client(g.t), method, path, access("root"), strings.NewReader(body), headers...)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// know makes users known, as their first request would in a while.
func (f fleet) know(users ...string) {
	f[0].t.Helper()
	for _, user := range users {
		f[0].exec(`INSERT INTO accounts (id, kind) VALUES ($1, 'user') ON CONFLICT DO NOTHING`, user)
	}
}

// all waits until every gateway answers as ok wants it, and then holds each to
// it: what was seen once is not unseen.
func (f fleet) all(what string, ask func(g *gateway) *reply, ok func(*reply) bool) {
	f[0].t.Helper()
	for i, g := range f {
		eventually(g.t, noticeMax, fmt.Sprintf("%s, at gateway %d", what, i), func() bool { return ok(ask(g)) })
		for range 3 {
			if r := ask(g); !ok(r) {
				g.t.Fatalf("%s, at gateway %d: seen, and then %d %s %v", what, i, r.StatusCode, r.body, r.Header)
			}
		}
	}
}

func items(user string) func(g *gateway) *reply {
	return func(g *gateway) *reply { g.t.Helper(); return g.do("GET", "/items", access(user)) }
}

func limited(n string) func(*reply) bool {
	return func(r *reply) bool { return r.StatusCode == http.StatusOK && r.Header.Get("X-RateLimit-Limit") == n }
}

func answered(status int) func(*reply) bool {
	return func(r *reply) bool { return r.StatusCode == status }
}

// onServers is a config as in production: what is spent at /work is limited, at
// /free it is only counted, and /strict denies in an outage. /clock tells the
// gateway's time.
func onServers(backend string, limit int, window time.Duration) string {
	return onBoth(site(backend, fmt.Sprintf(`	quota_health
	handle /clock {
		respond {time.now.unix_ms}
	}
	quota {
		rule work {
			match {
				path /work
			}
			limit work %d/%s
			spend jobs
		}
		rule free {
			match {
				path /free
			}
			limit free 1000000/1m
			spend jobs
		}
		rule strict {
			match {
				path /strict
			}
			limit strict 1000000/1m
			on_outage deny
		}
	}
`, limit, window)))
}

// unlimit lets nothing but the rules' own limits deny, and waits until each
// gateway knows of the others.
func (f fleet) unlimit() {
	f[0].exec(`UPDATE subscription_plans SET rate_limits = '{}'`)
	f[0].exec(`UPDATE plan_quotas SET limit_value = NULL WHERE metric = 'jobs'`)
	f.together()
}

// together waits until each gateway knows of all changes and of the others.
func (f fleet) together() {
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

// outages is how often the gateways went on without Redis, as their logs say.
func (f fleet) outages() int {
	n := 0
	for _, g := range f {
		n += strings.Count(g.logged(), "the counters are out of reach")
	}
	return n
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
