package admin

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

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
		`192.0.2.1 spam {"status":{"from":"active","to":"suspended"}}` {
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
