package sqliterecords

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func provision(t *testing.T, m *Module) {
	t.Helper()
	if err := m.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestUnmarshalCaddyfile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       *Module
		err        string
	}{
		{"bare", "sqlite", &Module{}, ""},
		{"path", "sqlite /var/lib/q.db", &Module{Path: "/var/lib/q.db"}, ""},
		{"placeholder", "sqlite {env.DB}", &Module{Path: "{env.DB}"}, ""},
		{"auto", "sqlite q.db {\n migrate auto\n}", &Module{Path: "q.db", MigrateMode: "auto"}, ""},
		{"check", "sqlite {\n migrate check\n}", &Module{MigrateMode: "check"}, ""},
		{"two paths", "sqlite a b", nil, `unexpected argument "b"`},
		{"memory", "sqlite :memory:", nil, "is not a file's"},
		{"uri", "sqlite file:q.db", nil, "is not a file's"},
		{"unknown option", "sqlite q.db {\n wal off\n}", nil, `unknown option "wal"`},
		{"no argument", "sqlite q.db {\n migrate\n}", nil, "an argument is missing"},
		{"bad argument", "sqlite q.db {\n migrate never\n}", nil, `"never" is neither`},
		{"two arguments", "sqlite q.db {\n migrate auto check\n}", nil, `unexpected argument "check"`},
		{"twice", "sqlite q.db {\n migrate auto\n migrate check\n}", nil, "duplicate option"},
		{"nothing", "", nil, "is missing"},
	} {
		m := new(Module)
		err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.err == "":
			if diff := cmp.Diff(tt.want, m, cmpopts.IgnoreUnexported(Module{})); diff != "" {
				t.Errorf("%s:\n%s", tt.name, diff)
			}
		case err == nil || !strings.Contains(err.Error(), tt.err):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		case tt.text != "" && !strings.Contains(err.Error(), "Testfile:"):
			t.Errorf("%s: %v names no file and line", tt.name, err)
		}
	}
}

func FuzzUnmarshalCaddyfile(f *testing.F) {
	for _, s := range []string{"sqlite", "sqlite q.db {\n migrate auto\n}", "sqlite a b", "sqlite {\n{\n}\n}", "sqlite \"\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		m := new(Module)
		if err := m.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err == nil && m.MigrateMode != "" && m.Validate() != nil {
			t.Errorf("%q was accepted and is not valid: %+v", text, m)
		}
	})
}

func TestProvision(t *testing.T) {
	t.Setenv("QUOTA_TEST_DB", "/srv/records/q.db")
	m := &Module{Path: "{env.QUOTA_TEST_DB}"}
	provision(t, m)
	if m.StateDir() != "/srv/records" || m.Key() != "sqlite|auto|/srv/records/q.db" {
		t.Errorf("folder %s, key %s", m.StateDir(), m.Key())
	}
	m = new(Module)
	provision(t, m)
	if !filepath.IsAbs(m.StateDir()) || filepath.Base(m.StateDir()) != "data" {
		t.Errorf("default folder %s", m.StateDir())
	}
	for _, bad := range []*Module{{Path: "{env.QUOTA_TEST_UNSET_DB}"}, {Path: ":memory:"}, {Path: "a\x00b"}} {
		if err := bad.Provision(caddy.Context{}); err == nil {
			t.Errorf("%q was accepted", bad.Path)
		}
	}
	if err := (&Module{MigrateMode: "never"}).Validate(); err == nil {
		t.Error("migrate never was accepted")
	}
}

