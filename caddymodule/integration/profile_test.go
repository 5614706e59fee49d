package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

const profileSite = `	quota {
		rule api {
			limit api
		}
	}
	quota_profile /v1/auth/me {
		max_size 1kB
	}
`

func TestProfileShowsTheSubscription(t *testing.T) {
	t.Parallel()
	body := `{"id": 9007199254740993, "email":"a@b", "x":"\u00e9" }`
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		h := http.Header{"Content-Type": {"application/json"}, "Etag": {`"v1"`}}
		switch r.URL.Query().Get("as") {
		case "text":
			h.Set("Content-Type", "text/plain")
		case "large":
			return gatetest.Answer{Header: h, Body: []byte(`{"x":"` + strings.Repeat("a", 1000) + `"}`)}
		case "has":
			return gatetest.Answer{Header: h, Body: []byte(`{"subscription":null}`)}
		case "404":
			return gatetest.Answer{Status: 404, Header: h, Body: []byte(`{"detail":"no"}`)}
		}
		return gatetest.Answer{Header: h, Body: []byte(body)}
	})
	g := start(t, "", site(b.Serve(t).URL, profileSite))
	g.subscribe("payer", "pro")
	g.noticed()
	const free = `"subscription":{"plan":"free","display_name":"Free Plan","status":"active","current_period_end":null,` +
		`"features":{"api_access":true,"custom_models":false,"priority_support":false}}`
	edited := strings.Replace(body, ` }`, `,`+free+` }`, 1)
	for _, tc := range []struct {
		name, path, token, want string
		status                  int
	}{
		{"a user", "/v1/auth/me", access("user"), edited, 200},
		{"nobody", "/v1/auth/me", "", body, 200},
		{"another path", "/v1/auth/you", access("user"), body, 200},
		{"not JSON", "/v1/auth/me?as=text", access("user"), body, 200},
		{"too large", "/v1/auth/me?as=large", access("user"), `{"x":"` + strings.Repeat("a", 1000) + `"}`, 200},
		{"has one", "/v1/auth/me?as=has", access("user"), `{"subscription":null}`, 200},
		{"not found", "/v1/auth/me?as=404", access("user"), `{"detail":"no"}`, 404},
	} {
		r := g.do("GET", tc.path, tc.token).want(t, tc.status)
		if diff := cmp.Diff(tc.want, string(r.body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		if got, want := r.Header.Get("Etag") == "", tc.want == edited; got != want {
			t.Errorf("%s: the backend's ETag was dropped: %v, want %v", tc.name, got, want)
		}
	}
	r := g.do("GET", "/v1/auth/me", access("payer")).want(t, 200)
	if !strings.Contains(string(r.body), `"subscription":{"plan":"pro","display_name":"Pro Plan","status":"active"`) {
		t.Errorf("the subscriber's profile is %s", r.body)
	}
	r = g.do("GET", "/v1/auth/me", access("user"), "If-None-Match: \"v1\"", "Accept-Encoding: gzip").want(t, 200)
	if diff := cmp.Diff(edited, string(r.body)); diff != "" {
		t.Errorf("with a validator (-want +got):\n%s", diff)
	}
}

// /readyz tells of what is down without taking the gateway out of service.
func TestReadyWhileTheRecordsFail(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g := start(t, "", site(b.Serve(t).URL, "\tquota_health\n"+profileSite))
	if got := string(g.do("GET", "/readyz", "").want(t, 200).body); !strings.Contains(got, `"status":"ready"`) {
		t.Errorf("/readyz: %s, want ready", got)
	}
	g.do("GET", "/livez", "").want(t, 200)

	// A schema that nobody has made yet is the outage that needs no server.
	config := strings.Replace(site(b.Serve(t).URL, "\tquota_health\n"+profileSite),
		"records sqlite {$DIR}/quota.db", "records sqlite {$DIR}/quota.db {\nmigrate check\n}", 1)
	g = start(t, "", config)
	want := `{"status":"degraded","checks":{"counters":{"status":"ok"},"records":{"status":"degraded","detail":"records report an error, which is in the log"}}}`
	if got := strings.TrimSpace(string(g.do("GET", "/readyz", "").want(t, 200).body)); got != want {
		t.Errorf("/readyz: %s, want %s", got, want)
	}
	g.do("GET", "/items", access("user")).want(t, 200)
	if body := string(g.do("GET", "/v1/auth/me", access("user")).want(t, 200).body); body != "" {
		t.Errorf("the profile is %q, want the backend's own", body)
	}
}
