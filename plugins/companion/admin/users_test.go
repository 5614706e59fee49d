package admin

import (
	"fmt"

	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// ids are those of a list's users.
func (r *reply) ids() []string {
	r.t.Helper()
	ids := []string{}
	for _, u := range r.want(200).json()["users"].([]any) {
		ids = append(ids, u.(map[string]any)["id"].(string))
	}
	return ids
}

func TestListOfUsers(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO user_controls (user_id, state) VALUES ('7', 'suspended')`)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro"}`).want(200)
	for query, want := range map[string][]string{
		"":                                 {"13", "7", "42", "boss"},
		"sort=id":                          {"13", "42", "7", "boss"},
		"sort=-email&limit=2":              {"boss", "7"},
		"sort=id&skip=1&limit=2":           {"42", "7"},
		"skip=4":                           {},
		"search=ANN":                       {"42"},
		"search=example.com&sort=id":       {"13", "42", "7", "boss"},
		"search=%25":                       {"13"},
		"search=_":                         {"13"},
		"search=100%25_":                   {"13"},
		"search=a%25n":                     {},
		"search=%5C":                       {},
		"search='%20OR%201=1":              {},
		"search=42":                        {"42"},
		"status=suspended":                 {"7"},
		"status=active&sort=id":            {"13", "42", "boss"},
		"plan=pro":                         {"42"},
		"plan=free&sort=id":                {"13", "7", "boss"},
		"plan=nothing":                     {},
		"plan=free&status=active&search=e": {"13", "boss"},
	} {
		if got := f.do("GET", "/v1/admin/users?"+query, "").ids(); !cmp.Equal(want, got) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	r := f.do("GET", "/v1/admin/users?search=ann&limit=1", "").want(200)
	r.wantBody(`{"users":[{"id":"42","email":"ann@example.com","username":"ann","status":"active","is_superadmin":false,
		"plan":"pro","subscription_status":"active","created_at":"2026-01-02T00:00:00Z"}],"total":1,"skip":0,"limit":1,"next_cursor":null}`)
	for _, query := range []string{"limit=0", "limit=201", "limit=-1", "limit=x", "skip=-1", "skip=99999999999", "sort=hashed_password",
		"sort=id;DROP", "cursor=garbage", "cursor=e30", "search=" + strings.Repeat("x", 256)} {
		if r := f.do("GET", "/v1/admin/users?"+query, ""); r.Code != 422 {
			t.Errorf("%s: %d %s", query, r.Code, r.Body)
		}
	}
	// By cursor every user comes once.
	var walked []string
	for query := "limit=3"; ; {
		r := f.do("GET", "/v1/admin/users?"+query, "")
		walked = append(walked, r.ids()...)
		next, more := r.json()["next_cursor"].(string)
		if !more {
			break
		}
		query = "limit=3&cursor=" + url.QueryEscape(next)
	}
	if want := []string{"13", "7", "42", "boss"}; !cmp.Equal(want, walked) {
		t.Errorf("walked %v, want %v", walked, want)
	}
}

func TestDetailOfAUser(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	r := f.do("GET", "/v1/admin/users/42", "").want(200)
	for _, secret := range []string{"hash", "secret", "password", "token\""} {
		if strings.Contains(r.Body.String(), secret) {
			t.Errorf("%q is shown: %s", secret, r.Body)
		}
	}
	got := r.json()
	usage := got["usage"].(map[string]any)
	if usage["api_calls"] != 0.0 || usage["period_start"] != "2026-03-01T00:00:00Z" || usage["limits"] == nil || len(usage["quotas"].([]any)) == 0 {
		t.Errorf("usage = %v", usage)
	}
	delete(got, "usage")
	want := map[string]any{
		"user": map[string]any{
			"id": "42", "email": "ann@example.com", "username": "ann", "status": "active", "is_superadmin": false,
			"plan": "free", "subscription_status": nil, "created_at": "2026-01-02T00:00:00Z",
		},
		"subscription": nil,
		"active_sessions": []any{
			map[string]any{"id": "s2", "user_agent": "curl", "ip": "192.0.2.2", "created_at": "2026-03-02T00:00:00Z", "last_seen_at": nil},
			map[string]any{"id": "s1", "user_agent": "Firefox", "ip": "192.0.2.1", "created_at": "2026-03-01T00:00:00Z", "last_seen_at": nil},
		},
		"controls": map[string]any{
			"state": "active", "reason": nil, "until": nil, "tokens_valid_after": nil, "updated_by": nil, "updated_at": nil,
		},
		"orgs": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, id := range []string{"nobody", "43", "%27%20OR%201=1", "ann%40example.com", "%25", strings.Repeat("x", 255)} {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			f.do(method, "/v1/admin/users/"+id, map[string]string{"PATCH": `{"status":"suspended"}`}[method]).want(404).wantBody(`{"detail":"User not found"}`)
		}
		for _, action := range []string{"restore", "revoke-sessions", "clear-rate-limits"} {
			f.do("POST", "/v1/admin/users/"+id+"/"+action, "").want(404)
		}
	}
	f.do("GET", "/v1/admin/users/"+strings.Repeat("x", 256), "").want(422)
	if f.learned == 0 {
		t.Error("nobody looked whether such a user has asked a moment ago")
	}
	if got := f.audited(); len(got) != 0 {
		t.Errorf("audited %v", got)
	}
}

// Without tables of a host the callers whose tokens were seen are the users.
func TestUsersWithoutAHost(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`INSERT INTO accounts (id, kind, email, first_seen_at, last_seen_at) VALUES
		('a/b c', 'user', 'x@example.com', '2026-01-01', '2026-01-01'), ('org', 'org', NULL, '2026-01-01', '2026-01-01')`)
	if got := f.do("GET", "/v1/admin/users", "").ids(); !cmp.Equal(got, []string{"a/b c"}) {
		t.Errorf("users %v", got)
	}
	r := f.do("PATCH", "/v1/admin/users/a%2Fb%20c", `{"status":"suspended","reason":"abuse"}`).want(200).json()
	if r["host_updated"] != false || r["controls"].(map[string]any)["state"] != "suspended" || r["controls"].(map[string]any)["updated_by"] != boss {
		t.Errorf("%v", r)
	}
	f.do("GET", "/v1/admin/users/org", "").want(404)
	f.do("DELETE", "/v1/admin/users/a%2Fb%20c", "").want(200)
	if got := f.text("SELECT email FROM accounts WHERE id = 'a/b c'"); got != "NULL" {
		t.Errorf("the e-mail is still %s", got)
	}
	f.do("POST", "/v1/admin/users/a%2Fb%20c/restore", "").want(200)
	if got := f.text("SELECT email FROM accounts WHERE id = 'a/b c'"); got != "x@example.com" {
		t.Errorf("the e-mail is %s", got)
	}
}

