package integration

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// mirror answers in many ways, as the path says, and writes down what it was asked.
type mirror struct {
	mu   sync.Mutex
	seen []string
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\nhost %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for _, name := range slices.Sorted(maps.Keys(h)) {
			fmt.Fprintf(&b, "%s: %q\n", name, h[name])
		}
		b.WriteString("--\n")
	}
	fmt.Fprintf(&b, "%d %v %.200q %v", len(body), r.TransferEncoding, body, err)
	m.mu.Lock()
	m.seen = append(m.seen, ephemeral.ReplaceAllString(b.String(), "ADDR"))
	m.mu.Unlock()
	answer(w, r, body)
}

// ephemeral is what differs between two runs of the same exchange.
var ephemeral = regexp.MustCompile(`127\.0\.0\.1:\d+|Date: [^\r\n]*|(boundary=|--)[0-9a-f]{60}`)

func (m *mirror) take() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := strings.Join(m.seen, "\n====\n")
	m.seen = nil
	return s
}

func answer(w http.ResponseWriter, r *http.Request, body []byte) {
	rc := http.NewResponseController(w)
	switch {
	case strings.Contains(r.URL.Path, "events"):
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = rc.Flush()
		}
	case strings.Contains(r.URL.Path, "trailers"):
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "with a trailer")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	case strings.Contains(r.URL.Path, "range"):
		http.ServeContent(w, r, "file.txt", time.Unix(1e9, 0), strings.NewReader(strings.Repeat("0123456789", 100)))
	case strings.Contains(r.URL.Path, "gzip"):
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03not really"))
	case strings.Contains(r.URL.Path, "empty"):
		w.WriteHeader(http.StatusNoContent)
	case strings.Contains(r.URL.Path, "hints"):
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "after hints")
	case strings.Contains(r.URL.Path, "teapot"):
		w.Header()["X-Many"] = []string{"a", "b", ""}
		w.Header().Set("Set-Cookie", "a=b; Path=/")
		w.Header().Add("Set-Cookie", "c=d")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "short and stout")
	case strings.Contains(r.URL.Path, "large"):
		_, _ = io.Copy(w, io.LimitReader(zeros{}, 3<<20))
	case strings.Contains(r.URL.Path, "limits"):
		w.Header().Set("RateLimit", `"own";r=1;t=1`)
		w.Header().Set("X-RateLimit-Limit", "1")
	default:
		fmt.Fprintf(w, "%s %s %d", r.Method, r.RequestURI, len(body))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// goAhead is what the server says itself, what it passes on from the backend, or
// both, before the body is sent: a matter of who is first, with or without us.
var goAhead = regexp.MustCompile(`HTTP/1\.1 100 Continue\r\n(?:[^\r\n]+\r\n)*\r\n`)

// exchanges are requests as they go over the wire.
var exchanges = map[string]string{
	"get":               "GET /items HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"http 1.0":          "GET /items HTTP/1.0\r\n\r\n",
	"http 1.0 keep":     "GET /items HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\nGET /items HTTP/1.0\r\nHost: a.example\r\n\r\n",
	"head":              "HEAD /large HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"encoded slash":     "GET /a%2Fb%2e%2e//c/../d;p=1?q=%20+&&x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"high bytes":        "GET /%ff%fe/\xc3\xa4 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"absolute":          "GET http://other.example/items?x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"post":              "POST /items HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
	"chunked trailers":  "POST /items HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n",
	"expect":            "POST /items HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
	"patch":             "PATCH /items HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	"odd method":        "BREW /teapot HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"many headers":      "GET /teapot HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nCookie: b=2\r\nAuthorization: Basic eDp5\r\nConnection: close\r\n\r\n",
	"accept encoding":   "GET /gzip HTTP/1.1\r\nHost: a.example\r\nAccept-Encoding: br, gzip\r\nConnection: close\r\n\r\n",
	"no encoding":       "GET /gzip HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"range":             "GET /range HTTP/1.1\r\nHost: a.example\r\nRange: bytes=10-19,30-\r\nConnection: close\r\n\r\n",
	"one range":         "GET /range HTTP/1.1\r\nHost: a.example\r\nRange: bytes=-5\r\nConnection: close\r\n\r\n",
	"not modified":      "GET /range HTTP/1.1\r\nHost: a.example\r\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\nConnection: close\r\n\r\n",
	"events":            "GET /events HTTP/1.1\r\nHost: a.example\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n",
	"trailers":          "GET /trailers HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: close\r\n\r\n",
	"no content":        "DELETE /empty HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"early hints":       "GET /hints HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"large":             "GET /large HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"own limits":        "GET /limits HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
	"options":           "OPTIONS /items HTTP/1.1\r\nHost: a.example\r\nOrigin: https://x.example\r\nAccess-Control-Request-Method: PUT\r\nConnection: close\r\n\r\n",
	"hop by hop":        "GET /items HTTP/1.1\r\nHost: a.example\r\nX-Hop: 1\r\nConnection: close, X-Hop\r\n\r\n",
	"forwarded":         "GET /items HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nConnection: close\r\n\r\n",
	"bad request":       "GET /items HTTP/1.1\r\nConnection: close\r\n\r\n",
	"two in a pipeline": "GET /items HTTP/1.1\r\nHost: a.example\r\n\r\nGET /teapot HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
}

