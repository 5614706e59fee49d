package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// onPostgres runs the gateway with its records in the database and its counters
// in the process; behind is where the gateway finds the server.
func onPostgres(t *testing.T, dsn, behind, mode, backend, body string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: gatetest.FreeAddr(t), admin: gatetest.FreeAddr(t), dsn: dsn}
	g.extra = []string{"QUOTA_DSN=" + behind}
	g.write(strings.Replace(site(backend, body), "records sqlite {$DIR}/quota.db",
		"records postgres {env.QUOTA_DSN} {\n\t\t\tmigrate "+mode+"\n\t\t}", 1))
	g.run()
	return g
}

const hostTables = `CREATE TABLE public.users (id BIGINT PRIMARY KEY, email TEXT, status VARCHAR(20) NOT NULL);
	CREATE TABLE public.sessions (id UUID PRIMARY KEY, user_id BIGINT REFERENCES public.users, revoked_at TIMESTAMPTZ);
	INSERT INTO public.users VALUES (1, 'a@x', 'active'), (2, 'b@x', 'Suspended'), (3, 'c@x', 'active');
	INSERT INTO public.sessions VALUES ('7d444840-9dc0-11d1-b245-5ffdce74fad2', 3, now()), ('7d444840-9dc0-11d1-b245-5ffdce74fad3', 3, NULL)`

// The whole main job with the records in Postgres: limits, a change by hand, the
// host's own users and sessions, a kill, and usage that is exact in the end.
func TestRecordsInPostgres(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	dsn := gatetest.Postgres(t).Database(t)
	g := onPostgres(t, dsn, dsn, "auto", b.Serve(t).URL, jobsSite)
	g.exec(hostTables)
	g.roomy()
	for range 10 {
		g.do("POST", "/jobs", access("1")).want(t, 200)
	}
	g.do("POST", "/jobs", access("1")).want(t, 402)
	g.subscribe("1", "pro")
	g.noticed()
	g.do("POST", "/jobs", access("1")).want(t, 200)

	if d := g.do("GET", "/items", access("2")).want(t, 403).detail(t); d["error"] != "account_suspended" {
		t.Errorf("a user whom the host has suspended: %v", d)
	}
	session := func(last string) string {
		return token(map[string]any{"sub": "3", "type": "access", "sid": "7d444840-9dc0-11d1-b245-5ffdce74fad" + last})
	}
	g.do("GET", "/items", session("2")).want(t, 401)
	g.do("GET", "/items", session("3")).want(t, 200)
	g.do("GET", "/items", access("no-number")).want(t, 200)

	g.kill()
	g.run()
	g.do("POST", "/jobs", access("1")).want(t, 200)
	g.stop()
	if got := g.used(t, "1", "jobs", "month"); got != 12 {
		t.Errorf("%d jobs in the records, want 12", got)
	}
}

// Without its schema, and without its server, the gateway goes on with the
// default plan, says so, and recovers by itself.
func TestPostgresOutage(t *testing.T) {
	t.Parallel()
	server := gatetest.Postgres(t)
	dsn := server.Database(t)
	p := gatetest.NewProxy(t, server.Addr())
	p.Down()
	b := gatetest.NewBackend(nil)
	g := onPostgres(t, dsn, strings.Replace(dsn, server.Addr(), p.Addr(), 1), "check", b.Serve(t).URL, "\tquota_health\n"+jobsSite)
	limit := func(user string) string {
		t.Helper()
		return g.do("GET", "/items", access(user)).want(t, 200).Header.Get("X-RateLimit-Limit")
	}
	state := func() string {
		var v struct {
			Status string `json:"status"`
			Checks map[string]struct{ Status string }
		}
		r := g.do("GET", "/readyz", "").want(t, http.StatusOK)
		if err := json.Unmarshal(r.body, &v); err != nil {
			t.Fatal(err)
		}
		return v.Status + " " + v.Checks["records"].Status
	}
	if limit("down") != "60" || state() != "degraded degraded" {
		t.Errorf("down at the start: limit %s, %s", limit("down"), state())
	}
	p.Up(t)
	eventually(t, patience, "the log names the command that mends it", func() bool {
		return strings.Contains(g.logged(), "database schema is missing: run `caddy quota migrate up`")
	})
	if limit("unmigrated") != "60" {
		t.Errorf("without a schema: limit %s", limit("unmigrated"))
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t.Context(), path, "quota", "migrate", "up", "--config", g.file, "--adapter", "caddyfile")
	cmd.Env = g.env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "applied 00001_tables.sql") {
		t.Fatalf("migrating: %v\n%s", err, out)
	}
	eventually(t, patience, "the gateway is ready", func() bool { return state() == "ready ok" })
	g.subscribe("pro", "pro")
	eventually(t, noticeMax, "the plan of the records counts", func() bool { return limit("pro") == "300" })

	p.Down()
	for i := range 20 { // what is known goes on, and who is not known has the default plan
		if got := limit("pro"); got != "300" {
			t.Errorf("while the database is down: limit %s", got)
		}
		if got := limit(fmt.Sprint("stranger", i)); got != "60" {
			t.Errorf("a stranger while the database is down: limit %s", got)
		}
	}
	eventually(t, patience, "the outage shows", func() bool { return state() == "degraded degraded" })
	p.Up(t)
	began := time.Now()
	eventually(t, patience, "the gateway is ready again", func() bool { return state() == "ready ok" })
	t.Logf("ready %s after the return of the database", time.Since(began))
	g.subscribe("stranger1", "pro")
	eventually(t, noticeMax, "changes are seen again", func() bool { return limit("stranger1") == "300" })
	g.stop()
	if got := g.used(t, "stranger5", "api_calls", "day"); got != 1 {
		t.Errorf("%d calls of a stranger in the records, want 1: counted while the database was down", got)
	}
}
