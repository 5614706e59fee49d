package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// output is what the program has printed so far.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	greeted chan struct{} // closed when the last line worth trying is out
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	had := strings.Contains(o.b.String(), "Worth trying")
	n, err := o.b.Write(p)
	if !had && strings.Contains(o.b.String(), "Worth trying") {
		close(o.greeted)
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// freePorts are ports that nobody else gets.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	ports := make([]string, n)
	for i := range ports {
		_, ports[i], _ = net.SplitHostPort(gatetest.FreeAddr(t))
	}
	return ports
}

// start runs the program as `make run` does and answers its address and tokens
// by plan. What it answers last stops it and reports how it ended.
func start(t *testing.T, caddy, data string) (url string, tokens map[string]string, stop func() error) {
	t.Helper()
	ports := freePorts(t, 5)
	for i, variable := range []string{"QUOTA_HTTP_PORT", "QUOTA_METRICS_PORT"} {
		t.Setenv(variable, ports[i])
	}
	for i, variable := range []string{"CADDY_ADMIN", "AUTH_UPSTREAM", "DASHBOARD_UPSTREAM"} {
		t.Setenv(variable, "localhost:"+ports[i+2])
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{greeted: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-data", data, "-caddy", caddy, "-config", filepath.Join("..", "..", "Caddyfile")}, out)
	}()
	select {
	case <-out.greeted:
	case err := <-ended:
		cancel()
		t.Fatalf("ended at the start: %v\n%s", err, out)
	}
	tokens = map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+)=(\S+)$`).FindAllStringSubmatch(out.String(), -1) {
		tokens[strings.ToLower(m[1])] = m[2]
	}
	return "http://localhost:" + ports[0], tokens, func() error {
		cancel()
		return <-ended
	}
}

func request(t *testing.T, method, url, token string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// The tests of the whole program set the environment, so they are one after the other.
func TestMakeRun(t *testing.T) {
	caddy := filepath.Join(t.TempDir(), "caddy")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", caddy, "../../caddymodule/cmd/caddy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Caddy: %v\n%s", err, out)
	}
	data := filepath.Join(t.TempDir(), "data")

	url, tokens, stop := start(t, caddy, data)
	for _, plan := range []string{"free", "pro", "enterprise"} {
		if _, body := request(t, "GET", url+"/v1/subscription/me", tokens[plan]); !strings.Contains(body, fmt.Sprintf(`"name":%q`, plan)) {
			t.Errorf("plan of %s: %s", plan, body)
		}
		if res, body := request(t, "GET", url+"/v1/auth/me", tokens[plan]); res.StatusCode != 200 || !strings.Contains(body, `"subscription":{"plan":"`+plan) {
			t.Errorf("profile of %s: %d %s", plan, res.StatusCode, body)
		}
	}
	res, _ := request(t, "GET", url+"/items", tokens["pro"])
	if got := res.Header.Get("RateLimit-Policy"); !strings.Contains(got, `"api";q=300;w=60`) {
		t.Errorf("RateLimit-Policy of pro: %q", got)
	}
	for i := range 11 {
		want := http.StatusCreated
		if i == 10 {
			want = http.StatusPaymentRequired
		}
		if res, body := request(t, "POST", url+"/jobs", tokens["free"]); res.StatusCode != want {
			t.Errorf("job %d: %d %s, want %d", i+1, res.StatusCode, body, want)
		}
	}
	stream, err := http.Get(url + "/events") // an open stream must not hold up the stop
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	began := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("stopping took %s", took)
	}

	url, tokens, stop = start(t, caddy, data)
	if res, body := request(t, "POST", url+"/jobs", tokens["free"]); res.StatusCode != http.StatusPaymentRequired {
		t.Errorf("after a restart: %d %s", res.StatusCode, body)
	}
	if _, body := request(t, "GET", url+"/v1/subscription/me", tokens["pro"]); !strings.Contains(body, `"name":"pro"`) {
		t.Errorf("plan after a restart: %s", body)
	}
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestCaddyThatEndsIsReported(t *testing.T) {
	folder := t.TempDir()
	caddy := filepath.Join(folder, "caddy")
	if err := os.WriteFile(caddy, []byte("#!/bin/sh\necho the reason\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := startCaddy(settings{data: folder, caddy: caddy, config: "Caddyfile"}, secrets{})
	if err != nil {
		t.Fatal(err)
	}
	err = p.awaitReady(t.Context(), "http://127.0.0.1:1/readyz")
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
