package pgrecords

import (
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// examine is the findings by check, each as "level detail\nconfigure".
func examine(t *testing.T, m *Module, env caddymodule.Env) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, f := range provision(t, m).Examine(t.Context(), env) {
		found[f.Check] += string(f.Level) + " " + f.Detail + "\n" + f.Configure + "\n"
	}
	return found
}

func check(t *testing.T, found map[string]string, want map[string][]string) {
	t.Helper()
	for name, parts := range want {
		for _, part := range parts {
			if absent, no := strings.CutPrefix(part, "! "); no {
				if strings.Contains(found[name], absent) {
					t.Errorf("%s: %s\nholds %q", name, found[name], absent)
				}
			} else if !strings.Contains(found[name], part) {
				t.Errorf("%s: %s\nwithout %q", name, found[name], part)
			}
		}
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	dsn := gatetest.Postgres(t).Database(t)
	db := pool(t, &Module{DSN: dsn})
	exec := func(s string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	m := &Module{DSN: dsn}
	check(t, examine(t, m, caddymodule.Env{}), map[string][]string{
		"records":       {"ok ", ", Postgres ", "warn the role ", "is a superuser", "roles.sql"},
		"schema":        {"fail ", "caddy quota migrate up"},
		"plans":         {"! plan"},
		"host users":    {"ok no table users; the callers learned"},
		"host sessions": {"ok no table sessions"},
		"notifications": {"ok one came through in"},
	})
	check(t, examine(t, &Module{DSN: dsn, MigrateMode: MigrateAuto, Listen: listenOff}, caddymodule.Env{}), map[string][]string{
		"schema": {"ok version 0; the gateway brings it to"}, "notifications": {"ok off"},
	})
	if err := provision(t, m).Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}

	// As an ORM makes them: found by the names alone.
	exec(`CREATE TABLE public.users (id SERIAL PRIMARY KEY, email TEXT, username TEXT, status TEXT, created_at TIMESTAMPTZ)`)
	exec(`CREATE TABLE public.sessions (id UUID PRIMARY KEY, user_id INT, revoked_at TIMESTAMPTZ)`)
	check(t, examine(t, m, caddymodule.Env{}), map[string][]string{
		"schema":        {"ok version ", "the newest"},
		"plans":         {"ok free, pro, enterprise; without a subscription: free"},
		"host users":    {"ok users: id integer, email text, username text, status text, created_at timestamp with time zone\n\n"},
		"host sessions": {"warn ", "no index begins with user_id", `CREATE INDEX CONCURRENTLY ON "public"."sessions" ("user_id");`, "no ip"},
	})
	exec(`CREATE INDEX ON public.sessions (user_id)`)
	check(t, examine(t, m, caddymodule.Env{}), map[string][]string{"host sessions": {"ok sessions: id uuid, user_id integer"}})
	check(t, examine(t, m, caddymodule.Env{DefaultPlan: "gold"}), map[string][]string{"plans": {`fail default_plan "gold"`, "free, pro, enterprise"}})

	// With names and types of their own.
	exec(`DROP TABLE public.users; DROP TABLE public.sessions; CREATE SCHEMA auth; CREATE TYPE auth.mood AS ENUM ('happy', 'sad')`)
	exec(`CREATE TABLE auth.accounts (account_id NUMERIC, email_address TEXT, state auth.mood)`)
	exec(`CREATE TABLE auth.user_sessions (id INT, account_id NUMERIC, is_revoked BOOL)`)
	check(t, examine(t, m, caddymodule.Env{}), map[string][]string{
		"host users": {"warn no table users", "There is: auth.accounts"},
		"host sessions": {"host {\n\tusers auth.accounts {\n\t\tid account_id\n\t\temail email_address\n\t\tstatus state\n\t}\n" +
			"\tsessions auth.user_sessions {\n\t\tuser_id account_id\n\t\trevoked_at is_revoked\n\t}\n}"},
	})
	named := caddymodule.Host{
		Users:    &caddymodule.HostTable{Table: "auth.accounts", Columns: map[string]string{"id": "account_id", "status": "state", "email": "mail"}},
		Sessions: &caddymodule.HostTable{Table: "auth.logins"},
	}
	check(t, examine(t, m, caddymodule.Env{Host: named}), map[string][]string{
		"host users": {"fail auth.accounts: id from account_id numeric", "no column mail, which the option host names for email", "compared as text",
			"none of the words of status keeps anybody out: happy, sad", "no index begins with account_id"},
		"host sessions": {"fail there is no table auth.logins", "\temail email_address\n", "sessions auth.user_sessions"},
	})
}

// What a role may not read is there, and said to be.
func TestExamineWithLittleRights(t *testing.T) {
	dsn := rolesOf(t)
	check(t, examine(t, &Module{DSN: as(t, dsn, "quotagate_gateway")}, caddymodule.Env{}), map[string][]string{
		"records":       {"ok ", "! superuser"},
		"plans":         {"ok "},
		"host users":    {"ok users: id integer, email not for this role"},
		"notifications": {"ok one came through"},
	})
}

func TestExamineUnreachable(t *testing.T) {
	t.Parallel()
	findings := provision(t, &Module{DSN: "postgres://gw@127.0.0.1:1/app", Password: "hidden"}).Examine(t.Context(), caddymodule.Env{})
	if len(findings) != 1 || findings[0].Level != doctor.Fail || !strings.Contains(findings[0].Detail, "gw@127.0.0.1:1/app cannot be asked") ||
		strings.Contains(findings[0].Detail, "hidden") {
		t.Errorf("%+v", findings)
	}
}
