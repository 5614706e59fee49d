package gatetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"pgregory.net/rapid"
)

func auditTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"AuditIsAppendOnly":               testAuditAppendOnly,
		"AuditFindsEveryTampering":        testAuditTampering,
		"AuditIsOrderedAsItIsCommitted":   testAuditConcurrently,
		"AuditRetentionLeavesACheckpoint": testAuditRetention,
		"AuditKeepsWhatItIsTold":          testAuditTexts,
	}
}

// audit appends n events.
func (t *storeTest) audit(n int) {
	t.Helper()
	for i := range n {
		t.clock.Add(time.Second)
		level := store.Level{Account: quota.UserSubject(fmt.Sprint(i)), Metric: "storage_bytes", Value: 1}
		t.ok(second(t.store.MeasureLevel(t.Context(), root, level, "")))
	}
}

func (t *storeTest) head() store.AuditHead {
	t.Helper()
	h, err := t.store.AuditHead(t.Context())
	return must(t, h, err)
}

func testAuditAppendOnly(t *storeTest) {
	t.audit(3)
	statements := []string{
		"UPDATE audit_events SET reason = 'x' WHERE seq = 2", "DELETE FROM audit_events", "DELETE FROM audit_events WHERE seq = 3",
	}
	if t.h.Engine == store.Postgres {
		statements = append(statements, "TRUNCATE audit_events")
	} else {
		statements = append(statements, `INSERT OR REPLACE INTO audit_events
			SELECT seq, id, actor_type, actor_id, actor_label, impersonator_id, action, resource_type, resource_id, account_id, outcome,
				'x', changes, metadata, ip_address, user_agent, request_id, prev_hash, hash, created_at FROM audit_events WHERE seq = 2`)
	}
	for _, stmt := range statements {
		if _, err := t.db.ExecContext(t.Context(), stmt); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", stmt, err)
		}
	}
	r, err := t.store.VerifyAudit(t.Context(), nil)
	if diff := cmp.Diff(&store.AuditReport{First: 1, Last: 3, Head: t.head()}, must(t, r, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// openAudit removes what keeps the log append-only, as whoever owns the database can.
func (t *storeTest) openAudit() {
	t.Helper()
	if t.h.Engine == store.Postgres {
		t.exec("DROP FUNCTION audit_is_append_only() CASCADE")
		return
	}
	for _, name := range []string{"altered", "removed", "replaced"} {
		t.exec("DROP TRIGGER audit_events_not_" + name)
	}
}

// auditTable is the log as it stands, for putting it back.
type auditTable struct {
	columns string
	rows    [][]any
	head    store.AuditHead
}

func (t *storeTest) readAudit() auditTable {
	t.Helper()
	head := t.head()
	rows, err := t.db.QueryContext(t.Context(), "SELECT * FROM audit_events ORDER BY seq")
	t.ok(err)
	defer func() { t.ok(rows.Close()) }()
	names, err := rows.Columns()
	t.ok(err)
	table := auditTable{columns: strings.Join(names, ", "), head: head}
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		t.ok(rows.Scan(into...))
		table.rows = append(table.rows, values)
	}
	t.ok(rows.Err())
	return table
}

func (t *storeTest) restore(a auditTable) {
	t.Helper()
	tx, err := t.db.BeginTx(t.Context(), nil)
	t.ok(err)
	defer func() {
		if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			t.Error(err)
		}
	}()
	_, err = tx.ExecContext(t.Context(), "DELETE FROM audit_events")
	t.ok(err)
	for _, r := range a.rows {
		marks := make([]string, len(r))
		for i := range r {
			marks[i] = fmt.Sprintf("$%d", i+1)
		}
		_, err := tx.ExecContext(t.Context(), "INSERT INTO audit_events ("+a.columns+") VALUES ("+strings.Join(marks, ", ")+")", r...)
		t.ok(err)
	}
	_, err = tx.ExecContext(t.Context(), "UPDATE audit_head SET seq = $1, hash = $2", a.head.Seq, a.head.Hash)
	t.ok(err)
	t.ok(tx.Commit())
}

