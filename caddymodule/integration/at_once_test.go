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

// onEachRecords runs a test with everything embedded, and with Postgres and Redis.
func onEachRecords(t *testing.T, test func(t *testing.T, g *gateway)) {
	t.Helper()
	config := func(t *testing.T) string { return administered(gatetest.NewBackend(nil).Serve(t).URL) }
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, start(t, "", config(t)))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, runFleet(t, 1, patient(onBoth(config(t))), gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL())[0])
	})
}

// The very next request after the answer to a change is judged by it.
func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	onEachRecords(t, func(t *testing.T, g *gateway) {
		c, root := client(t), access("root")
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
