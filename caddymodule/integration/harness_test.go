package integration

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const (
	secret    = "integration-secret-of-at-least-32-bytes"
	patience  = 30 * time.Second // for what must happen; only a failure waits that long
	noticeMax = 2 * time.Second  // upper bound for a change to be seen
)

// binary is the gateway, built once for the test run.
var binary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("QUOTA_TEST_CADDY"); given != "" {
		return given, nil
	}
	if raceEnabled {
		return buildGateway("caddy-test-race", nil, "-race")
	}
	return buildGateway("caddy-test", nil)
})

// buildGateway builds the gateway into .bin and answers its path.
func buildGateway(name string, env []string, flags ...string) (string, error) {
	return buildFrom("../..", name, env, flags...)
}

// buildFrom is buildGateway of the source in another folder.
func buildFrom(source, name string, env []string, flags ...string) (string, error) {
	path, err := filepath.Abs(filepath.Join("../..", ".bin", name))
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", path, "./caddymodule/cmd/caddy")...)
	cmd.Dir, cmd.Env = source, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return path, nil
}

// gateway is a running process of ours.
type gateway struct {
	t     testing.TB
	cmd   *exec.Cmd
	built func() (string, error) // the program; nil: binary
	dir   string
	file  string
	addr  string // of the first site
	admin string
	log   *os.File
	env   []string
	extra []string      // environment
	dsn   string        // of the records in Postgres; empty: they are in SQLite
	done  chan struct{} // closed when the process has ended

	dbOnce sync.Once
	opened *sql.DB // see db
}

// start runs the gateway with a Caddyfile in which {$PORT} is its site's port, and waits until it answers. dir keeps its state; empty: a new one.
func start(t testing.TB, dir, caddyfile string) *gateway {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	g := &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: gatetest.FreeAddr(t), admin: gatetest.FreeAddr(t)}
	g.write(caddyfile)
	g.run()
	return g
}

// startRoot runs the Caddyfile at the root of the repository before a backend
// that stands for both; metrics is its other site's address. Variables in env win over those that it sets.
func startRoot(t testing.TB, backend string, env ...string) (g *gateway, metrics string) {
	t.Helper()
	upstream := strings.TrimPrefix(backend, "http://")
	return startFile(t, "../../Caddyfile", append([]string{"AUTH_UPSTREAM=" + upstream, "DASHBOARD_UPSTREAM=" + upstream}, env...))
}

// startFile runs one of the repository's own Caddyfiles.
func startFile(t testing.TB, file string, env []string) (g *gateway, metrics string) {
	t.Helper()
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g = &gateway{t: t, dir: dir, file: filepath.Join(dir, "Caddyfile"), addr: gatetest.FreeAddr(t), admin: gatetest.FreeAddr(t)}
	metrics = gatetest.FreeAddr(t)
	g.extra = append([]string{
		"QUOTA_HTTP_PORT=" + portOf(g.addr), "QUOTA_METRICS_PORT=" + portOf(metrics), "CADDY_ADMIN=" + g.admin,
		"QUOTA_RECORDS=sqlite " + dir + "/quota.db", "FRONTEND_URL=https://app.example.com",
	}, env...)
	g.write(string(config))
	g.run()
	return g, metrics
}

// preamble is the head of most configs: embedded, HS256 tokens.
const preamble = `{
	admin {$ADMIN}
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	grace_period 10s
	quota {
		records sqlite {$DIR}/quota.db
		verify jwt {
			secret {env.JWT_SECRET}
			algorithms HS256
			require type access
		}
		upgrade_url https://app.example.com/pricing
	}
}
`

// site is a config with the preamble and one site before a backend.
func site(backend, body string) string {
	return preamble + "http://:{$PORT} {\n" + body + "\n\treverse_proxy " + strings.TrimPrefix(backend, "http://") + "\n}\n"
}

