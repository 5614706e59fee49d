package pgrecords

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// dump is the schema public as pg_dump writes it, without the random words by
// which its output is fenced.
func dump(t *testing.T, dsn string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), gatetest.PostgresTool(t, "pg_dump"), "--schema-only", "-n", "public", dsn).CombinedOutput()
	if err != nil {
		t.Fatalf("pg_dump: %v: %s", err, out)
	}
	var kept []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// The host's own schema is byte for byte the same with our tables, without them
// again, and after they were used.
func TestHostSchemaStaysAsItIs(t *testing.T) {
	t.Parallel()
	m := provision(t, &Module{DSN: gatetest.Postgres(t).Database(t)})
	db := pool(t, &Module{DSN: m.DSN})
	exec := func(s string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	exec("CREATE TYPE public.state AS ENUM ('active', 'suspended')")
	exec("CREATE TABLE public.users (id SERIAL PRIMARY KEY, email TEXT UNIQUE, status public.state NOT NULL DEFAULT 'active')")
	exec("CREATE TABLE public.sessions (id UUID PRIMARY KEY, user_id INT REFERENCES public.users, revoked_at TIMESTAMPTZ)")
	exec("INSERT INTO public.users (email) VALUES ('a@x')")
	before := dump(t, m.DSN)
	if !strings.Contains(before, "CREATE TABLE public.users") {
		t.Fatalf("the dump holds no table of the host:\n%s", before)
	}
	same := func(when string) {
		t.Helper()
		if after := dump(t, m.DSN); after != before {
			t.Errorf("%s the host's schema is another:\n%s\nwas\n%s", when, after, before)
		}
	}
	if err := m.Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	same("with our tables")
	s := store.ForCompanion(openRecords(t, &Module{DSN: m.DSN}, caddymodule.Env{}).Store())
	if _, err := s.Upgrade(t.Context(), "user:1", store.Grant{Plan: "pro"}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.PatchUser(t.Context(), store.Actor{Type: store.ActorCLI}, "1", store.UserPatch{Status: "suspended"}); err != nil || !r.Host.Updated {
		t.Errorf("%+v, %v", r, err)
	}
	same("after they were used")
	exec("DROP SCHEMA quotagate CASCADE")
	same("after uninstalling")
	exec("DROP TABLE public.sessions, public.users")
}
