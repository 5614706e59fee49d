package gatetest

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

const (
	day   = 24 * time.Hour
	alice = quota.Subject("user:alice")
)

func subscriptionTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"trial, at read time":                     testTrial,
		"expiry, at read time":                    testExpiry,
		"grace, at read time":                     testGrace,
		"stripe renews its own periods":           testStripePeriods,
		"cancelled at the period's end":           testCancelledAtPeriodEnd,
		"cancelled at once":                       testCancelledAtOnce,
		"upgrade keeps the billing anchor":        testUpgradeAnchor,
		"another plan at the period's end":        testPendingPlan,
		"what cannot be granted":                  testRefusedGrants,
		"an unknown price gives the default plan": testUnknownPrice,
		"concurrent upgrades leave one current":   testConcurrentUpgrades,
		"older versions":                          testVersions,
	}
}

// subscribe inserts a current subscription by hand; set is SQL for more columns.
func (t *storeTest) subscribe(account quota.Subject, plan, source, status, columns, values string, args ...any) {
	t.Helper()
	stmt := fmt.Sprintf(`INSERT INTO subscriptions (account_id, plan_id, source, status%s)
		SELECT '%s', id, '%s', '%s'%s FROM subscription_plans WHERE name = '%s'`, columns, account.ID(), source, status, values, plan)
	for i, a := range args {
		if at, ok := a.(time.Time); ok {
			args[i] = at.UTC().Format("2006-01-02 15:04:05.000000Z")
		}
	}
	if t.h.Engine == store.Postgres {
		// By hand, times are literals: the types of parameters of a SELECT list are not inferred.
		for i, a := range args {
			stmt = replaceParameter(stmt, i+1, fmt.Sprintf("'%v'::timestamptz", a))
		}
		args = nil
	}
	t.exec(stmt, args...)
}

func testTrial(t *storeTest) {
	sub, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Trial: true, Duration: 14 * day, By: "admin"})
	t.ok(err)
	end := t.clock.Now().Add(14 * day)
	if sub.Status != quota.StatusTrial || !sub.TrialEnd.Equal(end) || !sub.ExpiresAt.Equal(end) || sub.Source != "trial" {
		t.Errorf("trial: %+v", sub)
	}
	t.wantPlan(alice, "pro trial")
	if e := t.entitlement(alice); !e.ValidUntil.Equal(end) {
		t.Errorf("valid until %s, want %s", e.ValidUntil, end)
	}
	t.clock.Set(end.Add(-time.Microsecond))
	t.wantPlan(alice, "pro trial")
	t.clock.Set(end)
	t.wantPlan(alice, "free expired")
	if _, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Trial: true}); err == nil {
		t.Error("a trial without an end was granted")
	}
	t.exec("UPDATE subscription_plans SET trial_days = 7 WHERE name = 'pro'")
	sub, err = t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Trial: true})
	if err != nil || !sub.TrialEnd.Equal(end.Add(7*day)) {
		t.Errorf("trial of the plan's days: %+v, %v", sub, err)
	}
}

func testExpiry(t *storeTest) {
	now := t.clock.Now()
	t.subscribe("user:period", "pro", "manual", "active", ", current_period_end", ", $1", now.Add(day))
	t.subscribe("user:ended", "pro", "stripe", "active", ", ended_at", ", $1", now.Add(day))
	t.subscribe("user:forever", "pro", "manual", "active", "", "")
	t.subscribe("user:over", "pro", "manual", "expired", "", "")
	for _, user := range []quota.Subject{"user:period", "user:ended", "user:forever"} {
		t.wantPlan(user, "pro active")
	}
	t.wantPlan("user:over", "free expired")
	t.clock.Add(day)
	t.wantPlan("user:period", "free expired")
	t.wantPlan("user:ended", "free expired")
	t.wantPlan("user:forever", "pro active")
	if e := t.entitlement("user:forever"); !e.ValidUntil.IsZero() {
		t.Errorf("forever ends at %s", e.ValidUntil)
	}
}

func testGrace(t *storeTest) {
	since := t.clock.Now().Add(-day)
	t.subscribe(alice, "pro", "stripe", "past_due", ", past_due_since, current_period_end", ", $1, $2", since, since)
	t.wantPlan(alice, "pro past_due")
	st, err := t.store.AccountState(t.Context(), alice)
	t.ok(err)
	if want := since.Add(store.DefaultGrace); !st.Subscription.GraceUntil.Equal(want) || !st.Entitlement.ValidUntil.Equal(want) {
		t.Errorf("grace until %s, valid until %s, want %s", st.Subscription.GraceUntil, st.Entitlement.ValidUntil, want)
	}
	t.clock.Set(since.Add(store.DefaultGrace))
	t.wantPlan(alice, "free expired")
	patient := store.ForCompanion(store.New(t.db, store.Options{Engine: t.h.Engine, Now: t.clock.Now, Grace: 30 * day}))
	if p, err := patient.Plan(t.Context(), alice); err != nil || p.Name != "pro" {
		t.Errorf("with a grace of 30 days: %v, %v", p, err)
	}
}