// ours are the header lines that the gateway adds.
var ours = regexp.MustCompile(`(?i)(Ratelimit|Ratelimit-Policy|X-Ratelimit-Limit|X-Ratelimit-Remaining|X-Ratelimit-Reset): [^\r\n]*\r\n`)

func TestTransparency(t *testing.T) {
	t.Parallel()
	m := &mirror{}
	backend := strings.TrimPrefix(serve(t, m), "http://")
	plainAddr := gatetest.FreeAddr(t)
	config := func(transport string) string {
		return preamble + `http://:{$PORT} {
	quota {
		rule all {
			limit all 1000000/1h
			spend api_calls
			spend storage_bytes request_bytes
		}
	}
	reverse_proxy ` + backend + transport + `
}
http://:` + portOf(plainAddr) + ` {
	reverse_proxy ` + backend + transport + `
}
`
	}
	g := start(t, "", config(""))
	verbatim := start(t, "", strings.ReplaceAll(config(" {\n\t\ttransport http {\n\t\t\tcompression off\n\t\t}\n\t}"), portOf(plainAddr), portOf(gatetest.FreeAddr(t))))
	for name, request := range exchanges {
		want, wantSeen := wire(t, plainAddr, request), m.take()
		got, gotSeen := wire(t, g.addr, request), m.take()
		if !strings.Contains(name, "own limits") && !strings.Contains(name, "bad request") && name != "options" {
			if stripped := ours.ReplaceAllString(got, ""); stripped == got {
				t.Errorf("%s: no rate limit headers in %.300q", name, got)
			}
			got = ours.ReplaceAllString(got, "")
		}
		if name == "own limits" {
			got = strings.Replace(got, "Ratelimit-Policy", "ours", 1) // must not be there
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: the answer differs from plain Caddy's (-plain +ours):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantSeen, gotSeen); diff != "" {
			t.Errorf("%s: the backend was asked something else (-plain +ours):\n%s", name, diff)
		}
	}
	if seen := wire(t, verbatim.addr, exchanges["no encoding"]); !strings.Contains(seen, "not really") {
		t.Errorf("with compression off the bytes were changed: %q", seen)
	}
}

func TestWebSocketBytesPass(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	g := start(t, "", site(serve(t, echo), jobsSite))
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer %s\r\n\r\nearly", access("ws"))
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("RateLimit") == "" {
		t.Fatalf("status %d, headers %v", res.StatusCode, res.Header)
	}
	fmt.Fprint(conn, " and \x00\xff late")
	got := make([]byte, len("early and \x00\xff late"))
	if _, err := io.ReadFull(in, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != "early and \x00\xff late" {
		t.Errorf("echo = %q", got)
	}
}

// wire sends bytes and reads until the connection is closed.
func wire(t *testing.T, addr, request string) string {
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
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%.60q: %v after %d bytes", request, err, len(b))
	}
	s := ephemeral.ReplaceAllString(unchunk(t, goAhead.ReplaceAllString(string(b), "")), "VARIES")
	return strings.ReplaceAll(s, addr, "ADDR")
}

// unchunk joins the chunks of an answer: where they end is a matter of timing,
// with or without us. Everything else stays as it came.
func unchunk(t *testing.T, answer string) string {
	t.Helper()
	head, chunks, _ := strings.Cut(answer, "\r\n\r\n")
	if chunks == "" || !strings.Contains(head, "Transfer-Encoding: chunked") {
		return answer
	}
	var body strings.Builder
	for {
		size, after, ok := strings.Cut(chunks, "\r\n")
		n, err := strconv.ParseInt(size, 16, 32)
		if !ok || err != nil || len(after) < int(n) {
			t.Fatalf("not chunked: %.200q", chunks)
		}
		if n == 0 {
			return head + "\r\n\r\n" + body.String() + "\r\nTRAILERS\r\n" + after
		}
		body.WriteString(after[:n])
		chunks = strings.TrimPrefix(after[n:], "\r\n")
	}
}
