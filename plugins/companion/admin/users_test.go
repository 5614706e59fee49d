package admin

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
