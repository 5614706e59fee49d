// Command embedded is what `make run` starts: Caddy with Quotagate from the
// root Caddyfile, two stand-in backends that know nothing of it, and demo users
// on every plan. All state is in one folder; nothing else has to run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	// The child is ended with the thread that started it: keep to the first.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "embedded:", err)
		os.Exit(1)
	}
}

// settings are where things are, and whom to listen for.
type settings struct {
	data, caddy, config string

	auth, dashboard string // addresses of the stand-in backends
	http, metrics   string // ports of the gateway
	admin           string // address of Caddy's admin API
}

func parseSettings(args []string) (settings, error) {
	s := settings{
		auth:      fromEnv("AUTH_UPSTREAM", "localhost:8001"),
		dashboard: fromEnv("DASHBOARD_UPSTREAM", "localhost:8002"),
		http:      fromEnv("QUOTA_HTTP_PORT", "8080"),
		metrics:   fromEnv("QUOTA_METRICS_PORT", "9090"),
		admin:     fromEnv("CADDY_ADMIN", "localhost:2019"),
	}
	flags := flag.NewFlagSet("embedded", flag.ContinueOnError)
	flags.StringVar(&s.data, "data", "data", "folder of secrets, records and logs")
	flags.StringVar(&s.caddy, "caddy", ".bin/caddy", "the Caddy to start")
	flags.StringVar(&s.config, "config", "Caddyfile", "its Caddyfile")
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	for _, file := range []string{s.caddy, s.config} {
		if _, err := os.Stat(file); err != nil {
			return settings{}, fmt.Errorf("%w: start it with `make run` in the project's folder", err)
		}
	}
	return s, nil
}

func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// run returns when ctx ends, with everything stopped that it started.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	s, err := parseSettings(args)
	if err != nil {
		return err
	}
	if err := checkPorts(ctx, s); err != nil {
		return err
	}
	secrets, err := loadSecrets(s.data)
	if err != nil {
		return err
	}
	users := demoUsers()
	if err := putOnPlans(ctx, s.recordsFile(), users); err != nil {
		return fmt.Errorf("putting the demo users on their plans: %w", err)
	}

	auth, err := newAuthBackend([]byte(secrets.jwt), users, time.Now)
	if err != nil {
		return err
	}
	backends, err := startBackends(ctx, []backend{
		{name: "auth backend", address: s.auth, handler: auth},
		{name: "dashboard backend", address: s.dashboard, handler: newDashboardBackend([]byte(secrets.jwt))},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backends.stop()) }()

	caddy, err := startCaddy(s, secrets)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, caddy.stop()) }()
	if err := caddy.awaitReady(ctx, "http://localhost:"+s.metrics+"/readyz"); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while starting
		}
		return err
	}

	if err := welcome(ctx, out, s, auth, users); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nstopping")
		backends.closeStreams() // Caddy waits for what is still being answered
		return nil
	case <-caddy.exited:
		return caddy.failure()
	case err := <-backends.failed:
		return err
	}
}
