package gatetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func userTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"UserIsChangedAsAWholeOrNotAtAll":        testUserWhole,
		"UserChangesAtOnce":                      testUserChangesAtOnce,
		"AdminsWhoLockOutEachOther":              testAdminsLockOut,
		"AdminsWhoRevokeEachOther":               testAdminsRevoke,
		"BootstrapAdminsWhoLockOutEachOther":     testBootstrapAdminsLockOut,
		"LastSuperadminStays":                    testLastSuperadmin,
		"DeletedUserIsNotKnownAgainByHisTokens":  testDeletedUserStaysUnknown,
		"DryRunOfAUserChangeLeavesNothing":       testUserDryRun,
		"ChangeIsRefusedForAnotherVersion":       testUserVersion,
		"ClearedLimitsAreToldAndRecordedForUser": testNoteCleared,
	}
}

// hostUsers gives the database a host's tables: users 1 to 3, with a session each.
func (t *storeTest) hostUsers() {
	t.Helper()
	schema := ""
	if t.h.Engine == store.Postgres {
		schema = "public."
	}
	t.exec("CREATE TABLE " + schema + "users (id BIGINT PRIMARY KEY, email TEXT NOT NULL UNIQUE, status VARCHAR(20) NOT NULL)")
	t.exec("CREATE TABLE " + schema + "sessions (id TEXT PRIMARY KEY, user_id BIGINT NOT NULL, revoked_at TIMESTAMP)")
	for i := 1; i <= 3; i++ {
		t.exec(fmt.Sprintf("INSERT INTO %susers VALUES (%d, 'u%d@example.com', 'active')", schema, i, i))
		t.exec(fmt.Sprintf("INSERT INTO %ssessions VALUES ('s%d', %d, NULL)", schema, i, i))
	}
	t.store.SetHost(store.HostOptions{})
}

// hostWord is one column of a host's user.
func (t *storeTest) hostWord(column, id string) string {
	t.Helper()
	schema := ""
	if t.h.Engine == store.Postgres {
		schema = "public."
	}
	var s string
	t.ok(t.db.QueryRowContext(t.Context(), "SELECT "+column+" FROM "+schema+"users WHERE id = "+id).Scan(&s))
	return s
}

func boss() store.Actor { return store.Actor{Type: store.ActorUser, ID: "boss", Bootstrap: true} }

func testUserWhole(t *storeTest) {
	t.hostUsers()
	_, err := t.store.PatchUser(t.Context(), boss(), "1", store.UserPatch{Status: "suspended", Plan: "nothing"})
	if !isErr(err, store.ErrPlanNotFound) || t.hostWord("status", "1") != "active" || t.head().Seq != 0 {
		t.Errorf("half of it was done: %v, %s", err, t.hostWord("status", "1"))
	}
	// Whatever way the id is written in, it is the host's user.
	r, err := t.store.PatchUser(t.Context(), boss(), "01", store.UserPatch{Status: "suspended", Plan: "pro", Reason: "x"})
	if err == nil && r.UserID != "1" {
		t.Errorf("changed the user %q", r.UserID)
	}
	if err != nil && !isErr(err, store.ErrUserNotFound) {
		t.Fatal(err)
	}
	r, err = t.store.PatchUser(t.Context(), boss(), "1", store.UserPatch{Status: "suspended", Plan: "pro", Reason: "x"})
	if must(t, r, err).UserID != "1" || t.hostWord("status", "1") != "suspended" {
		t.Errorf("%+v, the host has %s", r, t.hostWord("status", "1"))
	}
	e := t.entitlement("user:1")
	if e.Control != quota.ControlSuspended || e.Plan.Name != "pro" {
		t.Errorf("%v %s", e.Control, e.Plan.Name)
	}
	r, err = t.store.RemoveUser(t.Context(), boss(), "1", store.Removal{Seal: func(_, email string) string { return "sealed " + email[:2] }})
	if got := must(t, r, err); got.Sessions != 1 || t.hostWord("email", "1") != "deleted_1@example.com" || t.hostWord("status", "1") != "deleted" {
		t.Errorf("%+v, the host has %s %s", got, t.hostWord("status", "1"), t.hostWord("email", "1"))
	}
	r, err = t.store.RestoreUser(t.Context(), boss(), "1", store.Restoration{Open: func(_, sealed string) (string, error) {
		if sealed != "sealed u1" {
			return "", errors.New(sealed)
		}
		return "u1@example.com", nil
	}})
	if got := must(t, r, err); !got.Email.Updated || t.hostWord("email", "1") != "u1@example.com" || t.hostWord("status", "1") != "active" {
		t.Errorf("%+v, the host has %s %s", got, t.hostWord("status", "1"), t.hostWord("email", "1"))
	}
	h := t.head()
	if _, err := t.store.VerifyAudit(t.Context(), &h); err != nil {
		t.Error(err)
	}
}

