package integration

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// The directives out and a reload make Caddy a plain proxy; back in, everything
// that was counted is still counted.
func TestRollBackTheDirectives(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	backend := b.Serve(t).URL
	with := site(backend, "\tquota {\n\t\trule jobs {\n\t\t\tspend jobs\n\t\t}\n\t}\n\tquota_account\n\tquota_profile /me\n")
	g := start(t, "", with)
	for range 10 { // the month's quota of the default plan
		g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusOK)
	}
	g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusPaymentRequired)

	g.write(site(backend, ""))
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r := g.do(http.MethodPost, "/jobs", "not-a-token").want(t, http.StatusOK)
		if r.Header.Get("RateLimit") != "" {
			t.Fatalf("fields of the gateway on a plain proxy's answer: %v", r.Header)
		}
	}
	g.do(http.MethodGet, "/v1/subscription/plans", "").want(t, http.StatusOK) // the backend's own

	g.write(with)
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusPaymentRequired)
	eventually(t, patience, "usage is written", func() bool { return g.used(t, "u", "jobs", "month") == 10 })
}

// A rule in shadow mode goes on counting, and a reload is all that it takes.
func TestRollBackARule(t *testing.T) {
	t.Parallel()
	backend := gatetest.NewBackend(nil).Serve(t).URL
	rule := func(mode string) string {
		return site(backend, "\tquota {\n\t\trule jobs {\n\t\t\tspend jobs\n\t\t\tmode "+mode+"\n\t\t}\n\t}\n")
	}
	g := start(t, "", rule("enforce"))
	for range 10 {
		g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusOK)
	}
	g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusPaymentRequired)
	g.write(rule("shadow"))
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusOK)
	eventually(t, patience, "the job is counted", func() bool { return g.used(t, "u", "jobs", "month") == 11 })
}

// Whoever was granted administration has lost it with one command, in a gateway
// that runs, and the way back is to grant it anew. The log has all of it.
func TestRollBackTheAdministrators(t *testing.T) {
	t.Parallel()
	g, _ := startRoot(t, gatetest.NewBackend(nil).Serve(t).URL, "QUOTA_ENCRYPTION_KEY="+strings.Repeat("k", 32))
	answers := func(user string, status int) {
		t.Helper()
		eventually(t, noticeMax, user+" is answered as he should be", func() bool {
			return g.do(http.MethodGet, "/v1/admin/users", access(user)).StatusCode == status
		})
	}
	for _, user := range []string{"boss", "thief"} {
		answers(user, http.StatusForbidden)
		g.command("admin", "grant", user)
		answers(user, http.StatusOK)
	}
	g.send(http.MethodPatch, "/v1/admin/users/victim", access("thief"), `{"status":"suspended"}`)
	g.command("admin", "revoke", "--all")
	for _, user := range []string{"boss", "thief"} {
		answers(user, http.StatusForbidden)
	}
	if r := g.send(http.MethodPost, "/v1/admin/users/bulk", access("thief"), `{"ids":["victim"],"action":"suspend"}`); r.StatusCode != http.StatusForbidden {
		t.Errorf("who is no admin any more may still write: %d %s", r.StatusCode, r.body)
	}
	g.command("admin", "grant", "boss")
	answers("boss", http.StatusOK)
	answers("thief", http.StatusForbidden)
	if out := g.command("audit", "verify"); !strings.Contains(out, "are whole") {
		t.Errorf("%s", out)
	}
}
