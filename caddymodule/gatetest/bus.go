package gatetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// BusHarness is an open bus over an empty, migrated database.
type BusHarness struct {
	Bus   gate.Bus
	Store *store.Companion
	// DB is a connection of its own to the same database, for changes by hand.
	DB *sql.DB
}

// noticeWithin bounds how long a change may take to be noticed.
const noticeWithin = 2 * time.Second

// RunBus is what every records guest's bus does.
func RunBus(t *testing.T, open func(t *testing.T) BusHarness) {
	t.Helper()
	for name, f := range map[string]func(*testing.T, BusHarness){
		"changes by the services":             testServicesChange,
		"changes by hand":                     testChangesByHand,
		"what concerns no entitlement":        testNoChange,
		"changes from before the watch":       testEarlierChanges,
		"changes that were pruned":            testPrunedChanges,
		"numbers are in the order of commits": testCommitOrder,
		"what is rolled back is no change":    testRolledBack,
		"a watch ends with its context":       testWatchEnds,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open(t))
		})
	}
}

// watcher collects what a Watch delivers.
type watcher struct {
	t       *testing.T
	mu      sync.Mutex
	changes []quota.Change
	arrived chan struct{} // has a place for one
	alive   chan struct{} // closed by the first delivery
	once    sync.Once
}

