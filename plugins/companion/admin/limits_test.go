package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func TestClearRateLimits(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.do("POST", "/v1/admin/users/42/clear-rate-limits", "").want(200).wantBody(`{"message":"Rate limits cleared","cleared_keys":
		["quota:api:user:42","quota:jobs:user:42","rate_limit:jobs:account:ann@example.com","rate_limit:login:account:ann@example.com"],
		"count":4,"reach":"this_process","host_redis":"cleared"}`)
	f.do("POST", "/v1/admin/users/42/clear-rate-limits", `{"scopes":["login","api"]}`).want(200).wantBody(`{"message":"Rate limits cleared",
		"cleared_keys":["quota:api:user:42","rate_limit:login:account:ann@example.com"],"count":2,"reach":"this_process","host_redis":"cleared"}`)
	if want := []string{"user:42[api jobs]", "user:42[api]"}; !cmp.Equal(f.resets, want) {
		t.Errorf("emptied %v, want %v", f.resets, want)
	}
	if n := f.number("SELECT COUNT(*) FROM changes WHERE subject = 'user:42'"); n != 2 {
		t.Errorf("the gateways are told %d times, want 2", n)
	}
	for _, body := range []string{`{"scopes":["a*"]}`, `{"scopes":[""]}`, `{"scopes":"api"}`, `{"keys":["x"]}`} {
		f.do("POST", "/v1/admin/users/42/clear-rate-limits", body).want(422)
	}
	f.redisDown = true
	r := f.do("POST", "/v1/admin/users/42/clear-rate-limits", "").want(200).json()
	if r["host_redis"] != "unavailable" || r["count"] != 2.0 {
		t.Errorf("%v", r)
	}
	f.countersDown = true
	before := f.audited()
	f.do("POST", "/v1/admin/users/42/clear-rate-limits", "").want(503)
	if diff := cmp.Diff(append(before, "user.rate_limits_clearing 42 by boss"), f.audited()); diff != "" {
		t.Errorf("nothing was cleared (-want +got):\n%s", diff)
	}
	if strings.Contains(f.dump("audit_events"), "ann@example.com") {
		t.Error("the audit log holds an address")
	}
}

// What was done to counters is in the audit log, though the client leaves, the
// rest of them cannot be reached, or the records go meanwhile.
func TestWhatWasClearedIsAudited(t *testing.T) {
	t.Parallel()
	const clearing, cleared = "user.rate_limits_clearing 42 by boss", "user.rate_limits_cleared 42 by boss"
	for name, c := range map[string]struct {
		during func(f *fixture, leave func()) error
		want   []string
	}{
		"the client leaves":      {func(_ *fixture, leave func()) error { leave(); return nil }, []string{clearing, cleared}},
		"some cannot be emptied": {func(*fixture, func()) error { return errDown }, []string{clearing, cleared}},
		"the records go": {func(f *fixture, _ func()) error {
			f.exec(`ALTER TABLE audit_head RENAME TO gone`)
			return nil
		}, []string{clearing}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			f.host()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			f.emptying = func() error { return c.during(f, leave) }
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/admin/users/42/clear-rate-limits", nil)
			f.send(&quota.Principal{Subject: quota.UserSubject(boss)}, r)
			if diff := cmp.Diff(c.want, f.audited()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