func TestSuspendAndActivate(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`UPDATE users SET status = 'Verified' WHERE id = '42'`)
	ann := &quota.Principal{Subject: "user:42"}
	f.as(ann, "GET", "/v1/admin/users", "").want(403).wantBody(`{"detail":"Admin access required"}`)
	r := f.do("PATCH", "/v1/admin/users/42", `{"status":"suspended","reason":"spam"}`).want(200).json()
	if r["host_updated"] != true || f.text("SELECT status FROM users WHERE id = '42'") != "suspended" {
		t.Errorf("%v", r)
	}
	if w := f.as(ann, "GET", "/v1/admin/users", "").want(403); !strings.Contains(w.Body.String(), "account_suspended") {
		t.Errorf("%s", w.Body)
	}
	f.do("PATCH", "/v1/admin/users/42", `{"status":"suspended","reason":"spam"}`).want(200) // changes nothing
	f.do("PATCH", "/v1/admin/users/42", `{"status":"active"}`).want(200)
	if got := f.text("SELECT status FROM users WHERE id = '42'"); got != "Verified" {
		t.Errorf("the host's status is %s, not what it was", got)
	}
	f.as(ann, "GET", "/v1/admin/users", "").want(403).wantBody(`{"detail":"Admin access required"}`)
	if diff := cmp.Diff([]string{"user.suspended 42 by boss", "user.activated 42 by boss"}, f.audited()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := f.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = 'user.suspended' AND account_id = '42'"); n != 1 {
		t.Errorf("%d events in the outbox", n)
	}
	if got := f.text("SELECT ip_address || ' ' || reason || ' ' || changes FROM audit_events WHERE seq = 1"); got !=
		`192.0.2.1:1234 spam {"status":{"from":"active","to":"suspended"}}` {
		t.Errorf("audited: %s", got)
	}
}