func testStripePeriods(t *storeTest) {
	// The renewal may be seen late: the end of a paid period is no end.
	t.subscribe(alice, "pro", "stripe", "active", ", current_period_end", ", $1", t.clock.Now().Add(-day))
	t.wantPlan(alice, "pro active")
	if _, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "enterprise"}); !isErr(err, store.ErrStripeManaged) {
		t.Errorf("upgrade of what Stripe manages: %v", err)
	}
	if _, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "enterprise", Force: true}); err != nil {
		t.Errorf("forced: %v", err)
	}
	t.wantPlan(alice, "enterprise active")
}

func testCancelledAtPeriodEnd(t *storeTest) {
	now := t.clock.Now()
	for _, source := range []string{"stripe", "manual"} {
		account := quota.UserSubject(source)
		t.subscribe(account, "pro", source, "active", ", current_period_end, cancelled_at, cancel_at_period_end", ", $1, $2, TRUE", now.Add(day), now)
		sub, err := t.store.CurrentSubscription(t.Context(), account)
		t.ok(err)
		if !sub.CancelAtPeriodEnd || !sub.CancelledAt.Equal(now) || !sub.Running || sub.Status != quota.StatusActive || !sub.ExpiresAt.Equal(now.Add(day)) {
			t.Errorf("%s, cancelled to its period's end: %+v", source, sub)
		}
		t.wantPlan(account, "pro active")
	}
	t.clock.Add(day)
	t.wantPlan("user:stripe", "free cancelled")
	t.wantPlan("user:manual", "free cancelled")
}

func testCancelledAtOnce(t *storeTest) {
	now := t.clock.Now()
	t.subscribe(alice, "pro", "stripe", "cancelled", ", current_period_end, cancelled_at, ended_at", ", $1, $2, $2", now.Add(day), now)
	sub, err := t.store.CurrentSubscription(t.Context(), alice)
	if err != nil || sub.Running || sub.Status != quota.StatusCancelled {
		t.Errorf("%+v, %v", sub, err)
	}
	t.wantPlan(alice, "free cancelled")
}

func testUpgradeAnchor(t *storeTest) {
	began := t.clock.Now()
	first, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro", Duration: 90 * day})
	t.ok(err)
	t.clock.Add(40 * day)
	second, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "enterprise", Duration: 90 * day, By: "root", Reason: "asked"})
	t.ok(err)
	if first.ID == second.ID || second.Plan != "enterprise" || second.GrantedBy != "root" || second.Reason != "asked" ||
		!second.CurrentPeriodEnd.Equal(t.clock.Now().Add(90*day)) {
		t.Errorf("after the upgrade: %+v", second)
	}
	if e := t.entitlement(alice); !e.Anchor.Equal(began) {
		t.Errorf("anchor %s, want %s: the upgrade moved the billing period", e.Anchor, began)
	}
	if n := t.number("SELECT COUNT(*) FROM subscriptions WHERE status = 'cancelled' AND NOT is_current"); n != 1 {
		t.Errorf("%d replaced subscriptions", n)
	}
	t.clock.Add(200 * day) // it ended; a later one has periods of its own
	_, err = t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro"})
	t.ok(err)
	if e := t.entitlement(alice); !e.Anchor.Equal(t.clock.Now()) {
		t.Errorf("anchor of a later subscription: %s", e.Anchor)
	}
}

