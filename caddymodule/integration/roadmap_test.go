package integration

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// production is the root Caddyfile before FastAPI backends whose database and
// Redis the gateway shares, as in production.
type production struct {
	*gateway
	host   *fastAPI
	redis  *gatetest.RedisServer
	admin  member
	people []member // all that have joined
	before string   // the backends' own schema
}

// startProduction starts all of it, with one user as the superadmin.
func startProduction(t *testing.T) *production {
	t.Helper()
	server := gatetest.Redis(t)
	redis := server.URL()
	f := startFastAPI(t, redis)
	before := publicSchema(t, f)
	if !strings.Contains(before, "CREATE TABLE public.users") {
		t.Fatalf("the dump holds no table of the backends:\n%s", before)
	}
	g, _ := startRoot(t, "", append(f.upstreams(), "QUOTA_RECORDS=postgres {env.QUOTA_DSN}", "QUOTA_DSN="+f.dsn,
		"QUOTA_COUNTERS=redis {env.QUOTA_REDIS_URL}", "QUOTA_REDIS_URL="+redis, "QUOTA_HOST_REDIS_URL="+redis,
		"QUOTA_ENCRYPTION_KEY=a key of this test, of at least 32 bytes")...)
	// The backends' own Redis is not everybody's: who has one adds a line.
	g.write(strings.Replace(read(t, "../../Caddyfile"), "\t\tupgrade_url", "\t\thost_redis {env.QUOTA_HOST_REDIS_URL}\n\t\tupgrade_url", 1))
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	p := &production{gateway: g, host: f, redis: server, before: before}
	g.command("migrate", "up")
	p.admin = p.joined("boss")
	g.command("admin", "grant", p.admin.id)
	p.sameSchema("by our migrations")
	return p
}

func (p *production) sameSchema(why string) {
	p.t.Helper()
	if diff := cmp.Diff(p.before, publicSchema(p.t, p.host)); diff != "" {
		p.t.Errorf("the backends' own schema changed %s:\n%s", why, diff)
	}
}

// uninstalled ends the test: neither the log of the whole run nor the backends'
// schema holds anything that does not belong there.
func (p *production) uninstalled() {
	p.t.Helper()
	var secrets []string
	for _, u := range p.people {
		secrets = append(secrets, u.email, u.token, u.password)
	}
	p.wantNotLogged(secrets...)
	p.sameSchema("while it was used")
	p.stop()
	if _, err := p.host.db.ExecContext(p.t.Context(), "DROP SCHEMA quotagate CASCADE"); err != nil {
		p.t.Fatal(err)
	}
	p.sameSchema("by uninstalling")
}