// A host that refuses the word keeps nothing from being done.
func TestHostThatRefuses(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`CREATE TRIGGER no BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'not by you'); END`)
	r := f.do("PATCH", "/v1/admin/users/42", `{"status":"suspended"}`).want(200).json()
	if r["host_updated"] != false || !strings.Contains(fmt.Sprint(r["host_reason"]), "not by you") || r["controls"].(map[string]any)["state"] != "suspended" {
		t.Errorf("%v", r)
	}
	r = f.do("DELETE", "/v1/admin/users/42", "").want(200).json()
	if r["host_updated"] != false || r["email_moved"] != false {
		t.Errorf("%v", r)
	}
	// One that knows other words gets one of those.
	f.exec(`DROP TRIGGER no`)
	f.exec(`CREATE TRIGGER words BEFORE UPDATE OF status ON users WHEN NEW.status NOT IN ('active', 'banned') BEGIN SELECT RAISE(ABORT, 'unknown word'); END`)
	r = f.do("PATCH", "/v1/admin/users/7", `{"status":"suspended"}`).want(200).json()
	if r["host_updated"] != true || f.text("SELECT status FROM users WHERE id = '7'") != "banned" {
		t.Errorf("%v", r)
	}
}

func TestPlanOfAUser(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	r := f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro","duration_days":30,"reason":"beta"}`).want(200)
	sub := r.json()["subscription"].(map[string]any)
	if sub["plan"] != "pro" || sub["status"] != "active" || sub["expires_at"] != "2026-04-14T12:00:00Z" {
		t.Errorf("%v", sub)
	}
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"enterprise"}`).want(200)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"enterprise"}`).want(200) // as it is
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"nothing"}`).want(404).wantBody(`{"detail":"Plan not found"}`)
	f.exec(`UPDATE subscription_plans SET is_active = FALSE WHERE name = 'pro'`)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro"}`).want(409)
	f.exec(`UPDATE subscriptions SET source = 'stripe' WHERE is_current`)
	// All of it or nothing.
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"free","status":"suspended"}`).want(409).
		wantBody(`{"detail":{"error":"stripe_managed","message":"This subscription is managed by Stripe: change it there"}}`)
	if f.text("SELECT status FROM users WHERE id = '42'") != "active" || f.number("SELECT COUNT(*) FROM user_controls") != 0 {
		t.Error("half of a refused change was made")
	}
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"free","force":true}`).want(200)
	if got := f.audited(); len(got) != 3 {
		t.Errorf("audited %v", got)
	}
	if n := f.number("SELECT COUNT(*) FROM outbox_events WHERE event_type = 'subscription.created'"); n != 1 {
		t.Errorf("%d subscriptions were created", n)
	}
}

// What is not to be changed cannot be named, and what is wrong is said.
func TestMassAssignment(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	for _, body := range []string{
		`{"is_superadmin":true}`, `{"id":"boss"}`, `{"email":"x@example.com"}`, `{"hashed_password":"x"}`, `{"status":"active","role":"superadmin"}`,
		`{"status":"deleted"}`, `{"status":"ACTIVE"}`, `{"status":1}`, `{"plan_name":""}`, `{"duration_days":0,"plan_name":"pro"}`,
		`{"duration_days":36501,"plan_name":"pro"}`, `{"duration_days":1.5,"plan_name":"pro"}`, `{"duration_days":5}`, `[]`, `{`, ``, `null`,
		`{"reason":"` + strings.Repeat("x", 2001) + `"}`, `{"controls":{"state":"active"}}`,
	} {
		r := f.do("PATCH", "/v1/admin/users/42", body)
		if list, ok := r.json()["detail"].([]any); r.Code != 422 || !ok || len(list) == 0 {
			t.Errorf("%s: %d %s", body, r.Code, r.Body)
		}
	}
	f.do("PATCH", "/v1/admin/users/42", `{}`).want(200)
	f.do("PATCH", "/v1/admin/users/42", `{"status":null,"plan_name":null,"duration_days":null,"reason":null}`).want(200)
	f.do("PATCH", "/v1/admin/users/42", `status=suspended`, "Content-Type: application/x-www-form-urlencoded").want(415)
	if got := f.audited(); len(got) != 0 || f.number("SELECT COUNT(*) FROM admins") != 1 {
		t.Errorf("audited %v", got)
	}
}