func testPendingPlan(t *storeTest) {
	end := t.clock.Now().Add(30 * day)
	pending := func(account quota.Subject, source, pendingEnd string) {
		t.subscribe(account, "enterprise", source, "active", ", current_period_end, pending_effective_at, pending_period_end, pending_plan_id",
			", $1, $1, "+pendingEnd+", (SELECT id FROM subscription_plans WHERE name = 'pro')", end, end.Add(30*day))
	}
	pending(alice, "manual", "$2")
	pending("user:bob", "stripe", "NULL")
	for _, account := range []quota.Subject{alice, "user:bob"} {
		t.clock.Set(end.Add(-day))
		sub, err := t.store.CurrentSubscription(t.Context(), account)
		t.ok(err)
		if sub.Plan != "enterprise" || sub.PendingPlan != "pro" || !sub.PendingAt.Equal(end) {
			t.Errorf("scheduled: %+v", sub)
		}
		t.wantPlan(account, "enterprise active")
		if e := t.entitlement(account); !e.ValidUntil.Equal(end) {
			t.Errorf("valid until %s, want %s", e.ValidUntil, end)
		}
		t.clock.Set(end)
		t.wantPlan(account, "pro active")
	}
	sub, err := t.store.CurrentSubscription(t.Context(), alice)
	if err != nil || sub.Plan != "pro" || sub.PendingPlan != "" || !sub.ExpiresAt.Equal(end.Add(30*day)) {
		t.Errorf("in effect: %+v, %v", sub, err)
	}
	t.clock.Set(end.Add(30 * day))
	t.wantPlan(alice, "free expired")
	t.wantPlan("user:bob", "pro active")
}

func testRefusedGrants(t *storeTest) {
	t.exec("UPDATE subscription_plans SET is_active = FALSE WHERE name = 'enterprise'")
	for _, tt := range []struct {
		name    string
		account quota.Subject
		grant   store.Grant
		want    error
	}{
		{"no such plan", alice, store.Grant{Plan: "gone"}, store.ErrPlanNotFound},
		{"not active", alice, store.Grant{Plan: "enterprise"}, store.ErrPlanInactive},
		{"negative", alice, store.Grant{Plan: "pro", Duration: -1}, nil},
		{"beyond all bounds", alice, store.Grant{Plan: "pro", Duration: 1 << 62}, nil},
		{"not an account", "ip:10.0.0.0/8", store.Grant{Plan: "pro"}, nil},
	} {
		_, err := t.store.Upgrade(t.Context(), tt.account, tt.grant)
		if tt.want != nil && !isErr(err, tt.want) || tt.want == nil && asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM subscriptions"); n != 0 {
		t.Errorf("%d subscriptions were left behind", n)
	}
}

func testUnknownPrice(t *storeTest) {
	t.exec("INSERT INTO subscriptions (account_id, source, status) VALUES ('alice', 'stripe', 'active')")
	t.wantPlan(alice, "free active")
}

func testConcurrentUpgrades(t *storeTest) {
	plans := []string{"pro", "enterprise", "free"}
	for i, err := range concurrently(t.Context(), 24, func(ctx context.Context, i int) error {
		_, err := t.store.Upgrade(ctx, alice, store.Grant{Plan: plans[i%len(plans)], Duration: day})
		return err
	}) {
		if err != nil {
			t.Errorf("upgrade %d: %v", i, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM subscriptions WHERE account_id = 'alice' AND is_current"); n != 1 {
		t.Errorf("%d current subscriptions", n)
	}
	if n := t.number("SELECT COUNT(*) FROM subscriptions"); n != 24 {
		t.Errorf("%d subscriptions, want 24", n)
	}
	if _, err := t.db.ExecContext(t.Context(), "UPDATE subscriptions SET is_current = TRUE"); err == nil {
		t.Error("two current subscriptions were accepted")
	}
}

func testVersions(t *storeTest) {
	before := t.entitlement(alice).Version
	_, err := t.store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro"})
	t.ok(err)
	after := t.entitlement(alice).Version
	latest, err := t.store.Latest(t.Context())
	t.ok(err)
	if after <= before || after != latest {
		t.Errorf("version %d before, %d after a change, latest %d", before, after, latest)
	}
	changes, err := t.store.Changes(t.Context(), before)
	t.ok(err)
	if len(changes) == 0 || changes[len(changes)-1] != (quota.Change{Seq: latest, Subject: alice}) {
		t.Errorf("changes after %d: %v", before, changes)
	}
	// An entitlement's version is never newer than what it was made from.
	errs := concurrently(t.Context(), 8, func(ctx context.Context, i int) error {
		for n := range 10 {
			if i == 0 {
				plan := []string{"free", "pro"}[n%2]
				if _, err := t.store.Upgrade(ctx, alice, store.Grant{Plan: plan, Reason: plan}); err != nil {
					return err
				}
				continue
			}
			st, err := t.store.AccountState(ctx, alice)
			if err != nil {
				return err
			}
			if r := st.Subscription.Reason; r != "" && r != st.Entitlement.Plan.Name {
				return fmt.Errorf("torn read: granted %s, plan %s", r, st.Entitlement.Plan.Name)
			}
		}
		return nil
	})
	for _, err := range errs {
		t.ok(err)
	}
}