// publicSchema is pg_dump's text of the backends' schema.
func publicSchema(t testing.TB, f *fastAPI) string {
	t.Helper()
	dump := exec.CommandContext(t.Context(), gatetest.PostgresTool(t, "pg_dump"), "--schema-only", "--schema=public", f.dsn)
	out, err := dump.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		// Newer versions write a random word that guards the restore.
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// joined is a new user, logged in.
func (p *production) joined(name string) member {
	p.t.Helper()
	u := p.register(name)
	p.signIn(&u)
	p.people = append(p.people, u)
	return u
}

// asAdmin calls the admin API and wants the status.
func (p *production) asAdmin(method, path, body string, status int) *reply {
	p.t.Helper()
	r, err := p.try(client(p.t), method, path, p.admin.token, strings.NewReader(body), "Content-Type: application/json")
	if err != nil {
		p.t.Fatal(err)
	}
	return r.want(p.t, status)
}

// limitOf is the limit of a scope as the answer's RateLimit-Policy shows it.
func limitOf(t *testing.T, r *reply, scope string) int {
	t.Helper()
	var n int
	for _, item := range strings.Split(r.Header.Get("RateLimit-Policy"), ", ") {
		if rest, ok := strings.CutPrefix(item, fmt.Sprintf("%q;q=", scope)); ok {
			if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// The first phase's checklist, point by point.
func TestRoadmapPhase1(t *testing.T) {
	t.Parallel()
	p := startProduction(t)
	u := p.joined("alice")

	type subscription struct {
		Subscription *struct{ Status string }
		Plan         struct{ Name string }
	}
	var me subscription
	decode(t, p.do("GET", "/v1/subscription/me", u.token).want(t, 200), &me)
	if me.Subscription != nil || me.Plan.Name != "free" {
		t.Errorf("a new user has %+v, want the free plan without a row", me)
	}
	if n := limitOf(t, p.do("GET", "/items", u.token).want(t, 200), "api"); n != 60 {
		t.Errorf("free: %d requests a minute, want 60", n)
	}

	for i := range 3 {
		p.do("POST", "/jobs", u.token).want(t, 201)
		if used := p.jobsUsed(u); used != i+1 {
			t.Errorf("%d jobs used after %d", used, i+1)
		}
	}
	for range 7 {
		p.do("POST", "/jobs", u.token).want(t, 201)
	}
	d := p.do("POST", "/jobs", u.token).want(t, 402).detail(t)
	if d["error"] != "quota_exceeded" || d["plan"] != "free" || d["upgrade_url"] == "" {
		t.Errorf("the eleventh job: %v", d)
	}
	if n := p.host.count(t, `SELECT count(*) FROM jobs`); n != 10 {
		t.Errorf("the backend made %d jobs, want 10", n)
	}

	p.asAdmin("PATCH", "/v1/admin/users/"+u.id, `{"plan_name":"pro","reason":"checklist"}`, 200)
	p.sees(u, 201, "POST", "/jobs")
	decode(t, p.do("GET", "/v1/subscription/me", u.token).want(t, 200), &me)
	if me.Plan.Name != "pro" || me.Subscription == nil || me.Subscription.Status != "active" {
		t.Errorf("after the upgrade: %+v", me)
	}
	if n := limitOf(t, p.do("GET", "/items", u.token).want(t, 200), "api"); n != 300 {
		t.Errorf("pro: %d requests a minute, want 300", n)
	}
	if used := p.jobsUsed(u); used != 11 {
		t.Errorf("%d jobs used after the upgrade: usage is kept, want 11", used)
	}
	var profile struct {
		Email        string
		Subscription struct{ Plan, Status string }
	}
	decode(t, p.do("GET", "/v1/auth/me", u.token).want(t, 200), &profile)
	if profile.Email != u.email || profile.Subscription.Plan != "pro" || profile.Subscription.Status != "active" {
		t.Errorf("/v1/auth/me: %+v", profile)
	}
	p.uninstalled()
}

// sees waits until a request is answered with the status: an admin's change
// reaches each gateway by the notification of its commit.
func (p *production) sees(u member, status int, method, path string) {
	p.t.Helper()
	eventually(p.t, noticeMax, fmt.Sprintf("%s %s answers %d", method, path, status), func() bool {
		return p.do(method, path, u.token).StatusCode == status
	})
}

// The second phase's checklist, point by point.
func TestRoadmapPhase2(t *testing.T) {
	t.Parallel()
	p := startProduction(t)
	u := p.joined("bob")

	// Non-admins cannot enter.
	p.do("GET", "/v1/admin/users", "").want(t, 401)
	r := p.do("GET", "/v1/admin/users", u.token).want(t, 403)
	if got := strings.TrimSpace(string(r.body)); got != `{"detail":"Admin access required"}` {
		t.Errorf("403 with %s", got)
	}

	var list struct {
		Total int
		Users []struct{ ID, Email, Status, Plan string }
	}
	decode(t, p.asAdmin("GET", "/v1/admin/users?search=bob@&limit=10", "", 200), &list)
	if list.Total != 1 || len(list.Users) != 1 || list.Users[0].ID != u.id || list.Users[0].Plan != "free" {
		t.Errorf("users that match bob@: %+v", list)
	}

	var stats map[string]any
	decode(t, p.asAdmin("GET", "/v1/admin/stats", "", 200), &stats)
	for name, want := range map[string]float64{"total_users": 2, "active_users": 2, "free_users": 2, "pro_users": 0} {
		if stats[name] != want {
			t.Errorf("%s is %v, want %v in %v", name, stats[name], want, stats)
		}
	}

	// The backend's own limit, and the user tries again after it is cleared.
	p.redis.Do(t, "SET", "rate_limit:login:account:"+u.email, "5")
	p.login(u).want(t, 429)
	var cleared struct {
		Message string
		Keys    []string `json:"cleared_keys"`
	}
	decode(t, p.asAdmin("POST", "/v1/admin/users/"+u.id+"/clear-rate-limits", `{"scopes":["login"]}`, 200), &cleared)
	if !strings.Contains(strings.Join(cleared.Keys, " "), "rate_limit:login:account:"+u.email) {
		t.Errorf("cleared %+v", cleared)
	}
	p.signIn(&u)

	// Revoked: logged out, and free to log in again.
	var revoked struct{ Count int }
	decode(t, p.asAdmin("POST", "/v1/admin/users/"+u.id+"/revoke-sessions", "{}", 200), &revoked)
	if revoked.Count != 2 {
		t.Errorf("%d sessions revoked, want 2", revoked.Count)
	}
	p.sees(u, 401, "GET", "/items")

	// Suspended: the next request is refused, and so is the login, by the backend itself.
	v := p.joined("carol")
	p.do("GET", "/items", v.token).want(t, 200)
	p.asAdmin("PATCH", "/v1/admin/users/"+v.id, `{"status":"suspended","reason":"checklist"}`, 200)
	p.sees(v, 403, "GET", "/items")
	if n := p.host.count(t, `SELECT count(*) FROM users WHERE status = 'suspended' AND id = $1::text::uuid`, v.id); n != 1 {
		t.Error("the backend's row does not say suspended")
	}
	p.login(v).want(t, 403)
	p.asAdmin("PATCH", "/v1/admin/users/"+v.id, `{"status":"active"}`, 200)
	eventually(t, noticeMax, "carol may log in again", func() bool { return p.login(v).StatusCode == 200 })

	// Deleted, softly.
	p.asAdmin("DELETE", "/v1/admin/users/"+v.id, "", 200)
	p.sees(v, 403, "GET", "/items")
	if n := p.host.count(t, `SELECT count(*) FROM users WHERE email = $1`, v.email); n != 0 {
		t.Error("the e-mail address is not free")
	}
	// What was done is in the log.
	var log struct{ Events []json.RawMessage }
	decode(t, p.asAdmin("GET", "/v1/admin/audit-log", "", 200), &log)
	if len(log.Events) < 5 {
		t.Errorf("%d events: %s", len(log.Events), log.Events)
	}
	p.uninstalled()
}
