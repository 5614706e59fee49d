package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

func TestBulk(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO user_controls (user_id, state) VALUES ('7', 'suspended')`)
	f.exec(`UPDATE users SET status = 'suspended' WHERE id = '7'`)
	f.exec(`UPDATE user_controls SET reason = 'spam'`)
	body := `{"ids":["42","7","boss","nobody","42"],"action":"suspend","reason":"spam"%s}`
	want := `{"dry_run":%t,"changed":1,"unchanged":1,"failed":2,"results":[{"id":"42","result":"changed"},{"id":"7","result":"unchanged"},
		{"id":"boss","result":"failed","error":"cannot_modify_self"},{"id":"nobody","result":"failed","error":"not_found"}]}`
	before := f.dump("users") + f.dump("user_controls") + f.dump("audit_events") + f.dump("accounts")
	f.do("POST", "/v1/admin/users/bulk", fmt.Sprintf(body, `,"dry_run":true`)).want(200).wantBody(fmt.Sprintf(want, true))
	if after := f.dump("users") + f.dump("user_controls") + f.dump("audit_events") + f.dump("accounts"); after != before {
		t.Errorf("what was only tried has changed something:\n%s\n%s", before, after)
	}
	f.do("POST", "/v1/admin/users/bulk", fmt.Sprintf(body, ``)).want(200).wantBody(fmt.Sprintf(want, false))
	f.do("POST", "/v1/admin/users/bulk", `{"filter":{"status":"suspended"},"action":"activate","reason":"x"}`).want(200).
		wantBody(`{"dry_run":false,"changed":2,"unchanged":0,"failed":0,"results":[{"id":"42","result":"changed"},{"id":"7","result":"changed"}]}`)
	f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"change_plan","plan_name":"pro","reason":"x"}`).want(200)
	f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"change_plan","plan_name":"gone","reason":"x"}`).want(200).
		wantBody(`{"dry_run":false,"changed":0,"unchanged":0,"failed":1,"results":[{"id":"42","result":"failed","error":"not_found"}]}`)
	for _, action := range []string{"delete", "restore", "revoke_sessions"} {
		if r := f.do("POST", "/v1/admin/users/bulk", `{"ids":["42"],"action":"`+action+`","reason":"x"}`).want(200).json(); r["changed"] != 1.0 {
			t.Errorf("%s: %v", action, r)
		}
	}
	for _, body := range []string{
		`{"action":"suspend","reason":"x"}`, `{"ids":[],"action":"suspend","reason":"x"}`, `{"ids":["1"],"filter":{"status":"active"},"action":"suspend","reason":"x"}`,
		`{"filter":{},"action":"suspend","reason":"x"}`, `{"ids":["1"],"action":"promote","reason":"x"}`, `{"ids":["1"],"action":"suspend"}`,
		`{"ids":["1"],"action":"suspend","reason":"x","plan_name":"pro"}`, `{"ids":["1"],"action":"change_plan","reason":"x"}`,
		`{"ids":["1"],"action":"suspend","reason":"x","duration_days":3}`,
		`{"ids":[` + strings.TrimSuffix(strings.Repeat(`"1",`, 1001), ",") + `],"action":"suspend","reason":"x"}`,
	} {
		f.do("POST", "/v1/admin/users/bulk", body).want(422)
	}
	f.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
		INSERT INTO users (id, username, status) SELECT 'many' || i, 'many', 'active' FROM n`)
	f.do("POST", "/v1/admin/users/bulk", `{"filter":{"search":"many"},"action":"suspend","reason":"x"}`).want(422)
}

// A client that leaves during a request with a key, and repeats it, finds it
// carried out once, and whole.
func TestBulkWhoseClientLeaves(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
		INSERT INTO users (id, username, status) SELECT 'many' || i, 'many', 'active' FROM n`)
	send := func(ctx context.Context) *reply {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/admin/users/bulk", strings.NewReader(`{"filter":{"search":"many"},"action":"suspend","reason":"a wave"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "1")
		return f.send(&quota.Principal{Subject: quota.UserSubject(boss)}, r)
	}
	ctx, leave := context.WithCancel(t.Context())
	var left sync.WaitGroup
	left.Go(func() {
		for f.number("SELECT COUNT(*) FROM user_controls") < 20 {
			runtime.Gosched()
		}
		leave()
	})
	send(ctx)
	left.Wait()
	again := send(t.Context())
	if n := f.number("SELECT COUNT(*) FROM user_controls WHERE state = 'suspended'"); n != 60 {
		t.Errorf("%d of 60 are suspended", n)
	}
	if r := again.want(200).json(); again.Header().Get("Idempotent-Replayed") != "true" || r["changed"] != 60.0 {
		t.Errorf("repeated: %v %v", again.Header(), r)
	}
}

// A repeated request is carried out once, and nobody can repeat somebody else's.
func TestIdempotencyOfBulk(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.host()
	f.exec(`INSERT INTO admins (user_id) VALUES ('7')`)
	const body, key = `{"ids":["42"],"action":"revoke_sessions","reason":"x"}`, "Idempotency-Key: 1"
	first := f.do("POST", "/v1/admin/users/bulk", body, key).want(200)
	again := f.do("POST", "/v1/admin/users/bulk", body, key).want(200)
	if first.Body.String() != again.Body.String() || len(f.audited()) != 1 {
		t.Errorf("%s, then %s, audited %v", first.Body, again.Body, f.audited())
	}
	f.do("POST", "/v1/admin/users/bulk", strings.Replace(body, "42", "7", 1), key).want(422)
	f.as(&quota.Principal{Subject: "user:7"}, "POST", "/v1/admin/users/bulk", body, key).want(200)
	if got := f.audited(); len(got) != 2 {
		t.Errorf("audited %v", got)
	}
	f.as(&quota.Principal{Subject: "user:13"}, "POST", "/v1/admin/users/bulk", body, key).want(403)
}
