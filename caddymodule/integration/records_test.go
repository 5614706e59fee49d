package integration

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the same, in Postgres
	_ "modernc.org/sqlite"             // the tests change the records by hand, as operators do
)

// exec changes the gateway's records by hand, beside the running process.
func (g *gateway) exec(stmt string, args ...any) {
	g.t.Helper()
	db := g.db()
	if _, err := db.Exec(stmt, args...); err != nil {
		g.t.Fatalf("%s: %v", stmt, err)
	}
}

// db is the records' database, opened once.
func (g *gateway) db() *sql.DB {
	g.t.Helper()
	g.dbOnce.Do(g.openDB)
	return g.opened
}

func (g *gateway) openDB() {
	g.t.Helper()
	driver, source := "sqlite", "file:"+filepath.Join(g.dir, "quota.db")+"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_txlock=immediate"
	if g.dsn != "" {
		driver, source = "pgx", g.dsn+"&search_path=quotagate"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = db.Close() })
	g.opened = db
}

// subscribe puts the user on a plan, whatever it had before.
func (g *gateway) subscribe(user, plan string) {
	g.t.Helper()
	tx, err := g.db().Begin()
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`DELETE FROM subscriptions WHERE account_id = $1`, user); err != nil {
		g.t.Fatal(err)
	}
	if _, err := tx.Exec(`INSERT INTO subscriptions (account_id, plan_id, source, status)
		SELECT $1, id, 'manual', 'active' FROM subscription_plans WHERE name = $2`, user, plan); err != nil {
		g.t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		g.t.Fatal(err)
	}
}

// status is what the admin API says of the gateway.
func (g *gateway) status() map[string]any {
	g.t.Helper()
	res, err := http.Get("http://" + g.admin + "/quota/status")
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		g.t.Fatal(err)
	}
	return v
}

// latestChange is the number of the newest change in the records.
func (g *gateway) latestChange() int64 {
	g.t.Helper()
	var seq int64
	if err := g.db().QueryRow(`SELECT coalesce(max(seq), 0) FROM changes`).Scan(&seq); err != nil {
		g.t.Fatal(err)
	}
	return seq
}

// noticed waits until the gateway judges by the newest change.
func (g *gateway) noticed() {
	g.t.Helper()
	want := g.latestChange()
	eventually(g.t, noticeMax, "the gateway applies the newest change", func() bool {
		applied, _ := g.status()["applied_change"].(float64)
		return int64(applied) >= want
	})
}

// used is what the records say that the account has used of a metric, over all
// epochs, in the periods of that name.
func (g *gateway) used(t testing.TB, account, metric, period string) int64 {
	t.Helper()
	var n int64
	err := g.db().QueryRow(`SELECT coalesce(sum(spent - refunded), 0) FROM usage_totals
		WHERE account_id = $1 AND metric = $2 AND period = $3`, account, metric, period).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
