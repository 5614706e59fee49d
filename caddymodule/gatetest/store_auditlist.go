package gatetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func auditListTests() map[string]func(*storeTest) {
	return map[string]func(*storeTest){
		"audit log, listed":        testAuditListed,
		"audit log, filtered":      testAuditFiltered,
		"audit log, wrong pages":   testAuditPages,
		"audit log, while written": testAuditListedWhileWritten,
	}
}

// happen sets a level of the user: one event.
func (t *storeTest) happen(by, user string) {
	t.Helper()
	level := store.Level{Account: quota.UserSubject(user), Metric: "storage_bytes", Value: 1}
	t.ok(second(t.store.MeasureLevel(t.Context(), store.Actor{Type: store.ActorUser, ID: by}, level, "")))
}

func (t *storeTest) listed(f store.AuditFilter, p store.AuditPage) *store.AuditList {
	t.Helper()
	list, err := t.store.ListAudit(t.Context(), f, p)
	return must(t, list, err)
}

// seqs are the numbers of a list's events.
func seqs(l *store.AuditList) string {
	var b strings.Builder
	for _, e := range l.Entries {
		fmt.Fprint(&b, e.Seq, " ")
	}
	return strings.TrimSpace(b.String())
}

func testAuditListed(t *storeTest) {
	if l := t.listed(store.AuditFilter{}, store.AuditPage{Limit: 10}); l.Total != 0 || len(l.Entries) != 0 || l.Next != "" {
		t.Errorf("of nothing: %+v", l)
	}
	for i := range 7 {
		t.happen("root", fmt.Sprint("u", i))
	}
	l := t.listed(store.AuditFilter{}, store.AuditPage{Limit: 3})
	if seqs(l) != "7 6 5" || l.Total != 7 || l.Entries[0].Account != "u6" || l.Entries[0].PrevHash != l.Entries[1].Hash {
		t.Errorf("the first page: %s of %d: %+v", seqs(l), l.Total, l.Entries[0])
	}
	l = t.listed(store.AuditFilter{}, store.AuditPage{Limit: 3, After: l.Next})
	if seqs(l) != "4 3 2" || l.Total != 7 {
		t.Errorf("the second page: %s of %d", seqs(l), l.Total)
	}
	l = t.listed(store.AuditFilter{}, store.AuditPage{Limit: 3, After: l.Next})
	if seqs(l) != "1" || l.Next != "" {
		t.Errorf("the last page: %s, then %q", seqs(l), l.Next)
	}
	if l = t.listed(store.AuditFilter{}, store.AuditPage{Limit: 3, Skip: 5}); seqs(l) != "2 1" || l.Next != "" {
		t.Errorf("skipped to: %s, then %q", seqs(l), l.Next)
	}
	if l = t.listed(store.AuditFilter{}, store.AuditPage{Limit: 1, Skip: 1e9}); seqs(l) != "" || l.Total != 7 {
		t.Errorf("skipped all: %s", seqs(l))
	}
}

func testAuditFiltered(t *storeTest) {
	began := t.clock.Now()
	for _, do := range []func(){
		func() { t.happen("root", "alice") },
		func() { t.ok(second(t.store.GrantAdmin(t.Context(), "bob", root))) },
		func() { t.happen("alice", "carol") },
		func() { t.happen("root", "%") },
		func() { t.ok(t.setLevel("user:dave", "storage_bytes", 1)) }, // an import is nobody's
	} {
		do()
		t.clock.Add(time.Minute)
	}
	for name, c := range map[string]struct {
		f    store.AuditFilter
		want string
	}{
		"did it, or theirs": {store.AuditFilter{User: "alice"}, "3 1"},
		"action":            {store.AuditFilter{Action: "usage.level_set"}, "4 3 1"},
		"both":              {store.AuditFilter{User: "carol", Action: "usage.level_set"}, "3"},
		"no pattern":        {store.AuditFilter{User: "%"}, "4"},
		"no pattern either": {store.AuditFilter{Action: "usage%"}, ""},
		"no word's part":    {store.AuditFilter{Action: "usage"}, ""},
		"no SQL":            {store.AuditFilter{User: "x' OR '1'='1"}, ""},
		"from":              {store.AuditFilter{From: began.Add(2 * time.Minute)}, "5 4 3"},
		"to":                {store.AuditFilter{To: began.Add(2 * time.Minute)}, "2 1"},
		"from and to":       {store.AuditFilter{From: began.Add(time.Minute), To: began.Add(3 * time.Minute), User: "root"}, "2"},
	} {
		if l := t.listed(c.f, store.AuditPage{Limit: 10}); seqs(l) != c.want || l.Total != int64(len(l.Entries)) {
			t.Errorf("%s: %s of %d, want %s", name, seqs(l), l.Total, c.want)
		}
	}
	l := t.listed(store.AuditFilter{User: "root"}, store.AuditPage{Limit: 2})
	if l = t.listed(store.AuditFilter{User: "root"}, store.AuditPage{Limit: 2, After: l.Next}); seqs(l) != "2 1" || l.Total != 4 {
		t.Errorf("the second page of a filter: %s of %d", seqs(l), l.Total)
	}
}

func testAuditPages(t *storeTest) {
	t.happen("root", "alice")
	for name, p := range map[string]store.AuditPage{
		"none": {}, "all": {Limit: store.MaxAudit + 1}, "before the first": {Limit: 1, Skip: -1}, "both": {Limit: 1, Skip: 1, After: "1"},
		"made up": {Limit: 1, After: "1 OR 1=1"}, "zero": {Limit: 1, After: "0"}, "negative": {Limit: 1, After: "-1"},
		"padded": {Limit: 1, After: "01"}, "too large": {Limit: 1, After: "9223372036854775808"},
	} {
		if _, err := t.store.ListAudit(t.Context(), store.AuditFilter{}, p); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]store.AuditFilter{"zero byte": {User: "a\x00"}, "no UTF-8": {Action: "\xff"}, "endless": {User: strings.Repeat("a", 256)}} {
		if _, err := t.store.ListAudit(t.Context(), f, store.AuditPage{Limit: 1}); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who goes on by cursor sees each event once, whatever is written meanwhile.
func testAuditListedWhileWritten(t *storeTest) {
	for i := range 5 {
		t.happen("root", fmt.Sprint("u", i))
	}
	l := t.listed(store.AuditFilter{}, store.AuditPage{Limit: 2})
	t.happen("root", "late")
	if l = t.listed(store.AuditFilter{}, store.AuditPage{Limit: 2, After: l.Next}); seqs(l) != "3 2" || l.Total != 6 {
		t.Errorf("%s of %d", seqs(l), l.Total)
	}
}
