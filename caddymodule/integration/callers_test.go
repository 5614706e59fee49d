package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const apiSite = `	quota {
		rule login {
			match path /v1/auth/login
			by ip
			limit login 3/1h
			invalid_token anonymous
		}
		rule api {
			match {
				not path /v1/auth/*
			}
			limit api 100/1m
			spend api_calls
		}
		forward_identity on
	}
`

func TestInvalidTokens(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, apiSite))
	expired := token(map[string]any{"sub": "u", "type": "access", "exp": time.Now().Add(-time.Hour).Unix()})
	refresh := token(map[string]any{"sub": "u", "type": "refresh"})
	forged := gatetest.HS256("another-secret-of-at-least-32-bytes!", gatetest.Claims("u", time.Hour))
	for name, tok := range map[string]string{"expired": expired, "refresh": refresh, "forged": forged, "garbage": "garbage"} {
		r := g.do("GET", "/items", tok).want(t, 401)
		if got, want := string(r.body), `{"detail":"Could not validate credentials"}`; got != want {
			t.Errorf("%s: body %s, want %s", name, got, want)
		}
		if got, want := r.Header.Get("WWW-Authenticate"), `Bearer error="invalid_token"`; got != want {
			t.Errorf("%s: WWW-Authenticate = %q, want %q", name, got, want)
		}
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Quota-Decision-Id") == "" {
			t.Errorf("%s: headers %v", name, r.Header)
		}
	}
	if n := b.Count(nil); n != 0 {
		t.Errorf("the backend saw %d refused requests", n)
	}
	// A client whose token has expired logs in with it still in the header.
	g.do("POST", "/v1/auth/login", expired).want(t, 200)
	e := b.Entries()[0]
	if got := e.Header.Get("Authorization"); got != "Bearer "+expired {
		t.Errorf("Authorization = %q at the backend, want the client's own", got)
	}
	g.do("POST", "/v1/auth/login", refresh).want(t, 200)
	g.do("POST", "/v1/auth/login", "").want(t, 200)
	d := g.do("POST", "/v1/auth/login", "").want(t, 429).detail(t)
	if d["error"] != "rate_limit_exceeded" || d["scope"] != "login" || d["limit"] != 3.0 || d["window"] != 3600.0 {
		t.Errorf("detail = %v", d)
	}
}

func TestIdentityCannotBeSpoofed(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, apiSite))
	g.do("GET", "/items", access("honest"), "X-Quota-User: victim", "x_quota_user: victim", "X-Quota_Plan: enterprise",
		"X-Quota-Decision-Id: x", "X-Quota-Account: victim").want(t, 200)
	h := b.Entries()[0].Header
	for name, values := range h {
		folded := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		switch {
		case !strings.HasPrefix(folded, "x-quota-"):
		case folded == "x-quota-user", folded == "x-quota-account":
			if len(values) != 1 || values[0] != "honest" {
				t.Errorf("%s = %q at the backend", name, values)
			}
		case folded == "x-quota-plan" && len(values) == 1 && values[0] == "free":
		default:
			t.Errorf("%s = %q reached the backend", name, values)
		}
	}
	// What the backend might read differently than the gateway is refused.
	for _, raw := range []string{
		"Authorization: Bearer " + access("a") + "\r\nAuthorization: Bearer " + access("b"),
		"Authorization: Bearer " + access("a") + "\r\nConnection: close, Authorization",
		"Transfer-Encoding: chunked\r\nTrailer: Authorization",
	} {
		status, _ := g.raw(t, "GET /items HTTP/1.1\r\nHost: x\r\n"+raw+"\r\n\r\n0\r\n\r\n")
		if status != 400 {
			t.Errorf("status %d for %.60q, want 400", status, raw)
		}
	}
	for _, path := range []string{"/%00", "/items%0d", "/%1fitems", "/a%7f"} {
		if status, _ := g.raw(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 {
			t.Errorf("status %d for %s, want 400", status, path)
		}
	}
	if n := b.Count(nil); n != 1 {
		t.Errorf("the backend saw %d requests, want 1", n)
	}
}

func TestAnonymousCallersShareAPrefix(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", strings.Replace(site(b.Serve(t).URL, apiSite), "grace_period 10s",
		"grace_period 10s\n\tservers {\n\t\ttrusted_proxies static 127.0.0.0/8\n\t}", 1))
	left := func(ip string) string {
		return g.do("POST", "/v1/auth/login", "", "X-Forwarded-For: "+ip).Header.Get("X-RateLimit-Remaining")
	}
	for _, step := range [][2]string{
		{"2001:db8:1:2::1", "2"}, {"2001:db8:1:2:ffff::9", "1"}, {"2001:db8:1:3::1", "2"},
		{"192.0.2.1", "2"}, {"::ffff:192.0.2.1", "1"}, {"192.0.2.2", "2"},
	} {
		if got := left(step[0]); got != step[1] {
			t.Errorf("%s: %s left, want %s", step[0], got, step[1])
		}
	}
}