func TestNobodyLocksHimselfOut(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	self := `{"detail":{"error":"cannot_modify_self","message":"You cannot suspend or delete yourself"}}`
	f.do("PATCH", "/v1/admin/users/boss", `{"status":"suspended"}`).want(409).wantBody(self)
	f.do("DELETE", "/v1/admin/users/boss", "").want(409).wantBody(self)
	f.do("PATCH", "/v1/admin/users/boss", `{"plan_name":"pro"}`).want(200)
	// A bootstrap admin remains where the last one of the table goes.
	f.bootstrap["root"] = true
	root := &quota.Principal{Subject: "user:root"}
	f.as(root, "PATCH", "/v1/admin/users/boss", `{"status":"suspended"}`).want(200)
	f.do("GET", "/v1/admin/users", "").want(403)
	f.as(root, "PATCH", "/v1/admin/users/boss", `{"status":"active"}`).want(200)
	f.as(root, "DELETE", "/v1/admin/users/boss", "").want(200)
	f.as(root, "POST", "/v1/admin/users/boss/restore", "").want(200)
	f.pass(time.Minute)
	f.do("GET", "/v1/admin/users", "").want(403).wantBody(`{"detail":"Admin access required"}`) // the role does not come back
}

// Two admins who suspend each other at once: one of them remains.
func TestAdminsWhoSuspendEachOther(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO admins (user_id) VALUES ('42')`)
	var done sync.WaitGroup
	codes := make([]int, 2)
	for i, pair := range [][2]string{{"boss", "42"}, {"42", "boss"}} {
		done.Go(func() {
			codes[i] = f.as(&quota.Principal{Subject: quota.UserSubject(pair[0])}, "PATCH", "/v1/admin/users/"+pair[1], `{"status":"suspended"}`).Code
		})
	}
	done.Wait()
	slices.Sort(codes)
	if !cmp.Equal(codes, []int{200, 403}) || f.number("SELECT COUNT(*) FROM user_controls WHERE state = 'suspended'") != 1 {
		t.Errorf("answers %v", codes)
	}
}

func TestDeleteAndRestore(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO accounts (id, kind, email) VALUES ('42', 'user', 'ann@example.com')`)
	f.do("DELETE", "/v1/admin/users/42", "").want(200).
		wantBody(`{"message":"User deleted successfully","host_updated":true,"email_moved":true}`)
	if got := f.text("SELECT status || ' ' || email FROM users WHERE id = '42'"); got != "deleted deleted_42@example.com" {
		t.Errorf("the host has %s", got)
	}
	if n := f.number("SELECT COUNT(*) FROM sessions WHERE user_id = '42' AND revoked_at IS NULL"); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	// The address is nowhere to be read.
	for _, table := range []string{"user_controls", "audit_events", "outbox_events", "accounts"} {
		if got := f.dump(table); strings.Contains(got, "ann@example.com") {
			t.Errorf("%s holds the address: %s", table, got)
		}
	}
	f.as(&quota.Principal{Subject: "user:42"}, "GET", "/v1/admin/users", "").want(403)
	f.do("DELETE", "/v1/admin/users/42", "").want(200).wantBody(`{"message":"User deleted successfully"}`) // once
	f.do("PATCH", "/v1/admin/users/42", `{"status":"active"}`).want(409)
	f.do("POST", "/v1/admin/users/42/restore", `{"reason":"a mistake"}`).want(200).
		wantBody(`{"message":"User restored successfully","host_updated":true,"email_moved":true}`)
	if got := f.text("SELECT status || ' ' || email FROM users WHERE id = '42'"); got != "active ann@example.com" {
		t.Errorf("the host has %s", got)
	}
	if got := f.text("SELECT original_email FROM user_controls"); got != "NULL" {
		t.Errorf("the sealed address stays: %s", got)
	}
	f.do("POST", "/v1/admin/users/42/restore", "").want(200).wantBody(`{"message":"User restored successfully"}`)
	if diff := cmp.Diff([]string{"user.deleted 42 by boss", "user.restored 42 by boss"}, f.audited()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Somebody else has the address by now: it is kept for later.
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	f.exec(`INSERT INTO users (id, email, status) VALUES ('43', 'ann@example.com', 'active')`)
	r := f.do("POST", "/v1/admin/users/42/restore", "").want(200).json()
	if r["email_moved"] != false || r["host_updated"] != true {
		t.Errorf("%v", r)
	}
	if f.text("SELECT original_email FROM user_controls WHERE user_id = '42'") == "NULL" {
		t.Error("the sealed address is lost")
	}
}

