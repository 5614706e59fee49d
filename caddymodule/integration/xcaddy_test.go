package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// buildTimeout bounds a release build on a machine that has compiled nothing yet.
const buildTimeout = 10 * time.Minute

// pluginModule and pluginCode are somebody else's plugin, as small as it can be.
const (
	pluginModule = "module example.com/greeter\n\ngo 1.25\n"
	pluginCode   = `// Package greeter is a plugin of somebody else.
package greeter

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() { caddy.RegisterModule(Greeter{}) }

type Greeter struct{}

func (Greeter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.greeter", New: func() caddy.Module { return new(Greeter) }}
}

func (Greeter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}
`
)

// A release build has our modules and somebody else's, and limits requests.
func TestXcaddyBuildLimits(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": pluginModule, "greeter.go": pluginCode} {
		path := filepath.Join(dir, "greeter", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Paths are the caller's, who is not in the project's folder.
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	build := exec.CommandContext(ctx, filepath.Join(root, "xcaddy.sh"), "-o", "release", "--with", "example.com/greeter@v0.0.0=greeter")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("xcaddy.sh: %v\n%s", err, out)
	}
	release := filepath.Join(dir, "release")

	out, err := exec.CommandContext(t.Context(), release, "list-modules").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := strings.Fields(string(out))
	for _, id := range []string{
		"quota", "http.handlers.quota", "http.handlers.quota_account", "http.handlers.quota_profile", "http.handlers.quota_health",
		"admin.api.quota", "quota.verifiers.jwt", "quota.counters.memory", "quota.records.sqlite", "http.handlers.greeter",
	} {
		if !slices.Contains(modules, id) {
			t.Errorf("list-modules does not show %s:\n%s", id, out)
		}
	}
	limitedBy(t, release, dir)
}

// limitedBy starts a build with a config of one rule, and sends requests until
// it denies.
func limitedBy(t *testing.T, caddy, dir string) {
	t.Helper()
	addr, admin := gatetest.FreeAddr(t), gatetest.FreeAddr(t)
	file := filepath.Join(dir, "Caddyfile")
	config := site(gatetest.NewBackend(nil).Serve(t).URL, `	quota_account
	quota {
		rule tight {
			limit tight 2/1h
		}
	}
`)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := command(ctx, caddy, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "PORT="+portOf(addr), "ADMIN="+admin, "DIR="+dir, "JWT_SECRET="+secret,
		"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("the release's log:\n%s", log.String())
		}
	})
	c := client(t)
	get := func(path string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Authorization", "Bearer "+access("u"))
		res, err := c.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return res.StatusCode, string(b), err
	}
	eventually(t, patience, "the release answers", func() bool {
		status, _, err := get("/v1/subscription/me")
		return err == nil && status == http.StatusOK
	})
	var got []string
	for range 3 {
		status, body, err := get("/")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(status))
		if status == http.StatusTooManyRequests && !strings.Contains(body, `"error":"rate_limit_exceeded"`) {
			t.Errorf("body %s", body)
		}
	}
	if s := strings.Join(got, " "); s != "200 200 429" {
		t.Errorf("status %s of three requests where two are allowed, want 200 200 429", s)
	}
}