// watch watches from the newest change on, until the test ends.
func (h BusHarness) watch(t *testing.T, after int64) *watcher {
	t.Helper()
	w := &watcher{t: t, arrived: make(chan struct{}, 1), alive: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- h.Bus.Watch(ctx, after, nil, func(cs []quota.Change) {
			w.mu.Lock()
			w.changes = append(w.changes, cs...)
			w.mu.Unlock()
			w.once.Do(func() { close(w.alive) })
			select {
			case w.arrived <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("watching: %v", err)
		}
	})
	select {
	case <-w.alive:
	case <-time.After(noticeWithin):
		t.Fatal("the watch gives no sign of life")
	}
	return w
}

func (h BusHarness) latest(t *testing.T) int64 {
	t.Helper()
	seq, err := h.Bus.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func (h BusHarness) exec(t *testing.T, stmt string) {
	t.Helper()
	if _, err := h.DB.ExecContext(t.Context(), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

// take waits until everything up to number seq has arrived and returns the
// subjects, each once, in order.
func (w *watcher) take(seq int64) []quota.Subject {
	w.t.Helper()
	deadline := time.After(noticeWithin)
	for {
		w.mu.Lock()
		cs := w.changes
		if n := len(cs); n > 0 && cs[n-1].Seq >= seq {
			w.changes = nil
			w.mu.Unlock()
			return subjects(w.t, cs)
		}
		w.mu.Unlock()
		select {
		case <-w.arrived:
		case <-deadline:
			w.t.Fatalf("change %d was not noticed within %s: %v", seq, noticeWithin, cs)
		}
	}
}

func subjects(t *testing.T, cs []quota.Change) []quota.Subject {
	t.Helper()
	var list []quota.Subject
	seen := map[quota.Subject]bool{}
	for i, c := range cs {
		if i > 0 && c.Seq <= cs[i-1].Seq {
			t.Errorf("change %d was delivered after %d", c.Seq, cs[i-1].Seq)
		}
		if !seen[c.Subject] {
			seen[c.Subject] = true
			list = append(list, c.Subject)
		}
	}
	return list
}

func testServicesChange(t *testing.T, h BusHarness) {
	ctx, s := t.Context(), h.Store
	h.exec(t, "INSERT INTO accounts (id, kind) VALUES ('bob', 'user')")
	w := h.watch(t, h.latest(t))
	const org = quota.Subject("org:acme")
	for _, step := range []struct {
		name string
		do   func() error
		want []quota.Subject
	}{
		{"upgrade", func() error { return second(s.Upgrade(ctx, alice, store.Grant{Plan: "pro", Duration: day})) }, []quota.Subject{alice}},
		{"an organization's", func() error { return second(s.Upgrade(ctx, org, store.Grant{Plan: "pro"})) }, []quota.Subject{org}},
		{"override", func() error {
			return second(s.AddQuotaOverride(ctx, store.Actor{}, org, store.QuotaOverride{Metric: "jobs", Mode: store.ModeAdd, Limit: 1}))
		}, []quota.Subject{org}},
		{"level", func() error {
			return s.SetLevels(ctx, boss(), []store.Level{{Account: alice, Metric: "storage_bytes", Value: 5}})
		}, []quota.Subject{alice}},
		{"suspension", func() error { return second(s.PatchUser(ctx, boss(), "bob", store.UserPatch{Status: "suspended"})) }, []quota.Subject{"user:bob"}},
		{"revocation", func() error { return second(s.LogOutUser(ctx, boss(), "bob", "", store.Precondition{})) }, []quota.Subject{"user:bob"}},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, w.take(h.latest(t))); diff != "" {
			t.Errorf("%s:\n%s", step.name, diff)
		}
	}
}

func testChangesByHand(t *testing.T, h BusHarness) {
	if _, err := h.Store.Upgrade(t.Context(), alice, store.Grant{Plan: "pro"}); err != nil {
		t.Fatal(err)
	}
	pro, err := h.Store.PlanByName(t.Context(), "pro")
	if err != nil {
		t.Fatal(err)
	}
	plan := quota.Subject("plan:" + pro.ID)
	everyone := []quota.Subject{quota.AllSubjects}
	w := h.watch(t, h.latest(t))
	for _, step := range []struct {
		stmt string
		want []quota.Subject
	}{
		{"UPDATE subscriptions SET ended_at = started_at WHERE account_id = 'alice'", []quota.Subject{alice}},
		{"UPDATE subscriptions SET account_id = 'carol' WHERE account_id = 'alice'", []quota.Subject{alice, "user:carol", "org:carol"}},
		{"DELETE FROM subscriptions", []quota.Subject{"user:carol", "org:carol"}},
		{"INSERT INTO quota_overrides (account_id, metric, mode, limit_value) VALUES ('alice', 'jobs', 'set', 1)", []quota.Subject{alice}},
		{"UPDATE quota_overrides SET limit_value = 2", []quota.Subject{alice}},
		{"DELETE FROM quota_overrides", []quota.Subject{alice}},
		{"INSERT INTO rate_limit_overrides (account_id, scope, requests, window_seconds) VALUES ('alice', 'api', 1, 1)", []quota.Subject{alice}},
		{"INSERT INTO usage_levels (account_id, metric, value) VALUES ('alice', 'storage_bytes', 1)", []quota.Subject{alice}},
		{"UPDATE usage_levels SET value = 2", []quota.Subject{alice}},
		{"INSERT INTO user_controls (user_id, state) VALUES ('alice', 'suspended')", []quota.Subject{alice}},
		{"UPDATE user_controls SET state = 'active'", []quota.Subject{alice}},
		{"DELETE FROM user_controls", []quota.Subject{alice}},
		{"INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'alice')", []quota.Subject{alice}},
		{"UPDATE subscription_plans SET rate_limit_multiplier = 6 WHERE name = 'pro'", []quota.Subject{plan}},
		{"UPDATE plan_quotas SET limit_value = 6 WHERE metric = 'jobs' AND plan_id = '" + pro.ID + "'", []quota.Subject{plan}},
		{"UPDATE plan_quotas SET period = 'day' WHERE metric = 'jobs' AND plan_id = '" + pro.ID + "'", everyone},
		{"DELETE FROM plan_quotas WHERE metric = 'jobs' AND plan_id = '" + pro.ID + "'", everyone},
		{"UPDATE subscription_plans SET is_default = FALSE WHERE is_default", everyone},
		{"DELETE FROM subscription_plans WHERE name = 'enterprise'", everyone},
	} {
		h.exec(t, step.stmt)
		if diff := cmp.Diff(step.want, w.take(h.latest(t)), ignoreOrder, sortSubjects); diff != "" {
			t.Errorf("%s:\n%s", step.stmt, diff)
		}
	}
}

func testNoChange(t *testing.T, h BusHarness) {
	before := h.latest(t)
	f := quota.Flush{
		EpochTotals: quota.EpochTotals{Epoch: "e1", Rows: []quota.Total{total(alice, "jobs", quota.PeriodMonth, time.Now(), 1, 0)}},
		Seen:        []quota.Seen{{Account: alice, At: time.Now()}},
	}
	if err := h.Store.Flush(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Store.GrantAdmin(t.Context(), "alice", store.Actor{Type: store.ActorCLI}); err != nil {
		t.Fatal(err)
	}
	if after := h.latest(t); after != before {
		t.Errorf("usage made changes: %d, then %d", before, after)
	}
}

func testEarlierChanges(t *testing.T, h BusHarness) {
	before := h.latest(t)
	const n = 1203 // more than one batch
	for i := range n {
		h.exec(t, fmt.Sprintf("INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s%d', 'u%d')", i, i))
	}
	if got := h.watch(t, before).take(h.latest(t)); len(got) != n {
		t.Errorf("%d subjects, want %d", len(got), n)
	}
}

func testPrunedChanges(t *testing.T, h BusHarness) {
	h.exec(t, "INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'alice')")
	latest := h.latest(t)
	h.exec(t, fmt.Sprintf("DELETE FROM changes WHERE seq < %d", latest))
	if diff := cmp.Diff([]quota.Subject{quota.AllSubjects}, h.watch(t, latest-2).take(latest)); diff != "" {
		t.Errorf("what was missed:\n%s", diff)
	}
	// As if the database had been put back to an older state: numbers above are gone.
	w := h.watch(t, latest+10)
	h.exec(t, "INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s2', 'bob')")
	if got := w.take(h.latest(t)); got[0] != quota.AllSubjects || got[len(got)-1] != "user:bob" {
		t.Errorf("an older database: %v", got)
	}
}

// testCommitOrder: a watcher that has seen number n has missed nothing below it.
func testCommitOrder(t *testing.T, h BusHarness) {
	before := h.latest(t)
	w := h.watch(t, before)
	const writers, each = 8, 20
	errs := concurrently(t.Context(), writers, func(ctx context.Context, i int) error {
		for n := range each {
			tx, err := h.DB.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			for k := range 2 {
				if _, err := tx.ExecContext(ctx, "INSERT INTO revoked_sessions (session_id, user_id) VALUES ($1, $2)",
					fmt.Sprintf("s%d-%d-%d", i, n, k), fmt.Sprintf("u%d-%d-%d", i, n, k)); err != nil {
					return errors.Join(err, tx.Rollback())
				}
			}
			if err := tx.Commit(); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.take(h.latest(t)); len(got) != writers*each*2 {
		t.Errorf("%d subjects were noticed, want %d", len(got), writers*each*2)
	}
}

func testRolledBack(t *testing.T, h BusHarness) {
	before := h.latest(t)
	tx, err := h.DB.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.ExecContext(t.Context(), "INSERT INTO revoked_sessions (session_id, user_id) VALUES ('s1', 'alice')")
	if err := errors.Join(err, tx.Rollback()); err != nil {
		t.Fatal(err)
	}
	if after := h.latest(t); after != before {
		t.Errorf("latest %d, then %d", before, after)
	}
}

func testWatchEnds(t *testing.T, h BusHarness) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Bus.Watch(ctx, 0, nil, func([]quota.Change) { cancel() }) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("a watch that was ended: %v", err)
		}
	case <-time.After(noticeWithin):
		t.Error("a watch goes on after its context has ended")
	}
	if err := h.Bus.Watch(ctx, 0, nil, func([]quota.Change) { t.Error("delivered after the end") }); err != nil {
		t.Errorf("a watch that never began: %v", err)
	}
}