// dump is a table as text.
func (f *fixture) dump(table string) string {
	f.Helper()
	rows, err := f.db.QueryContext(f.Context(), "SELECT * FROM "+table)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		f.Fatal(err)
	}
	var b strings.Builder
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			f.Fatal(err)
		}
		fmt.Fprintln(&b, values...)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return b.String()
}

func TestRevokeSessions(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.do("POST", "/v1/admin/users/42/revoke-sessions", "").want(200).wantBody(`{"message":"Revoked 2 sessions","count":2}`)
	f.do("POST", "/v1/admin/users/42/revoke-sessions", "").want(200).wantBody(`{"message":"Revoked 0 sessions","count":0}`)
	e, err := f.store.Entitlement(t.Context(), "user:42")
	if err != nil || !e.TokensValidAfter.Equal(f.clock()) {
		t.Errorf("tokens are valid after %v, %v", e.TokensValidAfter, err)
	}
	if n := f.number("SELECT COUNT(*) FROM sessions WHERE revoked_at IS NULL"); n != 1 {
		t.Errorf("%d sessions are left, want bob's", n)
	}
}

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
	f.do("POST", "/v1/admin/users/42/clear-rate-limits", "").want(503)
	if strings.Contains(f.dump("audit_events"), "ann@example.com") {
		t.Error("the audit log holds an address")
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	tag := f.do("GET", "/v1/admin/users/42", "").want(200).Header().Get("ETag")
	if tag == "" || f.do("GET", "/v1/admin/users/42", "").Header().Get("ETag") != tag || f.do("GET", "/v1/admin/users/7", "").Header().Get("ETag") == tag {
		t.Fatalf("ETag = %q", tag)
	}
	r := f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro"}`, "If-Match: "+tag).want(200)
	if next := r.Header().Get("ETag"); next == tag || next == "" {
		t.Errorf("ETag = %q after a change", next)
	}
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"free"}`, "If-Match: "+tag).want(412)
	f.do("DELETE", "/v1/admin/users/42", "", "If-Match: "+tag).want(412)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"free"}`, "If-Match: *").want(200)
}

// Of changes made at once with the same precondition one is made.
func TestPatchesAtOnce(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	tag := f.do("GET", "/v1/admin/users/42", "").Header().Get("ETag")
	var done sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		done.Go(func() {
			codes[i] = f.do("PATCH", "/v1/admin/users/42", fmt.Sprintf(`{"plan_name":"pro","duration_days":%d}`, i+1), "If-Match: "+tag).Code
		})
	}
	done.Wait()
	slices.Sort(codes)
	if codes[0] != 200 || codes[1] != 412 || codes[7] != 412 {
		t.Errorf("answers %v", codes)
	}
	head, err := f.store.AuditHead(t.Context())
	if err != nil || head.Seq != 1 {
		t.Errorf("%d events, %v", head.Seq, err)
	}
	if _, err := f.store.VerifyAudit(t.Context(), &head); err != nil {
		t.Error(err)
	}
}