// tamper is one thing that somebody could do to the log by hand, as statements.
func tamper(t *rapid.T, last int64) []string {
	seq := rapid.Int64Range(1, last)
	row := seq.Draw(t, "row")
	switch rapid.SampledFrom([]string{"alter", "alter time", "remove", "remove the end", "remove the beginning", "insert", "swap", "move", "head"}).Draw(t, "what") {
	case "alter":
		column := rapid.SampledFrom([]string{
			"id", "actor_type", "actor_id", "actor_label", "impersonator_id", "action", "resource_type", "resource_id", "account_id",
			"outcome", "reason", "changes", "metadata", "ip_address", "user_agent", "request_id", "prev_hash", "hash",
		}).Draw(t, "column")
		return []string{fmt.Sprintf("UPDATE audit_events SET %s = %s || 'x' WHERE seq = %d", column, column, row)}
	case "alter time":
		return []string{fmt.Sprintf("UPDATE audit_events SET created_at = '2020-01-01 00:00:00.000000Z' WHERE seq = %d", row)}
	case "remove":
		return []string{fmt.Sprintf("DELETE FROM audit_events WHERE seq = %d", row)}
	case "remove the end":
		return []string{
			fmt.Sprintf("DELETE FROM audit_events WHERE seq >= %d", row),
			fmt.Sprintf("UPDATE audit_head SET seq = %d, hash = COALESCE((SELECT hash FROM audit_events WHERE seq = %d), '%s')",
				row-1, row-1, strings.Repeat("0", 64)),
		}
	case "remove the beginning":
		return []string{fmt.Sprintf("DELETE FROM audit_events WHERE seq <= %d", row)}
	case "insert":
		return []string{
			fmt.Sprintf("UPDATE audit_events SET seq = -seq WHERE seq >= %d", row), fmt.Sprintf("UPDATE audit_events SET seq = 1 - seq WHERE seq <= -%d", row),
			fmt.Sprintf(`INSERT INTO audit_events (seq, id, actor_type, action, outcome, prev_hash, hash, created_at)
				SELECT %d, 'new', 'user', 'user.promoted', 'success', prev_hash, hash, created_at FROM audit_events WHERE seq = %d`, row, row+1),
			"UPDATE audit_head SET seq = seq + 1",
		}
	case "swap":
		other := seq.Filter(func(n int64) bool { return n != row }).Draw(t, "with")
		return []string{
			fmt.Sprintf("UPDATE audit_events SET seq = 1000000 WHERE seq = %d", row),
			fmt.Sprintf("UPDATE audit_events SET seq = %d WHERE seq = %d", row, other),
			fmt.Sprintf("UPDATE audit_events SET seq = %d WHERE seq = 1000000", other),
		}
	case "move":
		return []string{fmt.Sprintf("UPDATE audit_events SET seq = %d WHERE seq = %d", last+5, row)}
	default:
		return []string{"UPDATE audit_head SET hash = '" + strings.Repeat("1", 64) + "'"}
	}
}

// Whatever is done by hand to an event before a known head is found; nothing is
// found where nothing was done.
func testAuditTampering(t *storeTest) {
	const events = 12
	t.audit(events)
	known := t.head()
	t.audit(3) // beyond it
	t.openAudit()
	if t.h.Engine == store.SQLite { // lets rows change places
		t.db.SetMaxOpenConns(1)
		t.exec("PRAGMA ignore_check_constraints = 1")
	} else {
		t.exec("ALTER TABLE audit_events DROP CONSTRAINT audit_events_seq_check")
	}
	whole := t.readAudit()
	rapid.Check(t.T, func(rt *rapid.T) {
		t.restore(whole)
		if _, err := t.store.VerifyAudit(t.Context(), &known); err != nil {
			rt.Fatalf("before: %v", err)
		}
		for _, stmt := range tamper(rt, events) {
			if _, err := t.db.ExecContext(t.Context(), stmt); err != nil {
				rt.Fatalf("%s: %v", stmt, err)
			}
		}
		_, err := t.store.VerifyAudit(t.Context(), &known)
		if fault := asErr[*store.AuditFault](err); fault == nil {
			rt.Fatalf("not found: %v", err)
		}
	})
	// Who makes the whole chain anew is found by the head alone.
	t.restore(whole)
	t.exec("DELETE FROM audit_events")
	t.exec("UPDATE audit_head SET seq = 0, hash = $1", strings.Repeat("0", 64))
	t.audit(events + 3)
	if _, err := t.store.VerifyAudit(t.Context(), nil); err != nil {
		t.Errorf("a chain that was made anew is whole in itself: %v", err)
	}
	if _, err := t.store.VerifyAudit(t.Context(), &known); asErr[*store.AuditFault](err) == nil {
		t.Errorf("a chain that was made anew passes for the known one: %v", err)
	}
	short := store.AuditHead{Seq: known.Seq, Hash: known.Hash[:13]}
	t.restore(whole)
	if _, err := t.store.VerifyAudit(t.Context(), &short); err != nil {
		t.Errorf("the first digits of the head: %v", err)
	}
}

