package integration

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// A gateway that finds no schema, or one older than it needs, goes on as in an
// outage and says what mends it. What it admitted meanwhile is in the records in
// the end.
func TestMissingAndOlderSchema(t *testing.T) {
	t.Parallel()
	dsn := gatetest.Postgres(t).Database(t)
	g, metrics := startRoot(t, gatetest.NewBackend(nil).Serve(t).URL, "QUOTA_RECORDS=postgres {env.QUOTA_DSN}", "QUOTA_DSN="+dsn)
	g.dsn = dsn
	ready := func() string {
		t.Helper()
		res, err := client(t).Get("http://" + metrics + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%d %s %v", res.StatusCode, body, err)
		}
		return string(body)
	}
	jobs := int64(0)
	admits := func() {
		t.Helper()
		for range 2 { // four times: the default plan has ten
			g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusOK)
			jobs++
		}
	}
	degraded := func(when string) {
		t.Helper()
		admits()
		eventually(t, patience, when+" the gateway is degraded, and its log names the command", func() bool {
			return strings.Contains(ready(), `"degraded"`) && strings.Contains(g.logged(), "caddy quota migrate up")
		})
	}
	well := func() {
		t.Helper()
		g.command("migrate", "up")
		eventually(t, patience, "the gateway finds the schema", func() bool { return strings.Contains(ready(), `"ready"`) })
		admits()
		eventually(t, patience, "all is in the records", func() bool { return g.used(t, "u", "jobs", "month") == jobs })
	}
	degraded("without a schema")
	well()
	g.stop()
	g.command("migrate", "down")
	if err := os.Truncate(g.log.Name(), 0); err != nil {
		t.Fatal(err)
	}
	g.run()
	degraded("on an older schema")
	well()
}
