package rediscounters

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	server := gatetest.Redis(t, "--maxmemory-policy", "allkeys-lru")
	look := func(url string) string {
		m := &Module{URLs: []string{url}, Timeout: caddy.Duration(maxTimeout)}
		if err := m.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, f := range m.Examine(t.Context(), caddymodule.Env{}) {
			text.WriteString(string(f.Level) + " " + f.Detail + "\n" + f.Configure + "\n")
		}
		return text.String()
	}
	want := func(got string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if absent, no := strings.CutPrefix(part, "! "); strings.Contains(got, absent) == no {
				t.Errorf("%s\nwant %q", got, part)
			}
		}
	}
	want(look(server.URL()), "ok ", ": Redis ", "answers in", "fail ", "maxmemory-policy is allkeys-lru", "CONFIG SET maxmemory-policy noeviction",
		"warn ", "no append-only file", "! does not count")
	server.Await(t, "OK", "CONFIG", "SET", "maxmemory-policy", "noeviction")
	server.Await(t, "OK", "CONFIG", "SET", "appendonly", "yes")
	want(look(server.URL()), "ok ", "! fail", "! warn")
	server.Await(t, "OK", "CONFIG", "SET", "min-replicas-to-write", "1")
	want(look(server.URL()), "fail ", "does not count: ", "NOREPLICAS")
	server.Kill(t)
	want(look(server.URL()), "fail ", "does not count: ", "! Redis")
}