func TestOpenMakesFileAndFolderForTheirOwner(t *testing.T) {
	t.Parallel()
	// Characters that end or change the name in a URI, were it not escaped.
	file := filepath.Join(t.TempDir(), "new", "a?b#c%20d & e", "quota.db")
	r := openRecords(t, &Module{Path: file})
	files, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(file)), "*", "quota.db*"))
	if err != nil || len(files) != 3 { // with its log and its index
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range append(files, filepath.Dir(file)) {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if e, err := r.Entitlement(t.Context(), "user:1"); err != nil || e.Plan.Name != "free" {
		t.Errorf("%v, %v", e, err)
	}
	if err := r.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDefaultPlanOfTheConfig(t *testing.T) {
	t.Parallel()
	m := &Module{Path: filepath.Join(t.TempDir(), "quota.db")}
	provision(t, m)
	r, err := m.Open(t.Context(), caddymodule.Env{DefaultPlan: "pro"})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Entitlement(t.Context(), "user:1"); err != nil || e.Plan.Name != "pro" {
		t.Errorf("%v, %v", e, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Open(t.Context(), caddymodule.Env{DefaultPlan: "prro"}); err == nil || !strings.Contains(err.Error(), `default_plan "prro"`) {
		t.Errorf("a default plan that does not exist: %v", err)
	}
}

// The plans that are compiled in are those that a new installation begins with:
// an outage must not change what the default plan allows.
func TestSeedPlansAreTheRecordsOwn(t *testing.T) {
	t.Parallel()
	m := &Module{Path: filepath.Join(t.TempDir(), "quota.db")}
	stored, err := openRecords(t, m).Store().ListPlans(t.Context(), store.PlanFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []*quota.Plan
	for _, p := range stored {
		got = append(got, &p.Plan)
	}
	if diff := cmp.Diff(quota.SeedPlans(), got); diff != "" {
		t.Errorf("-compiled in +migrated:\n%s", diff)
	}
}

// With `migrate check` the records are as in an outage until somebody migrates.
func TestCheckOnly(t *testing.T) {
	t.Parallel()
	m := &Module{Path: filepath.Join(t.TempDir(), "quota.db"), MigrateMode: MigrateCheck}
	r := openRecords(t, m)
	missing := func() bool {
		_, err := r.Entitlement(t.Context(), "user:1")
		var schema *store.SchemaError
		if errors.As(err, &schema) && !strings.Contains(err.Error(), "caddy quota migrate up") {
			t.Errorf("%v does not say what to do", err)
		}
		return errors.As(err, &schema)
	}
	if !missing() || r.Ping(t.Context()) == nil {
		t.Error("a missing schema was not reported")
	}
	if err := m.Migrate(t.Context(), "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	if missing() || r.Ping(t.Context()) != nil {
		t.Error("the schema is there and still missed")
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notDatabase := filepath.Join(dir, "text.db")
	if err := os.WriteFile(notDatabase, []byte(strings.Repeat("this is not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{notDatabase, dir, filepath.Join(notDatabase, "below", "a.db")} {
		m := &Module{Path: file}
		provision(t, m)
		if r, err := m.Open(t.Context(), caddymodule.Env{}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, %v", file, r, err)
		}
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	m := &Module{Path: filepath.Join(t.TempDir(), "new", "quota.db")}
	provision(t, m)
	run := func(command string) string {
		t.Helper()
		var out strings.Builder
		if err := m.Migrate(t.Context(), command, &out); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return out.String()
	}
	if out := run("status"); !strings.HasPrefix(out, "pending  00001_tables.sql\n") {
		t.Errorf("status: %q", out)
	}
	if _, err := os.Stat(m.StateDir()); !os.IsNotExist(err) {
		t.Errorf("looking made the folder: %v", err)
	}
	if err := m.Migrate(t.Context(), "down", t.Output()); err == nil {
		t.Error("migrated a missing file down")
	}
	if out := run("up"); !strings.HasPrefix(out, "applied 00001_tables.sql\n") {
		t.Errorf("up: %q", out)
	}
	if info, err := os.Stat(m.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	if out := run("down"); !strings.HasPrefix(out, "reverted ") {
		t.Errorf("down: %q", out)
	}
	if out := run("status"); strings.Count(out, "pending") != 1 {
		t.Errorf("status: %q", out)
	}
	if err := m.Migrate(t.Context(), "sideways", t.Output()); err == nil {
		t.Error("an unknown command was accepted")
	}
}

// Usage is not written into a file that nobody will find again.
func TestFileOutOfPlace(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "quota.db")
	r := openRecords(t, &Module{Path: file})
	flush := func() error {
		return r.Flush(t.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: "e"}, Seq: 1})
	}
	check := func(want string) {
		t.Helper()
		for call, err := range map[string]error{"ping": r.Ping(t.Context()), "flush": flush()} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", call, err, want)
			}
		}
	}
	check("")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	check("was removed while it was open")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("was replaced while it was open")
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	check("")
}

// Whoever watches the gateway learns of a plan that cannot be enforced as written.
func TestPingReportsABadPlan(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "quota.db")
	r := openRecords(t, &Module{Path: file})
	if _, err := openFile(t, file).ExecContext(t.Context(), "UPDATE subscription_plans SET features = '{\"a\":1}' WHERE name = 'pro'"); err != nil {
		t.Fatal(err)
	}
	if err := r.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "row pro, field features") {
		t.Errorf("ping: %v", err)
	}
	if _, err := r.Entitlement(t.Context(), "user:1"); err != nil {
		t.Errorf("another plan: %v", err)
	}
}
