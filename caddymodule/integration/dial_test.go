package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"golang.org/x/sys/unix"
)

// mute listens on an address where a connection is never made: its queue is full.
func mute(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	conn, err := net.Dial("tcp", addr.String()) // the one that the queue holds
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return addr
}

// dialing reports whether somebody is waiting for a connection to the address (proc_net_tcp).
func dialing(t *testing.T, to netip.AddrPort) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const synSent = "02"
	port := fmt.Sprintf(":%04X", to.Port())
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[2], port) && f[3] == synSent {
			return true
		}
	}
	return false
}

// A client may leave while its backend is still being dialed. net/http does not say
// how far the request has come, so nobody knows what became of it, and the charge stays.
func TestClientLeavesDuringTheDial(t *testing.T) {
	t.Parallel()
	backend := mute(t)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule jobs {
			spend jobs
			refund_unless 2xx
		}
	}
	handle /missing {
		respond 404
	}
	reverse_proxy `+backend.String()+` {
		transport http {
			dial_timeout 1m
		}
	}
}
`)
	for i, method := range []string{"GET", "POST"} {
		user := fmt.Sprint("leaving-", i)
		ctx, leave := context.WithCancel(t.Context())
		left := g.begin(ctx, method, "/jobs", access(user))
		eventually(t, 10*time.Second, "the gateway dials", func() bool { return dialing(t, backend) })
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatalf("the client that left: %v", err)
		}
		admitted := fmt.Sprintf(`quotagate_decisions_total{outcome="admitted",plan="free",rule="jobs",scope="jobs"} %d`, 21*i+1)
		eventually(t, 10*time.Second, "the request has ended", func() bool {
			_, metrics := g.adminGet(t, "/metrics")
			return strings.Contains(metrics, admitted+"\n")
		})
		// Each of these is given back after its answer, the first must not be.
		for range 20 {
			if got := g.do("GET", "/missing", access(user)).want(t, 404).Header.Get("RateLimit"); !strings.Contains(got, "r=8;") {
				t.Fatalf("%s: RateLimit = %s after a client left, want r=8 while one is open", method, got)
			}
		}
	}
}

// A backend that TLS is not agreed on with is not reached: what it would have cost is
// given back. One that has answered an earlier attempt was reached, and it stays.
func TestBackendsThatAreNotReached(t *testing.T) {
	t.Parallel()
	plain := gatetest.NewBackend(nil).Serve(t)
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	busy := gatetest.NewBackend(func(*http.Request) gatetest.Answer { return gatetest.Answer{Status: 503} }).Serve(t)
	gone := gatetest.FreeAddr(t)
	backend := func(u string) string { return strings.SplitAfter(u, "://")[1] }
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule jobs {
			spend jobs
		}
	}
	handle / {
		respond 200
	}
	reverse_proxy /plain https://`+backend(plain.URL)+`
	reverse_proxy /untrusted https://`+backend(untrusted.URL)+`
	reverse_proxy /busy `+backend(busy.URL)+` `+gone+` {
		lb_policy first
		lb_retries 1
		lb_retry_match {
			expression `+"`{rp.status_code} == 503`"+`
		}
		fail_duration 10s
		unhealthy_status 503
	}
}
`)
	user := access("unreached")
	for _, path := range []string{"/plain", "/untrusted"} {
		g.do("GET", path, user).want(t, 502)
	}
	if got := g.do("GET", "/", user).want(t, 200).Header.Get("RateLimit"); !strings.Contains(got, `"jobs/month";r=9;`) {
		t.Errorf("RateLimit = %s, want r=9: only this one was answered", got)
	}
	g.do("GET", "/busy", user).want(t, 502)
	if got := g.do("GET", "/", user).want(t, 200).Header.Get("RateLimit"); !strings.Contains(got, `"jobs/month";r=7;`) {
		t.Errorf("RateLimit = %s, want r=7: a backend has answered the one before", got)
	}
}
