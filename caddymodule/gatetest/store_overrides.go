package gatetest

import (
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/caddymodule/store/column"
)

func overrideTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"quota overrides and top-ups":  testQuotaOverrides,
		"rate overrides":               testRateOverrides,
		"overrides that are refused":   testRefusedOverrides,
		"suspended, deleted, let in":   testControls,
		"revoked sessions":             testRevocation,
		"admins":                       testAdmins,
		"controls are not of accounts": testOrgControl,
	}
}

func (t *storeTest) limit(metric string) quota.Quota {
	t.Helper()
	q, ok := t.entitlement(alice).Quota(metric)
	if !ok {
		t.Errorf("no quota of %s", metric)
	}
	return q
}

func testQuotaOverrides(t *storeTest) {
	now := t.clock.Now()
	add := func(o store.QuotaOverride) string {
		t.Helper()
		id, err := t.store.AddQuotaOverride(t.Context(), store.Actor{}, alice, o)
		return must(t, id, err)
	}
	add(store.QuotaOverride{Metric: "jobs", Mode: store.ModeSet, Limit: 20, Expires: now.Add(10 * day)})
	topUp := add(store.QuotaOverride{Metric: "jobs", Mode: store.ModeAdd, Limit: 5, Starts: now.Add(day)})
	add(store.QuotaOverride{Metric: "jobs", Mode: store.ModeAdd, Limit: 1})
	e := t.entitlement(alice)
	if !e.ValidUntil.Equal(now.Add(day)) {
		t.Errorf("valid until %s, want the start of a top-up", e.ValidUntil)
	}
	if diff := cmp.Diff(quota.Quota{Limit: 21, Period: quota.PeriodMonth, Status: 402}, e.Quotas["jobs"]); diff != "" {
		t.Error(diff)
	}
	t.clock.Set(now.Add(day))
	if q := t.limit("jobs"); q.Limit != 26 {
		t.Errorf("with both top-ups: %+v", q)
	}
	t.clock.Set(now.Add(10 * day))
	if q := t.limit("jobs"); q.Limit != 16 {
		t.Errorf("the plan's limit with both top-ups: %+v", q)
	}
	revoke := func() error {
		return second(t.store.RevokeOverrides(t.Context(), store.Actor{}, alice, store.Revocation{ID: topUp}))
	}
	t.ok(revoke())
	if q := t.limit("jobs"); q.Limit != 11 {
		t.Errorf("after a top-up was revoked: %+v", q)
	}
	if err := revoke(); !isErr(err, store.ErrOverrideNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
	add(store.QuotaOverride{Metric: "jobs", Mode: store.ModeSet, Unlimited: true})
	add(store.QuotaOverride{Metric: "storage_bytes", Mode: store.ModeAdd, Limit: quota.MaxAmount})
	if q := t.limit("jobs"); !q.Unlimited {
		t.Errorf("unlimited: %+v", q)
	}
	if q := t.limit("storage_bytes"); q.Limit != quota.MaxAmount || q.Period != quota.PeriodNone {
		t.Errorf("a top-up beyond 2^53: %+v", q)
	}
	if quotas, rates, err := t.store.ListOverrides(t.Context(), alice); err != nil || len(quotas) != 4 || len(rates) != 0 {
		t.Errorf("listed: %v, %v, %v", quotas, rates, err)
	}
	if q, _ := t.entitlement("user:bob").Quota("jobs"); q.Limit != 10 {
		t.Errorf("someone else's limit: %+v", q)
	}
}

func testRateOverrides(t *storeTest) {
	now := t.clock.Now()
	base := quota.Rate{Requests: 1, Window: time.Second}
	for i, o := range []store.RateOverride{
		{Scope: "api", Rate: quota.Rate{Requests: 1000, Window: time.Minute}, Starts: now.Add(-time.Hour)},
		{Scope: "api", Rate: quota.Rate{Requests: 2000, Window: time.Minute}, Expires: now.Add(time.Hour)},
		{Scope: "uploads", Rate: quota.Rate{Requests: 0, Window: time.Hour}},
	} {
		if _, err := t.store.AddRateOverride(t.Context(), store.Actor{}, alice, o); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	rate := func(scope string) int64 {
		r, _ := t.entitlement(alice).RateFor(scope, base)
		return r.Requests
	}
	if rate("api") != 2000 || rate("uploads") != 0 || rate("login") != 10 {
		t.Errorf("api %d, uploads %d, login %d", rate("api"), rate("uploads"), rate("login"))
	}
	t.clock.Add(time.Hour)
	if rate("api") != 1000 {
		t.Errorf("the later one is over: %d", rate("api"))
	}
}

func testRefusedOverrides(t *storeTest) {
	now := t.clock.Now()
	for name, o := range map[string]store.QuotaOverride{
		"negative":          {Metric: "jobs", Mode: store.ModeSet, Limit: -1},
		"above 2^53":        {Metric: "jobs", Mode: store.ModeAdd, Limit: quota.MaxAmount + 1},
		"no mode":           {Metric: "jobs", Limit: 1},
		"unlimited top-up":  {Metric: "jobs", Mode: store.ModeAdd, Unlimited: true},
		"no metric":         {Mode: store.ModeSet},
		"ends before start": {Metric: "jobs", Mode: store.ModeSet, Starts: now, Expires: now},
	} {
		if _, err := t.store.AddQuotaOverride(t.Context(), store.Actor{}, alice, o); asErr[*store.InvalidError](err) == nil {
			t.Errorf("quota, %s: %v", name, err)
		}
	}
	for name, o := range map[string]store.RateOverride{
		"negative":      {Scope: "api", Rate: quota.Rate{Requests: -1, Window: time.Second}},
		"no window":     {Scope: "api", Rate: quota.Rate{Requests: 1}},
		"half a second": {Scope: "api", Rate: quota.Rate{Requests: 1, Window: 1500 * time.Millisecond}},
		"endless":       {Scope: "api", Rate: quota.Rate{Requests: 1, Window: quota.MaxWindow + time.Second}},
		"no scope":      {Scope: "API", Rate: quota.Rate{Requests: 1, Window: time.Second}},
	} {
		if _, err := t.store.AddRateOverride(t.Context(), store.Actor{}, alice, o); asErr[*store.InvalidError](err) == nil {
			t.Errorf("rate, %s: %v", name, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM quota_overrides") + t.number("SELECT COUNT(*) FROM rate_limit_overrides"); n != 0 {
		t.Errorf("%d overrides were left behind", n)
	}
}

// patch sets the state of a user whom gateways have seen, as an admin does.
func (t *storeTest) patch(id, status, reason string) {
	t.Helper()
	t.ok(second(t.store.PatchUser(t.Context(), boss(), id, store.UserPatch{Status: status, Reason: reason})))
}

// until gives a suspension an end, which is done by hand.
func (t *storeTest) until(id string, at time.Time) {
	t.Helper()
	t.exec("UPDATE user_controls SET until = $1 WHERE user_id = $2", column.At(at), id)
}

func testControls(t *storeTest) {
	now := t.clock.Now()
	t.see(alice)
	want := func(c quota.Control) {
		t.Helper()
		if e := t.entitlement(alice); e.Control != c {
			t.Errorf("control %d, want %d", e.Control, c)
		}
	}
	want(quota.ControlActive)
	t.patch("alice", "suspended", "abuse")
	t.until("alice", now.Add(time.Hour))
	want(quota.ControlSuspended)
	if e := t.entitlement(alice); !e.ValidUntil.Equal(now.Add(time.Hour)) {
		t.Errorf("valid until %s", e.ValidUntil)
	}
	t.clock.Add(time.Hour)
	want(quota.ControlActive)
	d, err := t.store.UserDetail(t.Context(), "alice")
	c := must(t, d, err).Control
	if c.State != quota.ControlActive || c.Reason != "abuse" || !c.Until.Equal(now.Add(time.Hour)) || c.UpdatedBy != "boss" || !c.UpdatedAt.Equal(now) {
		t.Errorf("%+v", c)
	}
	t.patch("alice", "suspended", "")
	t.clock.Add(1000 * day)
	want(quota.ControlSuspended)
	t.ok(second(t.store.RemoveUser(t.Context(), boss(), "alice", store.Removal{Reason: "asked"})))
	want(quota.ControlDeleted)
	t.ok(second(t.store.RestoreUser(t.Context(), boss(), "alice", store.Restoration{})))
	want(quota.ControlActive)
}

func testRevocation(t *storeTest) {
	now := t.clock.Now()
	t.see(alice)
	old := &quota.Principal{Subject: alice, Session: "s1", IssuedAt: now.Add(-time.Hour)}
	if t.entitlement(alice).Revoked(old) {
		t.Error("revoked from the start")
	}
	t.exec("INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'alice')")
	e := t.entitlement(alice)
	if !e.Revoked(old) || e.Revoked(&quota.Principal{Subject: alice, Session: "s2", IssuedAt: now.Add(-time.Hour)}) {
		t.Errorf("one session is revoked: %+v", e.RevokedSessions)
	}
	logOut := func() {
		t.Helper()
		t.ok(second(t.store.LogOutUser(t.Context(), boss(), "alice", "", store.Precondition{})))
	}
	logOut()
	e = t.entitlement(alice)
	if !e.TokensValidAfter.Equal(now) || !e.Revoked(&quota.Principal{Subject: alice, IssuedAt: now}) ||
		e.Revoked(&quota.Principal{Subject: alice, IssuedAt: now.Add(time.Second)}) {
		t.Errorf("tokens are valid after %s", e.TokensValidAfter)
	}
	t.patch("alice", "suspended", "")
	t.patch("alice", "active", "")
	t.clock.Add(-time.Hour) // another companion's clock is behind: a revocation is never taken back
	logOut()
	if e := t.entitlement(alice); !e.TokensValidAfter.Equal(now) {
		t.Errorf("tokens are valid after %s, want %s", e.TokensValidAfter, now)
	}
}

func testAdmins(t *storeTest) {
	grant := func(want bool) {
		t.Helper()
		if got, err := t.store.GrantAdmin(t.Context(), "alice", store.Actor{Type: store.ActorCLI}); err != nil || got != want {
			t.Errorf("granted: %t, %v", got, err)
		}
	}
	is := func(want bool) {
		t.Helper()
		if got, err := t.store.IsAdmin(t.Context(), "alice"); err != nil || got != want {
			t.Errorf("is admin: %t, %v", got, err)
		}
	}
	is(false)
	grant(true)
	grant(false)
	is(true)
	want := []store.Admin{{UserID: "alice", Role: "superadmin", GrantedBy: "cli", GrantedAt: t.clock.Now()}}
	list, err := t.store.ListAdmins(t.Context())
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := t.store.RevokeAdmin(t.Context(), "alice", store.Actor{Type: store.ActorCLI}); got || !isErr(err, store.ErrLastSuperadmin) {
		t.Errorf("revoked the last one: %t, %v", got, err)
	}
	if _, err := t.store.GrantAdmin(t.Context(), "bob", store.Actor{Type: store.ActorCLI}); err != nil {
		t.Fatal(err)
	}
	if got, err := t.store.RevokeAdmin(t.Context(), "alice", store.Actor{Type: store.ActorCLI}); err != nil || !got {
		t.Errorf("revoked: %t, %v", got, err)
	}
	if got, err := t.store.RevokeAdmin(t.Context(), "alice", store.Actor{Type: store.ActorCLI}); err != nil || got {
		t.Errorf("revoked twice: %t, %v", got, err)
	}
	is(false)
	if got, err := t.store.RevokeAllAdmins(t.Context(), store.Actor{Type: store.ActorCLI}); err != nil || len(got) != 1 || got[0] != "bob" {
		t.Errorf("revoked all: %v, %v", got, err)
	}
}

func testOrgControl(t *storeTest) {
	t.see("user:acme")
	t.patch("acme", "suspended", "")
	if e := t.entitlement("org:acme"); e.Control != quota.ControlActive {
		t.Error("an organization has the control of a user with its id")
	}
}
