package admin

import (
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// everyOperation calls f with each operation, and a path and body that reach it.
func (f *fixture) everyOperation(do func(method, path string)) {
	for path, item := range f.server.API().OpenAPI().Paths {
		path = strings.NewReplacer("{", "", "}", "").Replace(path)
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				do(op.Method, path)
			}
		}
	}
}

// Nobody but an admin in person reaches any operation, and nothing is done.
func TestOnlySuperadmins(t *testing.T) {
	t.Parallel()
	f := start(t)
	user := quota.UserSubject(boss)
	for name, c := range map[string]struct {
		p      quota.Principal
		status int
		body   string
	}{
		"nobody":            {quota.Principal{}, 401, `{"detail":"Could not validate credentials"}`},
		"a user":            {quota.Principal{Subject: "user:ann"}, 403, `{"detail":"Admin access required"}`},
		"an admin's key":    {quota.Principal{Subject: user, KeyID: "k"}, 403, `{"detail":"Admin access required"}`},
		"as an admin":       {quota.Principal{Subject: user, Impersonator: "eve"}, 403, `{"detail":"Admin access required"}`},
		"an organization":   {quota.Principal{Subject: "org:boss"}, 403, `{"detail":"Admin access required"}`},
		"an admin's e-mail": {quota.Principal{Subject: "user:eve", Email: boss}, 403, `{"detail":"Admin access required"}`},
	} {
		f.everyOperation(func(method, path string) {
			r := f.as(&c.p, method, path, `{"reason":"x"}`)
			if r.Code != c.status || strings.TrimSpace(r.Body.String()) != c.body {
				t.Errorf("%s: %s %s: %d %s", name, method, path, r.Code, r.Body)
			}
		})
	}
	if n := f.number("SELECT COUNT(*) FROM audit_events"); n != 0 {
		t.Errorf("%d events", n)
	}
}

// A refusal is in the form that its client reads, and in the log.
func TestRefusalOfOthers(t *testing.T) {
	t.Parallel()
	f := start(t)
	ann := &quota.Principal{Subject: "user:ann"}
	r := f.as(ann, "GET", "/v1/admin/users", "", "Accept: application/problem+json").want(403)
	id := r.Header().Get("X-Quota-Decision-Id")
	if got := r.Header().Get("Vary"); got != "Accept" || id == "" || f.log.FilterField(zap.String("decision_id", id)).Len() != 1 {
		t.Errorf("Vary: %s, decision %q", got, id)
	}
	r.wantBody(`{"type":"about:blank","title":"Forbidden","status":403,"detail":"Admin access required","code":"admin_required","decision_id":"` + id + `"}`)
}

// Another site makes no admin's browser do anything with the cookie that it keeps.
func TestAdminsCookieFromAnotherSite(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	const cookie, none = "Cookie: access_token=x", "Authorization: "
	f.everyOperation(func(method, path string) {
		if method == "GET" {
			return // what it answers no other site may read
		}
		for _, from := range []string{"Origin: https://evil.example.net", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "X-From: nowhere"} {
			r := f.do(method, path, `{"reason":"x"}`, none, cookie, from)
			if r.Code != 403 || !strings.Contains(r.Body.String(), "cross_site_request") {
				t.Errorf("%s: %s %s: %d %s", from, method, path, r.Code, r.Body)
			}
		}
	})
	if got := f.audited(); len(got) != 0 {
		t.Errorf("audited %v", got)
	}
	f.do("DELETE", "/v1/admin/users/7", "", none, cookie, "Origin: http://example.com").want(200)
}

func TestBootstrapAdmins(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.bootstrap["root"], f.bootstrap["ann@example.com"] = true, true
	f.as(&quota.Principal{Subject: "user:root"}, "GET", "/v1/admin/admins", "").want(200)
	f.as(&quota.Principal{Subject: "user:7", Email: "ann@example.com", EmailState: quota.EmailVerified}, "GET", "/v1/admin/admins", "").want(200)
	f.as(&quota.Principal{Subject: "user:7", Email: "ann@example.com"}, "GET", "/v1/admin/admins", "").want(403)
	f.as(&quota.Principal{Subject: "user:8", Email: "bob@example.com", EmailState: quota.EmailVerified}, "GET", "/v1/admin/admins", "").want(403)
}

func TestAdminsWhileTheRecordsAreDown(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.down = true
	f.do("GET", "/v1/admin/admins", "").want(503).wantBody(`{"detail":"This information is not available at the moment"}`)
	if n := f.log.FilterMessage("answering failed").Len(); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}

// Other paths and methods are somebody else's.
func TestOthersPassOn(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, target := range []string{"/v1/admin", "/v1/admin/", "/v1/admin/nothing", "/v1//admin/admins", "/v1/admin/admins/", "/v1/admin%2Fadmins"} {
		f.do("GET", target, "").want(passedOn)
	}
	f.do("OPTIONS", "/v1/admin/admins", "").want(passedOn)
	f.do("POST", "/v1/admin/admins", "").want(passedOn)
}
