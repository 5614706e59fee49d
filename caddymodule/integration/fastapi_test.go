package integration

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the backends' database

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// fastAPI are the two backends of examples/fastapi on a Postgres of their own.
type fastAPI struct {
	auth, dashboard string // host:port
	dsn             string
	db              *sql.DB
}

// fastAPIModules are what the backends import, as Debian's packages provide it.
const fastAPIModules = "import fastapi, uvicorn, sqlalchemy, psycopg2, jwt, redis"

// python is an interpreter that has what the backends import.
func python(t testing.TB) string {
	t.Helper()
	var found error
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		out, err := exec.CommandContext(t.Context(), name, "-c", fastAPIModules).CombinedOutput()
		if err == nil {
			return name
		}
		found = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	gatetest.Missing(t, "FastAPI", found)
	return ""
}

// startFastAPI starts both backends as their README says; redis may be empty.
func startFastAPI(t *testing.T, redis string) *fastAPI {
	t.Helper()
	interpreter := python(t)
	dir, err := filepath.Abs("../../examples/fastapi")
	if err != nil {
		t.Fatal(err)
	}
	f := &fastAPI{auth: gatetest.FreeAddr(t), dashboard: gatetest.FreeAddr(t), dsn: gatetest.Postgres(t).Database(t)}
	env := append(os.Environ(), "DATABASE_URL="+strings.Replace(f.dsn, "postgres://", "postgresql://", 1),
		"JWT_SECRET="+secret, "REDIS_URL="+redis, "PYTHONDONTWRITEBYTECODE=1")
	schema := exec.CommandContext(t.Context(), interpreter, "-m", "backend.schema")
	schema.Dir, schema.Env = dir, env
	if out, err := schema.CombinedOutput(); err != nil {
		t.Fatalf("making the backends' tables: %v\n%s", err, out)
	}
	if f.db, err = sql.Open("pgx", f.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	for app, addr := range map[string]string{"backend.auth:app": f.auth, "backend.dashboard:app": f.dashboard} {
		startUvicorn(t, exec.Command(interpreter, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", portOf(addr),
			"--proxy-headers", "--no-access-log"), dir, env)
	}
	await(t, "http://"+f.auth+"/v1/auth/health")
	await(t, "http://"+f.dashboard+"/health")
	return f
}

func startUvicorn(t *testing.T, cmd *exec.Cmd, dir string, env []string) {
	t.Helper()
	var log strings.Builder
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its log says why it ended
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(cmd.Args, " "), log.String())
		}
	})
}

// await waits until a server answers 200.
func await(t testing.TB, url string) {
	t.Helper()
	c := client(t)
	eventually(t, patience, url+" answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// upstreams are the variables by which the root Caddyfile finds the backends.
func (f *fastAPI) upstreams() []string {
	return []string{"AUTH_UPSTREAM=" + f.auth, "DASHBOARD_UPSTREAM=" + f.dashboard}
}

// count is the number that a query of the backends' database answers.
func (f *fastAPI) count(t testing.TB, query string, args ...any) int {
	t.Helper()
	var n int
	if err := f.db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// member is a user of the backends.
type member struct{ id, email, password, token string }

// register makes a user through the gateway, as a browser would.
func (g *gateway) register(name string) member {
	g.t.Helper()
	a := member{email: name + "@example.com", password: "correct horse " + name}
	body := fmt.Sprintf(`{"email":%q,"username":%q,"password":%q}`, a.email, name, a.password)
	var user struct{ ID string }
	decode(g.t, g.post("/v1/auth/register", "", body).want(g.t, http.StatusCreated), &user)
	a.id = user.ID
	return a
}

// login is the answer to a login with the right password.
func (g *gateway) login(a member) *reply {
	g.t.Helper()
	return g.post("/v1/auth/login", "", fmt.Sprintf(`{"username":%q,"password":%q}`, a.email, a.password))
}

// signIn logs in and keeps the access token.
func (g *gateway) signIn(a *member) {
	g.t.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	decode(g.t, g.login(*a).want(g.t, http.StatusOK), &answer)
	a.token = answer.AccessToken
}

func (g *gateway) post(path, token, body string) *reply {
	g.t.Helper()
	r, err := g.try(client(g.t), http.MethodPost, path, token, strings.NewReader(body), "Content-Type: application/json")
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

func decode(t testing.TB, r *reply, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%s: %v: %s", r.Status, err, r.body)
	}
}

// The example starts as its README says, and the README's commands do what they show.
func TestFastAPIExample(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	caddy, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	gate, auth, dashboard := gatetest.FreeAddr(t), gatetest.FreeAddr(t), gatetest.FreeAddr(t)
	cmd := exec.Command("../../examples/fastapi/run.sh")
	startUvicorn(t, cmd, "", append(os.Environ(), "CADDY="+caddy, "PYTHON="+interpreter, "PYTHONDONTWRITEBYTECODE=1", "JWT_SECRET="+secret,
		"DATABASE_URL="+strings.Replace(gatetest.Postgres(t).Database(t), "postgres://", "postgresql://", 1), "REDIS_URL="+gatetest.Redis(t).URL(),
		"AUTH_UPSTREAM="+auth, "DASHBOARD_UPSTREAM="+dashboard, "QUOTA_HTTP_PORT="+portOf(gate), "QUOTA_METRICS_PORT="+portOf(gatetest.FreeAddr(t)),
		"CADDY_ADMIN="+gatetest.FreeAddr(t)))
	await(t, "http://"+gate+"/v1/auth/health")
	await(t, "http://"+dashboard+"/health")
	var commands strings.Builder
	for line := range strings.Lines(read(t, "../../examples/fastapi/README.md")) {
		if line, ok := strings.CutPrefix(line, "    "); ok && strings.Contains(line, "localhost:8080") {
			commands.WriteString(strings.ReplaceAll(line, "localhost:8080", gate))
		}
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-euc", commands.String()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`"email":"a@example.com"`, "HTTP/1.1 201 Created", `"jobs/month";r=9;`} {
		if !strings.Contains(strings.ReplaceAll(string(out), "Ratelimit", "RateLimit"), want) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
}