func TestBulk(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO user_controls (user_id, state) VALUES ('7', 'suspended')`)
	f.exec(`UPDATE users SET status = 'suspended' WHERE id = '7'`)
	f.exec(`UPDATE user_controls SET reason = 'spam'`)
	body := `{"ids":["42","7","boss","nobody","42"],"action":"suspend","reason":"spam"%s}`
	want := `{"dry_run":%t,"changed":1,"unchanged":1,"failed":2,"results":[{"id":"42","result":"changed"},{"id":"7","result":"unchanged"},
		{"id":"boss","result":"failed","error":"cannot_modify_self"},{"id":"nobody","result":"failed","error":"not_found"}]}`
	before := f.dump("users") + f.dump("user_controls") + f.dump("audit_events") + f.dump("accounts")
	f.do("POST", "/v1/admin/users/bulk", fmt.Sprintf(body, `,"dry_run":true`)).want(200).wantBody(fmt.Sprintf(want, true))
	if after := f.dump("users") + f.dump("user_controls") + f.dump("audit_events") + f.dump("accounts"); after != before {
		t.Errorf("what was only tried has changed something:\n%s\n%s", before, after)
	}
	f.do("POST", "/v1/admin/users/bulk", fmt.Sprintf(body, ``)).want(200).wantBody(fmt.Sprintf(want, false))
	f.do("POST", "/v1/admin/users/bulk", `{"filter":{"status":"suspended"},"action":"activate","reason":"x"}`).want(200).
		wantBody(`{"dry_run":false,"changed":2,"unchanged":0,"failed":0,"results":[{"id":"42","result":"changed"},{"id":"7","result":"changed"}]}`)
	f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"change_plan","plan_name":"pro","reason":"x"}`).want(200)
	f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"change_plan","plan_name":"gone","reason":"x"}`).want(200).
		wantBody(`{"dry_run":false,"changed":0,"unchanged":0,"failed":1,"results":[{"id":"42","result":"failed","error":"not_found"}]}`)
	for _, action := range []string{"delete", "restore", "revoke_sessions"} {
		if r := f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"`+action+`","reason":"x"}`).want(200).json(); r["changed"] != 1.0 {
			t.Errorf("%s: %v", action, r)
		}
	}
	for _, body := range []string{
		`{"action":"suspend","reason":"x"}`, `{"ids":[],"action":"suspend","reason":"x"}`, `{"ids":["1"],"filter":{"status":"active"},"action":"suspend","reason":"x"}`,
		`{"filter":{},"action":"suspend","reason":"x"}`, `{"ids":["1"],"action":"promote","reason":"x"}`, `{"ids":["1"],"action":"suspend"}`,
		`{"ids":["1"],"action":"suspend","reason":"x","plan_name":"pro"}`, `{"ids":["1"],"action":"change_plan","reason":"x"}`,
		`{"ids":["1"],"action":"suspend","reason":"x","duration_days":3}`,
		`{"ids":[` + strings.TrimSuffix(strings.Repeat(`"1",`, 1001), ",") + `],"action":"suspend","reason":"x"}`,
	} {
		f.do("POST", "/v1/admin/users/bulk", body).want(422)
	}
	f.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
		INSERT INTO users (id, username, status) SELECT 'many' || i, 'many', 'active' FROM n`)
	f.do("POST", "/v1/admin/users/bulk", `{"filter":{"search":"many"},"action":"suspend","reason":"x"}`).want(422)
}

// A repeated request is carried out once, and nobody can repeat somebody else's.
func TestIdempotencyOfBulk(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO admins (user_id) VALUES ('7')`)
	const body, key = `{"ids":["42"],"action":"revoke_sessions","reason":"x"}`, "Idempotency-Key: 1"
	first := f.do("POST", "/v1/admin/users/bulk", body, key).want(200)
	again := f.do("POST", "/v1/admin/users/bulk", body, key).want(200)
	if first.Body.String() != again.Body.String() || len(f.audited()) != 1 {
		t.Errorf("%s, then %s, audited %v", first.Body, again.Body, f.audited())
	}
	f.do("POST", "/v1/admin/users/bulk", strings.Replace(body, "42", "7", 1), key).want(422)
	f.as(&quota.Principal{Subject: "user:7"}, "POST", "/v1/admin/users/bulk", body, key).want(200)
	if got := f.audited(); len(got) != 2 {
		t.Errorf("audited %v", got)
	}
	f.as(&quota.Principal{Subject: "user:13"}, "POST", "/v1/admin/users/bulk", body, key).want(403)
}

// Neither tokens nor addresses are in the log, whatever fails.
func TestLogsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.redisDown = true
	f.do("POST", "/v1/admin/users/42/clear-rate-limits", "").want(200)
	f.exec(`UPDATE subscription_plans SET rate_limits = '{"x":1}'`)
	f.do("GET", "/v1/admin/users/42?search=ann@example.com", "", "Authorization: Bearer very-secret").want(503)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro","reason":"ann@example.com"}`, "Cookie: token=very-secret").want(503)
	if f.log.Len() == 0 {
		t.Fatal("nothing is logged")
	}
	for _, e := range f.log.All() {
		if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, "@example.com") || strings.Contains(line, "very-secret") {
			t.Errorf("logged: %s", line)
		}
	}
}
