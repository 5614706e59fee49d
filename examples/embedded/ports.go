package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// checkPorts reports the first port that somebody listens on already. Caddy
// would not: it shares a port with whoever else allows it (SO_REUSEPORT), and
// requests would go now here, now there.
func checkPorts(ctx context.Context, s settings) error {
	ports := []struct{ what, address, change string }{
		{"the gateway", "localhost:" + s.http, "QUOTA_HTTP_PORT=8081"},
		{"metrics and health", "localhost:" + s.metrics, "QUOTA_METRICS_PORT=9091"},
		{"Caddy's admin API", s.admin, "CADDY_ADMIN=localhost:2020"},
		{"the auth backend", s.auth, "AUTH_UPSTREAM=localhost:8101"},
		{"the dashboard backend", s.dashboard, "DASHBOARD_UPSTREAM=localhost:8102"},
	}
	for _, p := range ports {
		if taken(ctx, p.address) {
			return fmt.Errorf("%s is taken, and %s needs it: stop what listens there, or choose another with `%s make run`",
				p.address, p.what, p.change)
		}
	}
	return nil
}

// taken reports whether somebody accepts connections at the address, over
// either version of IP where it names a host.
func taken(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	for _, network := range []string{"tcp4", "tcp6"} {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			continue // refused, or no such address family
		}
		_ = conn.Close() // it was opened to see that it can be
		return true
	}
	return false
}
