package integration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// fleet are gateways that share their records and counters, each a process of
// its own; any of them administers. root is an admin.
type fleet []*gateway

// startFleet runs n gateways on a Postgres and a Redis of their own.
func startFleet(t testing.TB, n int, backend, body string) fleet {
	t.Helper()
	dsn, redis := gatetest.Postgres(t).Database(t), gatetest.Redis(t)
	caddyfile := strings.NewReplacer(
		"records sqlite {$DIR}/quota.db", "records postgres {env.QUOTA_DSN} {\n\t\t\tmigrate auto\n\t\t}\n"+
			"\t\tcounters redis {env.QUOTA_REDIS} {\n\t\t\ttimeout 5s\n\t\t}",
		"\t}\n}\nhttp", "\t}\n\tquota_companion {\n\t\tadmins root\n\t}\n}\nhttp",
	).Replace(site(backend, "\tquota_admin\n"+body))
	return runFleet(t, n, caddyfile, dsn, redis.URL())
}

// runFleet runs n gateways with that Caddyfile on these servers.
func runFleet(t testing.TB, n int, caddyfile, dsn, redis string) fleet {
	t.Helper()
	all := make(fleet, n)
	for i := range all {
		dir := t.TempDir()
		g := &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: freeAddr(t), admin: freeAddr(t), dsn: dsn}
		g.extra = []string{"QUOTA_DSN=" + dsn, "QUOTA_REDIS=" + redis}
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