func TestSuspensionAndRevocation(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, apiSite))
	g.do("GET", "/items", access("bad")).want(t, 200)
	g.exec(`INSERT INTO user_controls (user_id, state) VALUES ('bad', 'suspended')`)
	g.noticed()
	d := g.do("GET", "/items", access("bad")).want(t, 403).detail(t)
	if d["error"] != "account_suspended" {
		t.Errorf("detail = %v", d)
	}
	// Also where an invalid token would pass as anonymous.
	g.do("POST", "/v1/auth/login", access("bad")).want(t, 403)

	old := token(map[string]any{"sub": "out", "type": "access", "sid": "s1", "iat": time.Now().Unix() - 60})
	other := token(map[string]any{"sub": "out", "type": "access", "sid": "s2", "iat": time.Now().Unix() - 60})
	g.do("GET", "/items", old).want(t, 200)
	g.exec(`INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'out')`)
	g.noticed()
	g.do("GET", "/items", old).want(t, 401)
	g.do("GET", "/items", other).want(t, 200)
	g.exec(`INSERT INTO user_controls (user_id, tokens_valid_after) VALUES ('out', strftime('%Y-%m-%d %H:%M:%f000Z', 'now', '-10 seconds'))`)
	g.noticed()
	g.do("GET", "/items", other).want(t, 401)
	g.do("GET", "/items", token(map[string]any{"sub": "out", "type": "access", "iat": time.Now().Unix()})).want(t, 200)
	g.do("POST", "/v1/auth/login", old).want(t, 200) // as anonymous
}

func TestOpenStreamsOfASuspendedUserAreClosed(t *testing.T) {
	t.Parallel()
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
			_ = rw.Flush()
			_, _ = io.Copy(io.Discard, conn)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	g := start(t, "", site(serve(t, upstream), apiSite))
	open := func(upgrade string) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", access("streamer"), upgrade)
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadString('o') // of hello
			if err != nil {
				t.Fatalf("the stream did not begin: %v", err)
			}
			if strings.HasSuffix(line, "hello") {
				return conn, in
			}
		}
	}
	events, eventsIn := open("")
	socket, socketIn := open("Connection: Upgrade\r\nUpgrade: websocket\r\n")
	g.exec(`INSERT INTO user_controls (user_id, state) VALUES ('streamer', 'suspended')`)
	for name, c := range map[string]struct {
		net.Conn
		in *bufio.Reader
	}{"event stream": {events, eventsIn}, "websocket": {socket, socketIn}} {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := io.Copy(io.Discard, c.in)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the %s was still open after 5 s", name)
		}
	}
}

func TestPreflightsPassUntouched(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(*http.Request) gatetest.Answer {
		return gatetest.Answer{Header: http.Header{
			"Access-Control-Allow-Origin": {"https://app.example.com"}, "Vary": {"Origin"},
			"Access-Control-Allow-Credentials": {"true"},
		}}
	})
	g := start(t, "", site(b.Serve(t).URL, `	quota {
		anonymous deny
		rule api {
			limit tight 1/1h
		}
	}
`))
	origin := "Origin: https://app.example.com"
	for range 5 {
		r := g.do("OPTIONS", "/items", "", origin, "Access-Control-Request-Method: GET").want(t, 200)
		if r.Header.Get("RateLimit") != "" {
			t.Error("a preflight has rate limit headers")
		}
	}
	g.do("GET", "/items", access("u"), origin).want(t, 200)
	r := g.do("GET", "/items", access("u"), origin).want(t, 429)
	if got := r.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example.com" {
		t.Errorf("Access-Control-Allow-Origin = %q on a denial, want what the backend answers", got)
	}
	if got := r.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(strings.ToLower(got), "retry-after") {
		t.Errorf("Access-Control-Expose-Headers = %q", got)
	}
	if got := g.do("GET", "/items", access("u"), "Origin: https://evil.example.com").Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("Access-Control-Allow-Origin = %q for an origin that the backend never allowed", got)
	}
	g.do("OPTIONS", "/items", "").want(t, 401) // no preflight
	g.do("GET", "/items", "").want(t, 401)
}

// raw sends bytes as they are and answers the status and the whole reply.
func (g *gateway) raw(t testing.TB, request string) (int, string) {
	t.Helper()
	return rawTo(t, g.addr, request)
}

func rawTo(t testing.TB, addr, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && strings.Contains(request, "HTTP/1.0") {
		_ = tcp.CloseWrite()
	}
	in := bufio.NewReader(conn)
	head, err := in.ReadString('\n')
	if err != nil {
		t.Fatalf("reading the answer to %.60q: %v", request, err)
	}
	var status int
	if _, err := fmt.Sscanf(head, "HTTP/%s %d", new(string), &status); err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	return status, head
}

// serve runs a handler until the test ends.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "http://" + l.Addr().String()
}
