package billing_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/billing/stripefake"
	"github.com/quotagate/quotagate/plugins/stripebilling"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	_ "modernc.org/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	whsec  = "whsec_of_the_tests"
	ann    = quota.Subject("user:ann")
	minute = time.Minute
	day    = 24 * time.Hour
)

// start is a month's last day, so that clamping shows.
func start() time.Time { return time.Date(2026, time.January, 31, 10, 0, 0, 0, time.UTC) }

var lives atomic.Int64

// world is a fake provider with one customer to be, and whoever follows it.
type world struct {
	fake   *stripefake.Fake
	server *httptest.Server
	offset time.Duration // of our clocks before the fake's
}

func newWorld(t testing.TB) *world {
	t.Helper()
	fake, err := stripefake.New(stripefake.Options{
		Seed: fmt.Sprint(t.Name(), lives.Add(1)), Start: start(), Receivers: []stripefake.Receiver{{Name: "test", Secret: whsec}},
		BaseURL: "https://pay.example",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Seed([]stripefake.Seed{
		{Product: "Pro", LookupKey: "pro_monthly", Currency: "usd", Interval: "month", Amount: 1999},
		{Product: "Pro", LookupKey: "pro_yearly", Currency: "usd", Interval: "year", Amount: 19990},
		{Product: "Enterprise", LookupKey: "enterprise_monthly", Currency: "usd", Interval: "month", Amount: 9999},
		{Product: "Enterprise", LookupKey: "enterprise_yearly", Currency: "usd", Interval: "year", Amount: 99990},
		{Product: "Mystery", LookupKey: "mystery", Currency: "usd", Interval: "month", Amount: 1},
	}); err != nil {
		t.Fatal(err)
	}
	w := &world{fake: fake, server: httptest.NewServer(fake)}
	return w
}

func (w *world) close() { w.server.Close() }

func (w *world) now() time.Time { return w.fake.Now().Add(w.offset) }

// provider is Stripe's client before the fake.
func (w *world) provider(ctx context.Context, t testing.TB) billing.Provider {
	t.Helper()
	m := &stripebilling.Module{APIKey: stripefake.DefaultKey, WebhookSecrets: []string{whsec}, APIBase: w.server.URL}
	p, err := m.Open(ctx, billing.Env{Log: zap.NewNop(), Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func settings() billing.Settings {
	return billing.Settings{SuccessURL: "https://app.example/ok", CancelURL: "https://app.example/no", ReturnURL: "https://app.example"}
}

// post calls the fake's API as somebody in the dashboard would.
func (w *world) post(ctx context.Context, path string, form url.Values) (map[string]any, error) {
	method, body := http.MethodPost, form.Encode()
	if form == nil {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+stripefake.DefaultKey)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := w.server.Client().Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var v map[string]any
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		return nil, err
	}
	if res.StatusCode >= 400 {
		return nil, fmt.Errorf("%s answered %d: %v", path, res.StatusCode, v)
	}
	return v, nil
}

// delete calls the fake's API to delete something.
func (w *world) delete(path string) error {
	r, err := http.NewRequest(http.MethodDelete, w.server.URL+path, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+stripefake.DefaultKey)
	res, err := w.server.Client().Do(r)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		err = fmt.Errorf("deleting %s: %s", path, res.Status)
	}
	return errors.Join(err, res.Body.Close())
}

// records is a store with a clock of the test's.
type records struct {
	*store.Companion
	db *sql.DB
}

// told are the events for others, in their order.
func (r *records) told(ctx context.Context) (kinds []string, err error) {
	rows, err := r.db.QueryContext(ctx, "SELECT event_type FROM outbox_events ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var kind string
		if err := rows.Scan(&kind); err != nil {
			return nil, err
		}
		kinds = append(kinds, kind)
	}
	return kinds, rows.Err()
}

// history is what an account's subscriptions and invoices say, without our ids and
// the moments at which rows were written: two accounts of the same history have
// the same, however they came to it.
func (r *records) history(ctx context.Context, account quota.Subject) ([]string, error) {
	var lines []string
	for table, ours := range map[string][]string{
		"subscriptions": {"id", "account_id", "created_at", "updated_at"},
		"invoices":      {"account_id"},
	} {
		rows, err := r.db.QueryContext(ctx, "SELECT * FROM "+table+" WHERE account_id = $1", account.ID())
		if err != nil {
			return nil, err
		}
		defer func() { _ = rows.Close() }()
		names, err := rows.Columns()
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			values, into := make([]any, len(names)), make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return nil, err
			}
			line := table
			for i, name := range names {
				if !slices.Contains(ours, name) {
					line += fmt.Sprintf(" %s=%v", name, values[i])
				}
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// template is an empty database, migrated once: a copy is made quicker.
func template(t testing.TB) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quota.db")
	db, err := sql.Open("sqlite", store.SQLiteDSN(file))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open is a copy of the template on the world's clock.
func (w *world) open(t testing.TB, template []byte) (*records, func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), fmt.Sprintf("quota-%d.db", lives.Add(1)))
	if err := os.WriteFile(file, template, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", store.SQLiteDSN(file)+"&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	return &records{store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite, Now: w.now})), db}, func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// follower is one installation that follows the fake: records and a process.
type follower struct {
	*records
	billing.Desk
}
