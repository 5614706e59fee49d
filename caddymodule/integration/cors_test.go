package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const (
	appOrigin = "Origin: https://app.example.com"
	wantsGet  = "Access-Control-Request-Method: GET"
)

// echoes is a backend that lets scripts of one origin read its answers.
func echoes(origin string) func(*http.Request) gatetest.Answer {
	return func(r *http.Request) gatetest.Answer {
		if r.Header.Get("Origin") != origin {
			return gatetest.Answer{}
		}
		return gatetest.Answer{Header: http.Header{"Access-Control-Allow-Origin": {origin}, "Vary": {"Origin"}}}
	}
}

func (r *reply) allows(t testing.TB, want string) {
	t.Helper()
	if got := r.Header.Get("Access-Control-Allow-Origin"); got != want {
		t.Errorf("%s: Access-Control-Allow-Origin = %q, want %q", r.Status, got, want)
	}
}

// A browser's first contact is a preflight, and then perhaps a token that has
// expired: its script must be able to read that. So it is after a reload.
func TestDenialsAllowWhatPreflightsDid(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	b, other := gatetest.NewBackend(echoes(origin)), gatetest.NewBackend(nil)
	otherAddr := gatetest.FreeAddr(t)
	g := start(t, "", site(b.Serve(t).URL, tightSite)+
		"http://:"+portOf(otherAddr)+" {\n"+tightSite+"\treverse_proxy "+strings.TrimPrefix(other.Serve(t).URL, "http://")+"\n}\n")
	expired := token(map[string]any{"sub": "u", "type": "access", "exp": 1})

	g.do("GET", "/items", expired, appOrigin).want(t, 401).allows(t, "")
	g.do("OPTIONS", "/items", "", appOrigin, wantsGet).want(t, 200).allows(t, origin)
	g.do("GET", "/items", expired, appOrigin).want(t, 401).allows(t, origin)
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.do("GET", "/items", expired, appOrigin).want(t, 401).allows(t, origin)
	g.do("GET", "/items", expired, "Origin: https://evil.example.com").want(t, 401).allows(t, "")

	// The other site's backend has allowed nobody, whatever host it is asked for.
	host := g.addr
	g.addr = otherAddr
	g.do("OPTIONS", "/items", "", appOrigin, wantsGet).want(t, 200).allows(t, "")
	g.do("GET", "/items", expired, appOrigin).want(t, 401).allows(t, "")
	got := wire(t, otherAddr, "GET /items HTTP/1.1\r\nHost: "+host+"\r\n"+appOrigin+
		"\r\nAuthorization: Bearer "+expired+"\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, " 401 ") || strings.Contains(got, "Access-Control-Allow-Origin") {
		t.Errorf("asked by another site's host it allows what that one's backend does:\n%s", got)
	}
}

// Nobody has been looked for when a preflight passes: the placeholders are empty,
// and never their own names.
func TestPreflightsNameNobody(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", preamble+`http://:{$PORT} {
	quota {
		rule api {
			limit tight 1/1h
		}
	}
	reverse_proxy `+strings.TrimPrefix(b.Serve(t).URL, "http://")+` {
		header_up X-Told "<{http.auth.user.id}{quota.plan}{quota.account}{quota.rule}{quota.remaining.tight}>"
	}
}
`)
	g.do("OPTIONS", "/items", access("u"), appOrigin, wantsGet).want(t, 200)
	for _, e := range b.Entries() {
		if got := e.Header.Get("X-Told"); got != "<>" {
			t.Errorf("the backend was told %q", got)
		}
	}
}
