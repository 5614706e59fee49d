package integration

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// previousVariable names a binary of the release before, for a source without its history.
const previousVariable = "QUOTA_TEST_PREVIOUS"

var errHistory = errors.New("the last commit before the newest migration is not here: clone the repository whole, or name a binary of it in " + previousVariable)

// previousBinary is the gateway as it was before the newest migration was added.
var previousBinary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv(previousVariable); given != "" {
		return given, nil
	}
	commit, err := previousCommit()
	if err != nil {
		return "", err
	}
	source, err := os.MkdirTemp("", "quotagate-previous")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(source) }()
	archive := filepath.Join(source, "source.tar")
	if _, err := git("archive", "-o", archive, commit); err != nil {
		return "", fmt.Errorf("%w: %w", errHistory, err)
	}
	if out, err := exec.Command("tar", "-xf", archive, "-C", source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpacking %s: %w\n%s", commit, err, out)
	}
	return buildFrom(source, "caddy-previous", []string{"CGO_ENABLED=0"}, "-trimpath")
})

// previousCommit is the last one that has not the migration of the highest number.
func previousCommit() (string, error) {
	names, err := filepath.Glob("../../migrations/postgres/*.sql") // sorted
	if err != nil {
		return "", err
	}
	newest := "migrations/postgres/" + filepath.Base(names[len(names)-1])
	inside, err := git("rev-parse", "--show-prefix")
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", errHistory, err)
	case inside != "": // it was unpacked in another repository
		return "", errHistory
	}
	added, err := git("log", "-1", "--diff-filter=A", "--format=%H", "--", newest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", errHistory, err)
	case added == "":
		return "HEAD", nil // it is not committed yet
	}
	commit, err := git("rev-parse", "--verify", "--quiet", added+"^")
	if err != nil { // where a shallow clone begins, all is added
		return "", fmt.Errorf("%w: %w", errHistory, err)
	}
	return commit, nil
}

// git asks the repository.
func git(args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// The release before goes on with the schema of the one after it: migrations
// only add. A schema from the future stands for it; longer runs build that release.
func TestRollBackTheBinary(t *testing.T) {
	t.Parallel()
	t.Run("a schema from the future", func(t *testing.T) {
		t.Parallel()
		goesOnWithALaterSchema(t)
	})
	if os.Getenv("QUOTA_TEST_LONG") == "" {
		return
	}
	for name, servers := range map[string]func(t *testing.T) (dsn, redis string){
		"the release before, embedded": func(*testing.T) (dsn, redis string) { return "", "" },
		"the release before, on Postgres and Redis": func(t *testing.T) (dsn, redis string) {
			t.Helper()
			return gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := previousBinary(); errors.Is(err, errHistory) {
				gatetest.Missing(t, "history", err)
			} else if err != nil {
				t.Fatal(err)
			}
			dsn, redis := servers(t)
			goesBackAndForth(t, dsn, redis)
		})
	}
}

func goesOnWithALaterSchema(t *testing.T) {
	t.Helper()
	g := start(t, "", strings.Replace(site(gatetest.NewBackend(nil).Serve(t).URL, "\tquota {\n\t\trule jobs {\n\t\t\tspend jobs\n\t\t}\n\t}\n\tquota_health\n"),
		"quota.db", "quota.db {\n\t\t\tmigrate check\n\t\t}", 1))
	migrate := func() {
		t.Helper()
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(t.Context(), path, "quota", "migrate", "up", "--config", g.file, "--adapter", "caddyfile")
		cmd.Env = g.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	migrate()
	for _, stmt := range []string{
		`CREATE TABLE of_a_later_release (id TEXT PRIMARY KEY)`,
		`ALTER TABLE subscriptions ADD COLUMN of_a_later_release TEXT`,
		`ALTER TABLE usage_totals ADD COLUMN of_a_later_release INTEGER NOT NULL DEFAULT 0`,
		`ALTER TABLE accounts ADD COLUMN of_a_later_release TEXT`,
		`ALTER TABLE subscription_plans ADD COLUMN of_a_later_release TEXT`,
		`ALTER TABLE user_controls ADD COLUMN of_a_later_release TEXT`,
		`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`,
	} {
		g.exec(stmt)
	}
	g.stop()
	g.run()
	if r := g.do(http.MethodGet, "/readyz", "").want(t, http.StatusOK); !strings.Contains(string(r.body), `"status":"ready"`) {
		t.Fatalf("%s", r.body)
	}
	g.subscribe("u", "pro")
	g.noticed()
	for range 11 { // one more than the default plan has
		g.do(http.MethodPost, "/jobs", access("u")).want(t, http.StatusOK)
	}
	eventually(t, patience, "usage is written", func() bool { return g.used(t, "u", "jobs", "month") == 11 })
	migrate() // finds nothing to do
}

// goesBackAndForth serves with the release before, this one, the one before
// again, and this one, all on what the others have left.
func goesBackAndForth(t *testing.T, dsn, redis string) {
	t.Helper()
	config := site(gatetest.NewBackend(nil).Serve(t).URL, "\tquota {\n\t\trule jobs {\n\t\t\tspend jobs\n\t\t}\n\t}\n\tquota_health\n")
	if dsn != "" {
		config = patient(strings.Replace(config, "records sqlite {$DIR}/quota.db",
			"records postgres {env.QUOTA_DSN}\n\t\tcounters redis {env.QUOTA_REDIS}", 1))
	}
	g := runFleet(t, 1, config, dsn, redis, func(_ int, g *gateway) { g.built = previousBinary })[0]
	spent := map[string]int64{}
	serves := func(who string, jobs map[string]int64) {
		t.Helper()
		eventually(t, patience, who+" is ready", func() bool { return ready(g) })
		for user, n := range jobs {
			for range n {
				g.do(http.MethodPost, "/jobs", access(user)).want(t, http.StatusOK)
			}
			spent[user] += n
			eventually(t, patience, who+" has written usage", func() bool { return g.used(t, user, "jobs", "month") == spent[user] })
		}
	}
	g.command("migrate", "up")
	eventually(t, patience, "the release before finds its schema", func() bool { return ready(g) })
	g.subscribe("customer", "pro")
	g.noticed()
	serves("the release before", map[string]int64{"customer": 11, "user": 4}) // of 10 without a subscription

	g.built = nil
	if out := g.command("migrate", "up"); !strings.Contains(out, "applied") {
		t.Fatalf("the schema of the release before is the newest: %s", out)
	}
	g.exec(`UPDATE subscriptions SET granted_over = 'sub_1' WHERE account_id = 'customer'`)
	g.noticed()
	serves("the release before, on a schema that has become newer,", map[string]int64{"customer": 5})
	kept := map[string][]string{}
	for _, table := range []string{"subscriptions", "subscription_plans", "plan_quotas"} {
		kept[table] = contents(t, g.db(), table)
	}
	for who, built := range []func() (string, error){binary, previousBinary, binary} {
		g.stop()
		g.built = built
		g.run()
		serves(fmt.Sprint("in turn ", who), map[string]int64{"customer": 7, "user": 2})
	}
	g.do(http.MethodPost, "/jobs", access("user")).want(t, http.StatusPaymentRequired)
	for table, before := range kept {
		if diff := cmp.Diff(before, contents(t, g.db(), table)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", table, diff)
		}
	}
	g.stop()
	for user, n := range spent {
		if used := g.used(t, user, "jobs", "month"); used != n {
			t.Errorf("%d jobs of %s are recorded, want %d", used, user, n)
		}
	}
}

// contents are the rows of a table, all columns.
func contents(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" ORDER BY 1, 2")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(names, values))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
