package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	// stopTimeout is above the grace period of the root Caddyfile.
	stopTimeout = 20 * time.Second
)

// process is the Caddy that runs.
type process struct {
	cmd     *exec.Cmd
	log     *os.File
	exited  chan struct{} // closed when it has ended
	waitErr error         // valid then
}

// recordsFile is the SQLite file of the embedded default.
func (s settings) recordsFile() string { return filepath.Join(s.data, "quota.db") }

// startCaddy starts Caddy with all of its state in the data folder, its log included.
func startCaddy(s settings, sec secrets) (*process, error) {
	data, err := filepath.Abs(s.data)
	if err != nil {
		return nil, fmt.Errorf("finding the data folder: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(data, "caddy.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening Caddy's log: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), s.caddy, "run", "--config", s.config, "--adapter", "caddyfile")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	cmd.Env = append(os.Environ(),
		"JWT_SECRET="+sec.jwt,
		"QUOTA_ENCRYPTION_KEY="+sec.encryption,
		"QUOTA_ADMINS="+adminID,
		"QUOTA_RECORDS=sqlite "+s.recordsFile(),
		"QUOTA_COUNTERS=memory",
		"QUOTA_BILLING="+fromEnv("QUOTA_BILLING", "fake "+filepath.Join(s.data, "billing-fake.json")),
		"AUTH_UPSTREAM="+s.auth,
		"DASHBOARD_UPSTREAM="+s.dashboard,
		"QUOTA_HTTP_PORT="+s.http,
		"QUOTA_METRICS_PORT="+s.metrics,
		"CADDY_ADMIN="+s.admin,
		"XDG_DATA_HOME="+data,
		"XDG_CONFIG_HOME="+data,
	)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting Caddy: %w", err), log.Close())
	}
	p := &process{cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		p.waitErr = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// awaitReady returns when the URL answers 200.
func (p *process) awaitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, url) {
			return nil
		}
		select {
		case <-p.exited:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("waiting for Caddy to be ready at %s: %w\n%s", url, ctx.Err(), p.tail())
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false // not listening yet
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// failure says why Caddy ended, which it should not have.
func (p *process) failure() error {
	return fmt.Errorf("caddy ended (%s)\n%s", p.cmd.ProcessState, p.tail())
}

// tail is the end of Caddy's log, for a person to read.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log.Name())
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return fmt.Sprintf("the end of %s:\n%s", p.log.Name(), strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// stop asks Caddy to end, and makes it end if it does not. It does nothing if
// Caddy has ended already: that was reported.
func (p *process) stop() error {
	select {
	case <-p.exited:
		return p.log.Close()
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(fmt.Errorf("stopping Caddy: %w", err), p.log.Close())
	}
	var err error
	select {
	case <-p.exited:
		if p.waitErr != nil {
			err = fmt.Errorf("stopping Caddy: %w\n%s", p.waitErr, p.tail())
		}
	case <-time.After(stopTimeout):
		err = errors.Join(fmt.Errorf("caddy did not stop within %s and was killed", stopTimeout), p.cmd.Process.Kill())
		<-p.exited
	}
	return errors.Join(err, p.log.Close())
}
