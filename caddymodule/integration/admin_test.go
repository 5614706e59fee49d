package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// send sends a body of JSON.
func (g *gateway) send(method, path, token, body string, headers ...string) *reply {
	g.t.Helper()
	r, err := g.try(client(g.t), method, path, token, strings.NewReader(body), append(headers, "Content-Type: application/json")...)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// object is the answer's body.
func (r *reply) object(t testing.TB) object {
	t.Helper()
	var v object
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%s: %v: %s", r.Status, err, r.body)
	}
	return v
}

// startAdmin runs the Caddyfile at the root with the superadmin "root".
func startAdmin(t *testing.T, b *gatetest.Backend) (g *gateway, metrics string) {
	t.Helper()
	return startRoot(t, b.Serve(t).URL, "QUOTA_ADMINS=root ops@example.com", "QUOTA_ENCRYPTION_KEY="+strings.Repeat("k", 32))
}

func TestAdminOfTheDefaultCaddyfile(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	g, metrics := startAdmin(t, b)
	root := access("root")
	g.do("GET", "/v1/admin/users", "").want(t, 401)
	if r := g.do("GET", "/v1/admin/users", access("u")).want(t, 403); string(r.body) != `{"detail":"Admin access required"}` {
		t.Errorf("%q", r.body)
	}
	ops := map[string]any{"sub": "9", "type": "access", "email": "OPS@example.com"}
	g.do("GET", "/v1/admin/users", token(ops)).want(t, 200)
	ops["email_verified"] = false // as whoever registers may write it
	g.do("GET", "/v1/admin/users", token(ops)).want(t, 403)
	if n := b.Count(func(e gatetest.Entry) bool { return strings.HasPrefix(e.Target, "/v1/admin") }); n != 0 {
		t.Errorf("the backend saw %d of the requests", n)
	}

	if r := g.do("GET", "/v1/openapi.json", "").want(t, 200); !strings.Contains(string(r.body), `"/v1/admin/users/{id}"`) {
		t.Error("the API's description has no administration")
	}

	// Whoever has asked is known at once.
	u := access("u")
	g.do("GET", "/items", u).want(t, 200)
	g.send("PATCH", "/v1/admin/users/u", root, `{"status":"suspended","reason":"spam"}`).want(t, 200)
	if d := eventuallyRefused(t, g, u, 403).detail(t); d["error"] != "account_suspended" {
		t.Errorf("%v", d)
	}
	g.send("PATCH", "/v1/admin/users/u", root, `{"status":"active"}`).want(t, 200)
	g.noticed()
	g.do("GET", "/items", u).want(t, 200)

	// A plan moves the limits and keeps what was used.
	for range 10 {
		g.do("POST", "/jobs", u).want(t, 200)
	}
	g.do("POST", "/jobs", u).want(t, 402)
	// What was used in vain is given back, once the records know of it.
	g.send("POST", "/v1/admin/users/u/clear-rate-limits", root, `{"scopes":["jobs"]}`).want(t, 200)
	eventually(t, noticeMax, "two jobs are given back", func() bool {
		used := quotaOf(t, g.do("GET", "/v1/admin/users/u", root).want(t, 200).object(t)["usage"].(object), "jobs")["used"]
		return used == 10.0 && g.send("POST", "/v1/admin/accounts/u/usage/adjust", root, `{"metric":"jobs","delta":-10}`).StatusCode == 200
	})
	g.send("POST", "/v1/admin/accounts/u/usage/adjust", root, `{"metric":"jobs","delta":8}`).want(t, 200)
	g.noticed()
	g.do("POST", "/jobs", u).want(t, 200)
	g.do("POST", "/jobs", u).want(t, 200)
	g.do("POST", "/jobs", u).want(t, 402)
	g.send("PATCH", "/v1/admin/users/u", root, `{"plan_name":"pro","duration_days":30}`).want(t, 200)
	g.noticed()
	g.do("POST", "/jobs", u).want(t, 200)
	detail := g.do("GET", "/v1/admin/users/u", root).want(t, 200).object(t)
	if used := quotaOf(t, detail["usage"].(object), "jobs")["used"]; used != 11.0 {
		t.Errorf("jobs used %v, want 11", used)
	}

	// Who has run into a rate limit may try again.
	g.send("PATCH", "/v1/admin/users/u", root, `{"plan_name":"free"}`).want(t, 200)
	g.noticed()
	for g.do("GET", "/items", u).StatusCode == 200 {
	}
	cleared := g.send("POST", "/v1/admin/users/u/clear-rate-limits", root, `{"scopes":["api"]}`).want(t, 200).object(t)
	if diff := cmp.Diff(object{
		"message": "Rate limits cleared", "cleared_keys": []any{"quota:api:user:u"}, "count": 1.0,
		"reach": "this_process", "host_redis": "not_configured",
	}, cleared); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	g.do("GET", "/items", u).want(t, 200)

	// Logged out: a token from before is refused, a new one is not.
	g.do("POST", "/v1/admin/users/u/revoke-sessions", root).want(t, 200)
	eventuallyRefused(t, g, u, 401)
	later := token(map[string]any{"sub": "u", "type": "access", "iat": time.Now().Add(2 * time.Second).Unix()})
	g.do("GET", "/items", later).want(t, 200)

	g.do("DELETE", "/v1/admin/users/u", root).want(t, 200)
	eventuallyRefused(t, g, later, 403)
	g.do("POST", "/v1/admin/users/u/restore", root).want(t, 200)

	g.wantNotLogged("OPS@", root, u, later)
	g.wantAudited(t, metrics)
}

