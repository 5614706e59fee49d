package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// uploadSite administers, and counts what is uploaded.
const uploadSite = `	quota_account
	quota_admin
	quota {
		rule upload {
			match method PUT
			require user
			spend storage_bytes request_bytes
			refund_unless 2xx
		}
		rule api {
			match not method PUT
			limit api 60/1m
		}
	}
`

// administered is a config of one process that judges and administers.
func administered(backend string) string {
	return strings.Replace(site(backend, uploadSite), "\t}\n}\nhttp", "\t}\n\tquota_companion {\n\t\tadmins root\n\t}\n}\nhttp", 1)
}

// onEachRecords runs a test with everything embedded, and with Postgres and Redis
// and that many gateways.
func onEachRecords(t *testing.T, gateways int, test func(t *testing.T, all fleet)) {
	t.Helper()
	config := func(t *testing.T) string { return administered(gatetest.NewBackend(nil).Serve(t).URL) }
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, fleet{start(t, "", config(t))})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, runFleet(t, gateways, patient(onBoth(config(t))), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL()))
	})
}

// The very next request after the answer to a change is judged by it.
func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	onEachRecords(t, 1, func(t *testing.T, all fleet) {
		g, c, root := all[0], client(t), access("root")
		send := func(method, path, token, body string) *reply {
			t.Helper()
			r, err := g.try(c, method, path, token, strings.NewReader(body), "Content-Type: application/json")
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for i := range 10 {
			id := fmt.Sprint("u", i)
			user, account, token := "/v1/admin/users/"+id, "/v1/admin/accounts/"+id, access(id)
			send("GET", "/items", token, "").want(t, 200) // known from now on
			for _, step := range []struct {
				method, path, body string
				status             int
				limit              string
			}{
				{"PATCH", user, `{"status":"suspended"}`, 403, ""},
				{"PATCH", user, `{"status":"active"}`, 200, "60"},
				{"PATCH", user, `{"plan_name":"pro"}`, 200, "300"},
				{"POST", account + "/overrides", `{"scope":"api","requests":1000,"window":60}`, 200, "1000"},
				{"DELETE", account + "/overrides", "", 200, "300"},
				{"DELETE", user, "", 403, ""},
				{"POST", user + "/restore", "", 200, "300"},
				{"POST", user + "/revoke-sessions", "", 401, ""},
			} {
				if r := send(step.method, step.path, root, step.body); r.StatusCode/100 != 2 {
					t.Fatalf("%s %s: %d %s", step.method, step.path, r.StatusCode, r.body)
				}
				r := send("GET", "/items", token, "")
				if step.path == user+"/restore" && r.StatusCode == 401 {
					continue // its sessions have ended with it
				}
				if limit := r.Header.Get("X-RateLimit-Limit"); r.StatusCode != step.status || step.limit != "" && limit != step.limit {
					t.Errorf("%d: after %s %s %s: %d, limit %s", i, step.method, step.path, step.body, r.StatusCode, limit)
				}
			}
		}
		for i := range 10 {
			id := fmt.Sprint("v", i)
			token := access(id)
			send("PUT", "/file", token, "12345").want(t, 200)
			for _, full := range []bool{true, false} {
				level, status := 0, 200
				if full {
					level, status = 1<<30, 402
				}
				send("PUT", "/v1/admin/accounts/"+id+"/usage/storage_bytes", root, fmt.Sprintf(`{"value":%d}`, level)).want(t, 200)
				if r := send("PUT", "/file", token, "12345"); r.StatusCode != status {
					t.Errorf("%d: with a level of %d: %d %s", i, level, r.StatusCode, r.body)
				}
			}
		}
	})
}

// What was uploaded before a level was set is in the level, whichever gateway has counted it.
func TestLevelsHoldWhatWasCounted(t *testing.T) {
	t.Parallel()
	onEachRecords(t, 2, func(t *testing.T, all fleet) {
		root, last := access("root"), all[len(all)-1]
		for _, g := range all { // each is known to the records from now on
			g.do("PUT", "/file", access("first")).want(t, 200)
			eventually(t, patience, "it flushes", func() bool { return g.status()["usage"].(object)["last_flush"] != nil })
		}
		for i := range 6 {
			id := fmt.Sprint("w", i)
			all[0].do("GET", "/items", access(id)).want(t, 200)
			all[0].do("GET", "/v1/admin/users/"+id, root).want(t, 200) // looked for, and known from now on
			last.send("PUT", "/file", access(id), strings.Repeat("x", 500)).want(t, 200)
			path := "/v1/admin/accounts/" + id + "/usage/storage_bytes"
			if got := all[0].send("PUT", path, root, `{"value":100}`).want(t, 200).object(t); got["before"] != 500.0 {
				t.Errorf("%d: %v before, want 500", i, got["before"])
			}
			eventually(t, patience, "the upload is in the records", func() bool { return all[0].used(t, id, "storage_bytes", "none") == 500 })
			detail := all[0].do("GET", "/v1/admin/users/"+id, root).want(t, 200).object(t)
			if used := quotaOf(t, detail["usage"].(object), "storage_bytes")["used"]; used != 100.0 {
				t.Errorf("%d: the level is %v, want 100", i, used)
			}
		}
	})
}
