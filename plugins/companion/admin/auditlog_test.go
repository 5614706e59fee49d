package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// happen suspends a user whom nobody has suspended: one event.
func (f *fixture) happen(by, user, reason string) {
	f.Helper()
	f.see(quota.UserSubject(user))
	actor := store.Actor{Type: store.ActorUser, ID: by, Label: "+" + by + "@example.com", IP: "192.0.2.1", Bootstrap: true}
	if _, err := f.store.PatchUser(f.Context(), actor, user, store.UserPatch{Status: "suspended", Reason: reason}); err != nil {
		f.Fatal(err)
	}
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.do("GET", "/v1/admin/audit-log", "").want(200).wantBody(`{"events": [], "total": 0, "skip": 0, "limit": 100, "next_cursor": null}`)
	for i := range 3 {
		f.happen("root", fmt.Sprint("ann", i), "")
	}
	f.happen("eve", "bob", "abuse")
	list := f.do("GET", "/v1/admin/audit-log?user_id=bob", "").want(200).json()
	e := list["events"].([]any)[0].(map[string]any)
	change := e["changes"].(map[string]any)["status"].(map[string]any)
	if list["total"] != 1.0 || e["action"] != "user.suspended" || e["actor_id"] != "eve" || e["reason"] != "abuse" || e["seq"] != 4.0 ||
		e["impersonator_id"] != nil || e["ip_address"] != "192.0.2.1" || change["to"] != "suspended" || len(e["hash"].(string)) != 64 {
		t.Errorf("%v", list)
	}
	page := f.do("GET", "/v1/admin/audit-log?limit=3", "").want(200).json()
	if page["total"] != 4.0 || len(page["events"].([]any)) != 3 {
		t.Errorf("%v", page)
	}
	rest := f.do("GET", "/v1/admin/audit-log?limit=3&cursor="+page["next_cursor"].(string), "").want(200).json()
	if len(rest["events"].([]any)) != 1 || rest["next_cursor"] != nil || rest["events"].([]any)[0].(map[string]any)["seq"] != 1.0 {
		t.Errorf("%v", rest)
	}
	if r := f.do("GET", "/v1/admin/audit-log?skip=3&user_id=ann0&action=user.suspended", "").want(200).json(); r["total"] != 1.0 || r["skip"] != 3.0 || len(r["events"].([]any)) != 0 {
		t.Errorf("%v", r)
	}
	if r := f.do("GET", "/v1/admin/audit-log?from=2026-03-15&to=2026-03-15T12:00:00Z", "").want(200).json(); r["total"] != 0.0 {
		t.Errorf("%v", r)
	}
}

func TestAuditLogAsATable(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.happen("=1+1", "@ann", "-2+3, \"quoted\"\nand on")
	f.happen("root", "bob", "")
	r := f.do("GET", "/v1/admin/audit-log?format=csv&limit=1", "").want(200)
	if next := r.Header().Get("X-Next-Cursor"); next != "2" {
		t.Errorf("next %q", next)
	}
	rows := f.do("GET", "/v1/admin/audit-log?format=csv&limit=10000&cursor=2", "").want(200).table(
		"seq,created_at,action,actor_type,actor_id,actor_label,impersonator_id,resource_type,resource_id,account_id,outcome,reason,changes,metadata,ip_address,user_agent,request_id,id,prev_hash,hash")
	got := strings.Join(rows[0][:13], ";")
	const want = "1;2026-03-15T12:00:00Z;user.suspended;user;'=1+1;'+=1+1@example.com;;user;'@ann;'@ann;success;'-2+3, \"quoted\"\nand on;{\"status\":{\"from\":\"active\",\"to\":\"suspended\"}}"
	if len(rows) != 1 || got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestAuditLogPagesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=201": "limit", "limit=-1": "limit", "limit=10001&format=csv": "limit", "limit=99999999999999999999": "limit",
		"skip=-1": "skip", "skip=1000000001": "skip", "skip=1&cursor=5": "skip", "cursor=0": "cursor", "cursor=x": "cursor", "cursor=1%20OR%201": "cursor",
		"cursor=" + strings.Repeat("9", 21): "cursor", "from=x": "from", "to=x": "to", "user_id=%00": "user_id", "action=%ff": "action",
		"user_id=" + strings.Repeat("a", 256): "user_id", "format=xml": "format",
	} {
		r := f.do("GET", "/v1/admin/audit-log?"+query, "")
		if r.Code != 422 || !strings.Contains(r.Body.String(), `"loc":["query","`+field+`"]`) {
			t.Errorf("%s: %d %s", query, r.Code, r.Body)
		}
	}
}

// What was tampered with is shown as it is, and hides nothing else.
func TestAuditLogShowsWhatIsNoObject(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.happen("root", "ann", "")
	f.exec("DROP TRIGGER audit_events_not_altered")
	f.exec(`UPDATE audit_events SET changes = '[1'`)
	e := f.do("GET", "/v1/admin/audit-log", "").want(200).json()["events"].([]any)[0].(map[string]any)
	if e["changes"].(map[string]any)["text"] != "[1" {
		t.Errorf("%v", e)
	}
}