// Whatever is done to one user at once ends in one of the orders, with an event
// for each change, and none is lost to a deadlock.
func testUserChangesAtOnce(t *storeTest) {
	t.hostUsers()
	for _, err := range concurrently(t.Context(), 12, func(ctx context.Context, i int) error {
		id := fmt.Sprint(i%3 + 1)
		switch i % 4 {
		case 0:
			_, err := t.store.PatchUser(ctx, boss(), id, store.UserPatch{Status: "suspended", Reason: fmt.Sprint(i)})
			return err
		case 1:
			_, err := t.store.PatchUser(ctx, boss(), id, store.UserPatch{Plan: "pro", Duration: time.Duration(i+1) * time.Hour})
			return err
		case 2:
			_, err := t.store.LogOutUser(ctx, boss(), id, "", store.Precondition{})
			return err
		}
		_, err := t.store.GrantAdmin(ctx, id, boss())
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	h := t.head()
	if _, err := t.store.VerifyAudit(t.Context(), &h); err != nil || h.Seq != 12 {
		t.Errorf("%d events, want 12: %v", h.Seq, err)
	}
	if n := t.number("SELECT COUNT(*) FROM subscriptions WHERE is_current"); n != 3 {
		t.Errorf("%d current subscriptions, want 3", n)
	}
}

func testAdminsLockOut(t *storeTest) {
	t.hostUsers()
	for _, id := range []string{"1", "2", "3"} {
		_, err := t.store.GrantAdmin(t.Context(), id, store.Actor{Type: store.ActorCLI})
		t.ok(err)
	}
	refused := 0
	for _, err := range concurrently(t.Context(), 3, func(ctx context.Context, i int) error {
		_, err := t.store.PatchUser(ctx, store.Actor{Type: store.ActorUser, ID: fmt.Sprint(i + 1)}, fmt.Sprint((i+1)%3+1), store.UserPatch{Status: "suspended"})
		return err
	}) {
		if isErr(err, store.ErrNotAdmin) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM user_controls WHERE state = 'suspended'"); n == 3 || refused == 0 || n+int64(refused) != 3 {
		t.Errorf("%d were suspended and %d refused", n, refused)
	}
}

// Of superadmins from whom the role is taken at once the last one keeps it.
func testAdminsRevoke(t *storeTest) {
	cli := store.Actor{Type: store.ActorCLI}
	for i := range 4 {
		_, err := t.store.GrantAdmin(t.Context(), fmt.Sprint("admin", i), cli)
		t.ok(err)
	}
	refused := 0
	for _, err := range concurrently(t.Context(), 4, func(ctx context.Context, i int) error {
		_, err := t.store.RevokeAdmin(ctx, fmt.Sprint("admin", i), cli)
		return err
	}) {
		if isErr(err, store.ErrLastSuperadmin) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM admins"); n != 1 || refused != 1 {
		t.Errorf("%d are left and %d were refused, want 1 and 1", n, refused)
	}
	if n := t.number("SELECT COUNT(*) FROM audit_events WHERE action = 'admin.revoked'"); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}

// The table of admins says nothing of those of the config: one of them remains too.
func testBootstrapAdminsLockOut(t *storeTest) {
	t.hostUsers()
	change := []func(ctx context.Context, by store.Actor, id string) error{
		func(ctx context.Context, by store.Actor, id string) error {
			_, err := t.store.PatchUser(ctx, by, id, store.UserPatch{Status: "suspended"})
			return err
		},
		func(ctx context.Context, by store.Actor, id string) error {
			_, err := t.store.RemoveUser(ctx, by, id, store.Removal{})
			return err
		},
	}
	refused := 0
	for _, err := range concurrently(t.Context(), 3, func(ctx context.Context, i int) error {
		by := store.Actor{Type: store.ActorUser, ID: fmt.Sprint(i + 1), Bootstrap: true}
		return change[i%2](ctx, by, fmt.Sprint((i+1)%3+1))
	}) {
		if isErr(err, store.ErrNotAdmin) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM user_controls WHERE state <> 'active'"); n == 3 || refused == 0 || n+int64(refused) != 3 {
		t.Errorf("%d were locked out and %d refused", n, refused)
	}
}

func testLastSuperadmin(t *storeTest) {
	t.hostUsers()
	cli := store.Actor{Type: store.ActorCLI}
	_, err := t.store.GrantAdmin(t.Context(), "1", cli)
	t.ok(err)
	if _, err := t.store.PatchUser(t.Context(), cli, "1", store.UserPatch{Status: "suspended"}); !isErr(err, store.ErrLastSuperadmin) {
		t.Errorf("suspended: %v", err)
	}
	if _, err := t.store.RemoveUser(t.Context(), cli, "1", store.Removal{}); !isErr(err, store.ErrLastSuperadmin) {
		t.Errorf("deleted: %v", err)
	}
	self := store.Actor{Type: store.ActorUser, ID: "1"}
	if _, err := t.store.RemoveUser(t.Context(), self, "1", store.Removal{}); !isErr(err, store.ErrSelf) {
		t.Errorf("deleted himself: %v", err)
	}
	_, err = t.store.GrantAdmin(t.Context(), "2", cli)
	t.ok(err)
	r, err := t.store.RemoveUser(t.Context(), cli, "1", store.Removal{})
	if !must(t, r, err).Changed {
		t.Error("not deleted though there is another")
	}
	if is, err := t.store.IsAdmin(t.Context(), "1"); err != nil || is {
		t.Errorf("a deleted user is an admin: %v", err)
	}
}

func testDeletedUserStaysUnknown(t *storeTest) {
	seen := func() {
		t.Helper()
		t.ok(t.store.Flush(t.Context(), quota.Flush{
			EpochTotals: quota.EpochTotals{Epoch: "e"}, Seen: []quota.Seen{{Account: "user:ann", Email: "ann@example.com", At: t.clock.Now()}},
		}))
	}
	seen()
	_, err := t.store.RemoveUser(t.Context(), boss(), "ann", store.Removal{Seal: func(string, string) string { return "sealed" }})
	t.ok(err)
	seen()
	if n := t.number("SELECT COUNT(*) FROM accounts WHERE email IS NOT NULL"); n != 0 {
		t.Error("a token of a deleted user brings its address back")
	}
}

func testUserDryRun(t *storeTest) {
	t.hostUsers()
	r, err := t.store.RemoveUser(t.Context(), boss(), "1", store.Removal{
		Precondition: store.Precondition{DryRun: true}, Seal: func(string, string) string { return "sealed" },
	})
	if got := must(t, r, err); !got.Changed || got.Sessions != 1 || !got.Email.Updated {
		t.Errorf("%+v", got)
	}
	if t.hostWord("status", "1") != "active" || t.hostWord("email", "1") != "u1@example.com" || t.head().Seq != 0 ||
		t.number("SELECT COUNT(*) FROM user_controls") != 0 || t.number("SELECT COUNT(*) FROM outbox_events") != 0 {
		t.Error("what was only tried has left something")
	}
}

func testUserVersion(t *storeTest) {
	t.hostUsers()
	d, err := t.store.UserDetail(t.Context(), "1")
	before := must(t, d, err).Version
	matches := func(v string) bool { return v == before }
	_, err = t.store.PatchUser(t.Context(), boss(), "1", store.UserPatch{Precondition: store.Precondition{Matches: matches}, Plan: "pro"})
	t.ok(err)
	for _, change := range []func() error{
		func() error {
			_, err := t.store.PatchUser(t.Context(), boss(), "1", store.UserPatch{Precondition: store.Precondition{Matches: matches}, Plan: "free"})
			return err
		},
		func() error {
			_, err := t.store.RemoveUser(t.Context(), boss(), "1", store.Removal{Precondition: store.Precondition{Matches: matches}})
			return err
		},
		func() error {
			_, err := t.store.LogOutUser(t.Context(), boss(), "1", "", store.Precondition{Matches: matches})
			return err
		},
	} {
		if err := change(); !isErr(err, store.ErrChanged) {
			t.Errorf("%v", err)
		}
	}
}

func testNoteCleared(t *storeTest) {
	t.hostUsers()
	before := t.number("SELECT COALESCE(MAX(seq), 0) FROM changes")
	for range 2 { // with and without a row of user_controls
		t.ok(t.store.NoteCleared(t.Context(), boss(), "1", "asked", []string{"api"}, nil))
		after := t.number("SELECT COALESCE(MAX(seq), 0) FROM changes WHERE subject = 'user:1'")
		if after <= before {
			t.Error("no gateway is told")
		}
		before = after
	}
	if e := t.entitlement("user:1"); e.Control != quota.ControlActive || !e.TokensValidAfter.IsZero() {
		t.Errorf("%+v", e)
	}
}