// eventuallyRefused is the answer once the change is noticed.
func eventuallyRefused(t *testing.T, g *gateway, token string, status int) *reply {
	t.Helper()
	var r *reply
	eventually(t, noticeMax, fmt.Sprint("the user is answered with ", status), func() bool {
		r = g.do("GET", "/items", token)
		return r.StatusCode == status
	})
	return r
}

// wantAudited fails unless the log of the test above is whole, and its head is to be seen.
func (g *gateway) wantAudited(t *testing.T, metrics string) {
	t.Helper()
	head := strings.TrimSpace(g.command("audit", "head"))
	if out := g.command("audit", "verify", "--head", head); !strings.Contains(out, "are whole") {
		t.Errorf("%s", out)
	}
	g.exec("DROP TRIGGER audit_events_not_altered")
	g.exec("UPDATE audit_events SET reason = 'none' WHERE action = 'user.suspended'")
	cmd := g.prepared("audit", "verify", "--head", head)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "was altered") {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(g.logged(), `"msg":"audit log head","seq":0,"hash":"000`) {
		t.Error("the head is not logged")
	}
	res, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(body), "quotagate_audit_head_seq ") || !strings.Contains(string(body), "quotagate_audit_head_hash ") {
		t.Errorf("the head is no metric: %v", err)
	}
}

