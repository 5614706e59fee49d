package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

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

// An address that could not be given back at once is given back when it is free
// again, however often the user is deleted and restored meanwhile; one that the
// user has chosen since stays.
func TestAddressThatWasKeptIsGivenBackLater(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	restore := func(moved any) {
		t.Helper()
		if r := f.do("POST", "/v1/admin/users/42/restore", "").want(200).json(); r["email_moved"] != moved {
			t.Errorf("%v, want email_moved %v", r, moved)
		}
	}
	address := func(want string) {
		t.Helper()
		if got := f.text("SELECT email FROM users WHERE id = '42'"); got != want {
			t.Errorf("the host has %s, want %s", got, want)
		}
	}
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	f.exec(`INSERT INTO users (id, email, status) VALUES ('43', 'ann@example.com', 'active')`)
	restore(false)
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	restore(false)
	f.exec(`UPDATE users SET email = 'other@example.com' WHERE id = '43'`) // it is free again
	f.do("PATCH", "/v1/admin/users/42", `{"status":"suspended"}`).want(200)
	restore(true)
	address("ann@example.com")
	if got := f.text("SELECT state || ' ' || COALESCE(original_email, '') FROM user_controls WHERE user_id = '42'"); got != "suspended " {
		t.Errorf("the records have %s", got)
	}
	if got := f.audited(); got[len(got)-1] != "user.email_returned 42 by boss" {
		t.Errorf("audited %v", got)
	}
	f.do("PATCH", "/v1/admin/users/42", `{"status":"active"}`).want(200)
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	f.exec(`UPDATE users SET email = 'ann@example.com' WHERE id = '43'`)
	restore(false)
	f.exec(`UPDATE users SET email = 'chosen@example.com' WHERE id = '42'`)
	f.exec(`UPDATE users SET email = 'other@example.com' WHERE id = '43'`)
	restore(nil)
	address("chosen@example.com")
}

// Where the host has no column for addresses, the one that tokens have told is
// sealed and given back.
func TestAddressOfTokensIsFreed(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.exec(`CREATE TABLE users (id TEXT PRIMARY KEY, status TEXT)`)
	f.exec(`INSERT INTO users VALUES ('42', 'active')`)
	f.exec(`INSERT INTO accounts (id, kind, email) VALUES ('42', 'user', 'ann@example.com')`)
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	if got := f.dump("accounts"); strings.Contains(got, "ann@example.com") {
		t.Errorf("accounts holds the address: %s", got)
	}
	f.do("POST", "/v1/admin/users/42/restore", "").want(200)
	if got := f.text("SELECT email FROM accounts WHERE id = '42'"); got != "ann@example.com" {
		t.Errorf("accounts has %s", got)
	}
}

// The plan of a deleted user is not changed.
func TestPlanOfADeletedUser(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.do("DELETE", "/v1/admin/users/42", "").want(200)
	f.do("PATCH", "/v1/admin/users/42", `{"plan_name":"pro"}`).want(409)
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