func (g *gateway) write(caddyfile string) {
	g.t.Helper()
	if err := os.WriteFile(g.file, []byte(caddyfile), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// run starts the process, which has no predecessor or a dead one.
func (g *gateway) run() {
	g.t.Helper()
	path := g.program()
	var err error
	g.log, err = os.OpenFile(filepath.Join(g.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	g.cmd = exec.Command(path, "run", "--config", g.file, "--adapter", "caddyfile")
	g.env = append(os.Environ(), "PORT="+portOf(g.addr), "ADMIN="+g.admin, "DIR="+g.dir, "JWT_SECRET="+secret,
		"XDG_DATA_HOME="+g.dir, "XDG_CONFIG_HOME="+g.dir)
	g.env = append(g.env, g.extra...)
	g.cmd.Env = g.env
	g.cmd.Stdout, g.cmd.Stderr = g.log, g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	done := make(chan struct{})
	g.done = done
	cmd := g.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	g.t.Cleanup(func() { g.stop() })
	g.await()
}

// await waits until the process answers on its admin address, or has ended.
func (g *gateway) await() {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-g.done:
			g.t.Fatalf("the gateway has ended:\n%s", g.logged())
		default:
		}
		res, err := http.Get("http://" + g.admin + "/quota/status")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatalf("the gateway did not start within %s:\n%s", patience, g.logged())
}

func (g *gateway) logged() string {
	b, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// program is the path of the gateway's binary.
func (g *gateway) program() string {
	g.t.Helper()
	built := binary
	if g.built != nil {
		built = g.built
	}
	path, err := built()
	if err != nil {
		g.t.Fatal(err)
	}
	return path
}

// prepared is `caddy quota` with the gateway's config and environment.
func (g *gateway) prepared(args ...string) *exec.Cmd {
	g.t.Helper()
	cmd := command(g.t.Context(), g.program(), append([]string{"quota"}, append(args, "--config", g.file, "--adapter", "caddyfile")...)...)
	cmd.Env, cmd.Dir = g.env, g.dir
	return cmd
}

// command runs `caddy quota` with the gateway's config and environment.
func (g *gateway) command(args ...string) string {
	g.t.Helper()
	out, err := g.prepared(args...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("caddy quota %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// stop ends the process as an operator would, and waits for it.
func (g *gateway) stop() {
	select {
	case <-g.done:
		return
	default:
	}
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(patience):
		_ = g.cmd.Process.Kill()
		<-g.done
		g.t.Errorf("the gateway did not stop within %s:\n%s", patience, g.logged())
	}
	_ = g.log.Close()
	if strings.Contains(g.logged(), "WARNING: DATA RACE") {
		g.t.Errorf("a data race in the gateway:\n%s", g.logged())
	}
}

// kill ends the process with SIGKILL.
func (g *gateway) kill() {
	g.t.Helper()
	if err := g.cmd.Process.Kill(); err != nil {
		g.t.Fatal(err)
	}
	<-g.done
	_ = g.log.Close()
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	body []byte
}

// detail is the answer's `detail`, where it is an object.
func (r *reply) detail(t testing.TB) map[string]any {
	t.Helper()
	var v struct {
		Detail map[string]any `json:"detail"`
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%s: %v: %s", r.Status, err, r.body)
	}
	return v.Detail
}

// client does not follow redirects, decompress or share connections between tests.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// do sends a request; headers are "Name: value". A connection that the kernel
// resets with an old listener, right after a reload, is made again: nobody had
// accepted it.
func (g *gateway) do(method, path, token string, headers ...string) *reply {
	g.t.Helper()
	for attempt := 0; ; attempt++ {
		r, err := g.try(client(g.t), method, path, token, nil, headers...)
		if err == nil {
			return r
		}
		if attempt == 3 || !met(err) {
			g.t.Fatal(err)
		}
	}
}

func (g *gateway) try(c *http.Client, method, path, token string, body io.Reader, headers ...string) (*reply, error) {
	req, err := g.request(context.Background(), method, path, token, body, headers...)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return &reply{res, b}, err
}

// begin sends a request whose client leaves when ctx ends, and tells how that went.
func (g *gateway) begin(ctx context.Context, method, path, token string, headers ...string) <-chan error {
	ended := make(chan error, 1)
	go func() {
		req, err := g.request(ctx, method, path, token, nil, headers...)
		if err == nil {
			var res *http.Response
			if res, err = http.DefaultClient.Do(req); err == nil {
				err = res.Body.Close()
			}
		}
		ended <- err
	}()
	return ended
}

func (g *gateway) request(ctx context.Context, method, path, token string, body io.Reader, headers ...string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+g.addr+path, body)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	return req, nil
}

// want fails unless the answer has the status.
func (r *reply) want(t testing.TB, status int) *reply {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", r.StatusCode, status, r.body)
	}
	return r
}

// access is a token of the user as the auth backend would issue it.
func access(user string) string {
	return token(map[string]any{"sub": user, "type": "access"})
}

// token signs claims; iat and exp are added where they are missing.
func token(claims map[string]any) string {
	now := time.Now()
	if _, ok := claims["iat"]; !ok {
		claims["iat"] = now.Add(-5 * time.Second).Unix()
	}
	if _, ok := claims["exp"]; !ok {
		claims["exp"] = now.Add(time.Hour).Unix()
	}
	return gatetest.HS256(secret, claims)
}

// eventually waits for a condition that other processes bring about.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