// The companion as a process of its own, on Postgres and Redis, with the host's
// tables, beside a gateway without any code of it.
func TestCompanionAsAProcessOfItsOwn(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(nil)
	dsn := gatetest.Postgres(t).Database(t)
	redis := gatetest.Redis(t)
	env := []string{"QUOTA_DSN=" + dsn, "QUOTA_REDIS_URL=" + redis.URL(), "QUOTA_TRUSTED_PROXIES=127.0.0.1"}
	first := onPostgres(t, dsn, dsn, "auto", b.Serve(t).URL, apiSite) // migrates
	first.exec(hostTables)
	first.exec("INSERT INTO public.sessions VALUES ('7d444840-9dc0-11d1-b245-5ffdce74fad4', 1, NULL)")
	first.stop()

	companion, _ := startFile(t, "../../config/companion.Caddyfile", append(env, "QUOTA_ADMINS=root", "QUOTA_ENCRYPTION_KEY="+strings.Repeat("k", 32),
		"QUOTA_BILLING=fake "+filepath.Join(t.TempDir(), "books.json")))
	upstream := strings.TrimPrefix(b.Serve(t).URL, "http://")
	g, _ := startFile(t, "../../config/gateway.Caddyfile", append(env, "COMPANION_UPSTREAM="+companion.addr, "AUTH_UPSTREAM="+upstream, "DASHBOARD_UPSTREAM="+upstream))
	g.dsn, companion.dsn = dsn, dsn
	root, u := access("root"), access("1")

	if got := g.do("GET", "/v1/admin/users?sort=id", root).want(t, 200).object(t); got["total"] != 3.0 {
		t.Errorf("%v", got)
	}
	g.do("GET", "/items", u).want(t, 200)
	began := time.Now()
	r := g.send("PATCH", "/v1/admin/users/1", root, `{"status":"suspended"}`).want(t, 200).object(t)
	eventuallyRefused(t, g, u, 403)
	t.Logf("suspended within %s", time.Since(began))
	if r["host_updated"] != true || g.text(t, "SELECT status FROM public.users WHERE id = 1") != "suspended" {
		t.Errorf("%v", r)
	}
	if ip := g.text(t, "SELECT ip_address FROM quotagate.audit_events ORDER BY seq DESC LIMIT 1"); ip != "127.0.0.1" {
		t.Errorf("audited from %s", ip)
	}
	g.send("PATCH", "/v1/admin/users/1", root, `{"status":"active","plan_name":"pro"}`).want(t, 200)
	eventually(t, noticeMax, "the limit is pro's", func() bool {
		return g.do("GET", "/items", u).Header.Get("X-RateLimit-Limit") == "300"
	})
	if got := g.do("POST", "/v1/admin/users/1/clear-rate-limits", root).want(t, 200).object(t); got["reach"] != "all_gateways" || got["count"] == 0.0 {
		t.Errorf("%v", got)
	}
	if got := g.do("GET", "/items", u).want(t, 200).Header.Get("X-RateLimit-Remaining"); got != "299" {
		t.Errorf("%s are left after the limits were cleared, want 299", got)
	}
	if got := g.send("POST", "/v1/billing/create-checkout-session", access("3"), `{"plan":"pro"}`).want(t, 200).object(t); got["checkout_url"] == nil {
		t.Errorf("%v", got)
	}
	g.send("POST", "/v1/billing/webhook", "", `{}`).want(t, 400) // it is not signed
	if got := g.do("POST", "/v1/admin/users/1/revoke-sessions", root).want(t, 200).object(t); got["count"] != 1.0 {
		t.Errorf("%v", got)
	}
	eventuallyRefused(t, g, u, 401)
	g.do("DELETE", "/v1/admin/users/1", root).want(t, 200)
	if got := g.text(t, "SELECT status || ' ' || email FROM public.users WHERE id = 1"); got != "deleted deleted_1@example.com" {
		t.Errorf("the host has %s", got)
	}
	g.do("POST", "/v1/admin/users/1/restore", root).want(t, 200)
	if got := g.text(t, "SELECT status || ' ' || email FROM public.users WHERE id = 1"); got != "active a@x" {
		t.Errorf("the host has %s", got)
	}
	head := strings.TrimSpace(companion.command("audit", "head"))
	companion.command("audit", "verify", "--head", head)

	companion.stop() // the gateway does not notice
	g.do("GET", "/items", access("3")).want(t, 200)
	g.do("GET", "/v1/admin/users?search=someone@example.com", root, "X-Api-Key: qgk_of_somebody", "Referer: https://x/?token=of-a-link").want(t, 502)
	if !strings.Contains(g.logged(), "/v1/admin/users?REDACTED") {
		t.Error("the request that has failed is not in the log")
	}
	g.wantNotLogged("someone@", "qgk_of_somebody", "of-a-link", root, u, "a@x")
	companion.wantNotLogged(root, u, "a@x")
}

// wantNotLogged fails if one of the texts stands in the log of the whole run.
func (g *gateway) wantNotLogged(texts ...string) {
	g.t.Helper()
	log := g.logged()
	if !strings.Contains(log, `"level":"info"`) {
		g.t.Errorf("this is no log: %.200s", log)
	}
	for _, text := range texts {
		if i := strings.Index(log, text); text == "" || i >= 0 {
			g.t.Errorf("%q is in the log: %s", text, log[max(0, i-200):min(len(log), i+200)])
		}
	}
}

// text is the result of a query with one text.
func (g *gateway) text(t *testing.T, query string) string {
	t.Helper()
	var s string
	if err := g.db().QueryRow(query).Scan(&s); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return s
}

// A build of the gateway alone has no code of the companion in it.
func TestGatewayHasNoCompanion(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "../../plugins/gateway").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 100 {
		t.Fatalf("%d packages", len(packages))
	}
	for _, p := range packages {
		if strings.Contains(p, "quotagate/plugins/companion") || strings.Contains(p, "stripe") || strings.Contains(p, "danielgtaylor/huma") {
			t.Errorf("%s is linked into the gateway", p)
		}
	}
}

// A key that is too short stops the start, and is not shown.
func TestShortEncryptionKey(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	for key, where := range map[string]string{"{env.SHORT}": "encryption_key {env.SHORT}", "much-too-short": "encryption_key:"} {
		config := "{\n\tadmin off\n\tquota_companion {\n\t\tencryption_key " + key + "\n\t}\n}\n"
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := command(t.Context(), path, "validate", "--config", file, "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "SHORT=much-too-short", "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), where) || !strings.Contains(string(out), "at least 32") {
			t.Errorf("%s: %v: %s", key, err, out)
		}
	}
}