func testAuditConcurrently(t *storeTest) {
	const writers, each = 8, 5
	user := func(i, n int) string { return fmt.Sprintf("u%d-%d", i, n) }
	for i := range writers {
		for n := range each {
			t.see(quota.UserSubject(user(i, n)))
			t.patch(user(i, n), "suspended", "")
		}
	}
	before := t.head().Seq
	for _, err := range concurrently(t.Context(), writers, func(ctx context.Context, i int) error {
		for n := range each {
			patch := store.UserPatch{Status: "active", Plan: "pro"} // two events
			if _, err := t.store.PatchUser(ctx, store.Actor{ID: fmt.Sprint(i)}, user(i, n), patch); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	head := t.head()
	if n := head.Seq - before; n != writers*each*2 {
		t.Errorf("%d events, want %d", n, writers*each*2)
	}
	if _, err := t.store.VerifyAudit(t.Context(), &head); err != nil {
		t.Error(err)
	}
	if n := t.number(`SELECT COUNT(*) FROM audit_events a JOIN audit_events b ON b.seq = a.seq + 1 AND b.actor_id = a.actor_id
			AND b.account_id = a.account_id AND b.action = 'subscription.granted' WHERE a.action = 'user.activated'`); n != writers*each {
		t.Errorf("%d pairs stand together, want %d", n, writers*each)
	}
}

func testAuditRetention(t *storeTest) {
	t.audit(5)
	t.clock.Add(48 * time.Hour)
	t.audit(2)
	before := t.head()
	n, err := t.store.CutAudit(t.Context(), 24*time.Hour)
	if must(t, n, err) != 5 {
		t.Errorf("removed %d events, want 5", n)
	}
	after := t.head()
	r, err := t.store.VerifyAudit(t.Context(), &after)
	if diff := cmp.Diff(&store.AuditReport{First: 6, Last: 8, Head: after, Cut: 5, CutAt: 8}, must(t, r, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A checkpoint that is newer than the head could be anybody's.
	if _, err := t.store.VerifyAudit(t.Context(), &before); asErr[*store.AuditFault](err) == nil {
		t.Errorf("verified by a checkpoint beyond the known head: %v", err)
	}
	if _, err := t.db.ExecContext(t.Context(), "DELETE FROM audit_events WHERE seq = 6"); err == nil {
		t.Error("an event that the checkpoint does not name can be removed")
	}
	n, err = t.store.CutAudit(t.Context(), 24*time.Hour)
	if must(t, n, err) != 0 || t.head() != after {
		t.Errorf("cutting again removed %d events and moved the head to %s", n, t.head())
	}
	t.clock.Add(48 * time.Hour)
	n, err = t.store.CutAudit(t.Context(), 24*time.Hour)
	must(t, n, err)
	for range 2 { // what is left is the checkpoint itself
		if n, err = t.store.CutAudit(t.Context(), time.Second); must(t, n, err) > 1 {
			t.Errorf("removed %d events", n)
		}
		t.clock.Add(time.Hour)
	}
	last := t.head()
	if _, err := t.store.VerifyAudit(t.Context(), &last); err != nil {
		t.Error(err)
	}
	// A cut that nobody wrote a checkpoint for is found.
	t.openAudit()
	t.audit(1)
	last = t.head()
	t.exec("DELETE FROM audit_events WHERE seq < $1", last.Seq)
	if _, err := t.store.VerifyAudit(t.Context(), &last); asErr[*store.AuditFault](err) == nil {
		t.Errorf("not found: %v", err)
	}
}

// What clients send is kept as far as both engines can.
func testAuditTexts(t *storeTest) {
	t.see(alice)
	by := store.Actor{Type: store.ActorUser, ID: "a\x00b", UserAgent: "\xff\xfe" + strings.Repeat("ü", 400), Label: "x'; DROP TABLE admins; --"}
	t.ok(t.store.NoteClearing(t.Context(), by, "alice", strings.Repeat("x", 3000), []string{"\x00<&>"}))
	h := t.head()
	if _, err := t.store.VerifyAudit(t.Context(), &h); err != nil {
		t.Error(err)
	}
	if n := t.number("SELECT COUNT(*) FROM audit_events WHERE length(reason) = 2000 AND length(user_agent) BETWEEN 200 AND 512 AND length(actor_id) = 3"); n != 1 {
		t.Error("texts are not cut as they should be")
	}
}
