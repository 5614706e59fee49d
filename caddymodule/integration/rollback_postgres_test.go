package integration

import (
	"database/sql"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// firstMigrations are those of the tables that a gateway cannot do without.
const firstMigrations = 4

// The newer migrations are taken back one after the other, and applied again:
// rows of other tables stay, and those of the tables that went come back from a dump.
func TestRollBackMigrations(t *testing.T) {
	t.Parallel()
	dsn := gatetest.Postgres(t).Database(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	g, _ := startRoot(t, gatetest.NewBackend(nil).Serve(t).URL, "QUOTA_RECORDS=postgres {env.QUOTA_DSN}", "QUOTA_DSN="+dsn)
	g.command("migrate", "up")
	g.command("admin", "grant", "boss")
	eventually(t, patience, "the gateway finds the schema", func() bool { return g.do(http.MethodPost, "/jobs", access("u")).StatusCode == http.StatusOK })
	g.stop()

	before := rowsOf(t, db)
	dump := filepath.Join(t.TempDir(), "quotagate.dump")
	run(t, gatetest.PostgresTool(t, "pg_dump"), "-Fc", "-n", "quotagate", "-f", dump, dsn)
	for range strings.Count(g.command("migrate", "status"), "applied") - firstMigrations {
		g.command("migrate", "down")
		for table, n := range rowsOf(t, db) {
			if before[table] != n {
				t.Errorf("%s has %d rows after a migration was taken back, had %d", table, n, before[table])
			}
		}
	}
	left := rowsOf(t, db)
	var gone []string
	for table := range before {
		if _, ok := left[table]; !ok {
			gone = append(gone, table)
		}
	}
	if len(gone) == 0 || len(left) == 0 {
		t.Fatalf("the way back took %v and left %v", gone, left)
	}
	g.command("migrate", "up")
	slices.Sort(gone)
	run(t, "../../config/postgres/restore-tables.sh", append([]string{dsn, dump}, gone...)...)
	if diff := cmp.Diff(before, rowsOf(t, db)); diff != "" {
		t.Errorf("rows after the way back and forth (-before +after):\n%s", diff)
	}
}

// rowsOf counts the rows of our tables. changes only announces.
func rowsOf(t *testing.T, db *sql.DB) map[string]int {
	t.Helper()
	names, err := db.QueryContext(t.Context(), `SELECT table_name FROM information_schema.tables
		WHERE table_schema = 'quotagate' AND table_type = 'BASE TABLE' AND table_name NOT IN ('goose_db_version', 'changes')`)
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	rows := map[string]int{}
	for names.Next() {
		var name string
		if err := names.Scan(&name); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM quotagate."`+name+`"`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		rows[name] = n
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// run runs a program with the server's own tools in its path.
func run(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(gatetest.PostgresTool(t, "psql"))+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
}
