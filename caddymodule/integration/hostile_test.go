package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// net/http keeps trailers that nobody has announced, if there is one that was.
func TestTrailersNameNobody(t *testing.T) {
	t.Parallel()
	m := &mirror{}
	g := start(t, "", site(serve(t, m), apiSite))
	for kind, head := range map[string]string{
		"a request":   "POST /items HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + access("honest"),
		"a preflight": "OPTIONS /items HTTP/1.1\r\nHost: x\r\nOrigin: https://x.example\r\nAccess-Control-Request-Method: GET",
	} {
		request := func(announced string, trailers ...string) string {
			return head + "\r\nTransfer-Encoding: chunked\r\nTrailer: " + announced + "\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n" +
				strings.Join(trailers, "\r\n") + "\r\n\r\n"
		}
		wire(t, g.addr, request("X-Sum", "X-Sum: 42", "Authorization: Bearer "+access("victim"), "Cookie: session=victim",
			"X-Api-Key: victim", "X-Org-Id: victim", "X-Quota-User: victim", "X_Quota_Account: victim"))
		seen := m.take()
		if !strings.Contains(seen, `X-Sum: ["42"]`) {
			t.Errorf("an honest trailer of %s did not reach the backend:\n%s", kind, seen)
		}
		if strings.Contains(seen, "victim") || strings.Contains(seen, access("victim")) {
			t.Errorf("a trailer of %s tells the backend who asks:\n%s", kind, seen)
		}
		if answer := wire(t, g.addr, request("X-Quota-User", "X-Quota-User: victim")); !strings.HasPrefix(answer, "HTTP/1.1 400 ") || m.take() != "" {
			t.Errorf("%s that announces a trailer with its caller is answered %q", kind, answer)
		}
	}
}

// Behind an upgrade to another form of HTTP a client would send as many requests
// as it likes. The offer is dropped: clients that make it to everybody are served.
func TestUpgradesToHTTPAreNotPassedOn(t *testing.T) {
	t.Parallel()
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offer := r.Header.Get("Upgrade")
		if offer == "" {
			fmt.Fprintf(w, "served as %s", r.Proto)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", offer)
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, conn)
	})
	g := start(t, "", site(serve(t, upstream), apiSite))
	for _, offer := range []string{"h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.0", "h2"} {
		for _, method := range []string{"GET", "OPTIONS"} {
			status, _ := g.raw(t, method+" /items HTTP/1.1\r\nHost: x\r\nOrigin: https://x.example\r\nAccess-Control-Request-Method: GET\r\n"+
				"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: "+offer+"\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
			if status != http.StatusOK {
				t.Errorf("%s with Upgrade: %s: %d, want 200 without the upgrade", method, offer, status)
			}
		}
	}
	if status, _ := g.raw(t, "GET /items HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); status != http.StatusSwitchingProtocols {
		t.Errorf("websocket: %d, want 101", status)
	}
}

// A rule by a header counts by what the backend reads, or not at all.
func TestKeyHeadersAreReadOneWay(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"header X-Tenant", "{header.X-Tenant}", "{header.X-Region}{header.X-Tenant}{query.tenant}"} {
		b := gatetest.NewBackend(nil)
		g := start(t, "", site(b.Serve(t).URL, `	quota {
		rule tenant {
			by `+by+`
			limit tenant 3/1h
		}
	}
`))
		for range 3 {
			g.do("GET", "/", "", "X-Tenant: real").want(t, 200)
		}
		g.do("GET", "/", "", "X-Tenant: real").want(t, 429)
		for _, sent := range []string{
			"X-Tenant: fresh\r\nX-Tenant: real", "X-Tenant: fresh\r\nConnection: close, x-tenant",
			"X-Tenant: fresh\r\nX-TENANT: real",
		} {
			if status, _ := g.raw(t, "GET / HTTP/1.1\r\nHost: x\r\n"+sent+"\r\n\r\n"); status != http.StatusBadRequest {
				t.Errorf("by %s: %d for %q, want 400", by, status, sent)
			}
		}
		g.do("GET", "/", "", "X-Tenant: other").want(t, 200)
		if strings.Contains(by, "query") {
			g.do("GET", "/?tenant=fresh&tenant=real", "").want(t, 400)
		}
		if n := b.Count(nil); n != 4 {
			t.Errorf("by %s: the backend saw %d requests, want 4", by, n)
		}
	}
}

// A body that turns out too large breaks off a request that the backend may have
// acted on. It is no refund; one that was refused by its announced length is.
func TestBodiesThatBreakOffStayCharged(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule jobs {
			match {
				method POST
			}
			spend jobs
			refund_unless 2xx
		}
	}
	request_body {
		max_size 1KB
	}
	reverse_proxy `+strings.TrimPrefix(b.Serve(t).URL, "http://")+`
}
`)
	g.roomy()
	large := strings.Repeat("x", 4096)
	g.post("/jobs", access("u"), large).want(t, http.StatusRequestEntityTooLarge)
	r, err := g.try(client(t), "POST", "/jobs", access("u"), io.MultiReader(strings.NewReader(large)))
	if err != nil {
		t.Fatal(err)
	}
	r.want(t, http.StatusRequestEntityTooLarge)
	g.stop()
	if used := g.used(t, "u", "jobs", "month"); used != 1 {
		t.Errorf("%d jobs charged, want 1: of the request that broke off", used)
	}
}

// 499 is what Caddy's proxy says of a request that was cancelled, perhaps in the
// place of another's: nobody knows what the backend has done.
func TestCancelledRequestsStayCharged(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(*http.Request) gatetest.Answer { return gatetest.Answer{Status: 499} })
	g := start(t, "", site(b.Serve(t).URL, jobsSite))
	g.do("POST", "/jobs", access("u")).want(t, 499)
	b.Answer(func(*http.Request) gatetest.Answer { return gatetest.Answer{Status: 500} })
	g.do("POST", "/jobs", access("u")).want(t, 500)
	g.stop()
	if used := g.used(t, "u", "jobs", "month"); used != 1 {
		t.Errorf("%d jobs charged, want the one of 499", used)
	}
}
