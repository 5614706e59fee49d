package sqliterecords

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule"
)

// The host's tables may be in the same file.
func TestExamine(t *testing.T) {
	t.Parallel()
	m := &Module{Path: filepath.Join(t.TempDir(), "quota.db")}
	provision(t, m)
	if err := m.Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	db := openFile(t, m.file)
	for _, s := range []string{
		"CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, is_active BOOLEAN)",
		"CREATE TABLE sessions (id TEXT PRIMARY KEY, user_id INTEGER, revoked_at TEXT)",
	} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string {
		var text strings.Builder
		for _, f := range m.Examine(t.Context(), caddymodule.Env{}) {
			text.WriteString(string(f.Level) + " " + f.Check + " " + f.Detail + "\n" + f.Configure + "\n")
		}
		return text.String()
	}
	want := func(parts ...string) {
		t.Helper()
		got := look()
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Errorf("%s\nwithout %q", got, part)
			}
		}
	}
	want("ok schema version ", "ok plans free, pro, enterprise",
		"warn host users users: id integer, email text, no username, no created_at; no column status: whom the backends suspend is not refused\n"+
			"host {\n\tusers users {\n\t\tstatus is_active\n\t}\n}",
		"warn host sessions ", `CREATE INDEX ON "sessions" ("user_id");`)
	if _, err := db.ExecContext(t.Context(), "CREATE INDEX by_user ON sessions (user_id)"); err != nil {
		t.Fatal(err)
	}
	want("ok host sessions ")
	if err := m.Migrate(t.Context(), "down", t.Output()); err != nil {
		t.Fatal(err)
	}
	want("ok schema version ", "the gateway brings it to")
	m.MigrateMode = MigrateCheck
	want("fail schema ", "caddy quota migrate up")
	m.file = filepath.Dir(m.file)
	want("fail records ", "is no file")
}
