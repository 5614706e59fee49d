package accounts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const ann = quota.Subject("user:ann")

var errDown = errors.New("down")

// fixture is the API over real records, a clock that tests move, and counters
// that say what the records say, or nothing.
type fixture struct {
	*testing.T
	db     *sql.DB
	store  *store.Companion
	server *api.Server
	log    *observer.ObservedLogs

	mu           sync.Mutex
	now          time.Time
	caller       gate.Caller
	refusal      error
	recordsDown  bool
	countersDown bool
	peeked       []quota.Charge
	seq          int64 // of the newest row of the charts
}

// start is a fixture at 2026-03-15 12:00 UTC whose requests come from ann.
func start(t *testing.T) *fixture {
	t.Helper()
	db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	f := &fixture{T: t, db: db, now: time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC), log: logs}
	f.store = store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite, Now: f.clock}))
	f.server = api.NewServer(f.identify, zap.New(core))
	register(f.server.API(), &service{store: f.records, peek: f.peek, now: f.clock, log: f.server.Log()})
	f.caller.Principal = &quota.Principal{Subject: ann}
	return f
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) at(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = t
}

func (f *fixture) records() (*store.Companion, error) {
	if f.recordsDown {
		return nil, errDown
	}
	return f.store, nil
}

// identify answers the fixture's caller with what the records say of it now.
func (f *fixture) identify(r *http.Request) (gate.Caller, error) {
	c := f.caller
	if f.refusal != nil || c.Principal.Anonymous() || c.Invalid != nil || c.Entitlement != nil {
		return c, f.refusal
	}
	var err error
	c.Entitlement, err = f.store.Entitlement(r.Context(), c.Principal.Subject)
	return c, err
}

func (f *fixture) peek(ctx context.Context, account quota.Subject, cs []quota.Charge, d *quota.Decision) error {
	f.peeked = cs
	if f.countersDown {
		return errDown
	}
	keys := make([]quota.UsageKey, len(cs))
	for i, c := range cs {
		keys[i] = quota.UsageKey{Metric: c.Key.Name, Period: c.Key.Period, Start: c.Key.Start}
	}
	used, err := f.store.Usage(ctx, account, keys, nil)
	if err != nil {
		return err
	}
	d.Reset(len(cs))
	for i := range used {
		d.Outcomes[i].Used = used[i].Amount
	}
	return nil
}

// spend adds to what was used of a metric at a moment, in all its periods.
func (f *fixture) spend(epoch, metric string, at time.Time, spent int64) {
	f.Helper()
	e, err := f.store.Entitlement(f.Context(), ann)
	if err != nil {
		f.Fatal(err)
	}
	var rows []quota.Total
	for _, c := range quota.UsageCharges(e, at) {
		if c.Key.Name == metric {
			rows = append(rows, quota.Total{
				Account: ann, Metric: metric, Period: c.Key.Period, Start: c.Key.Start, End: c.End, Spent: spent,
			})
		}
	}
	if err := f.store.Flush(f.Context(), quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch, Rows: rows}}); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) exec(stmt string, args ...any) {
	f.Helper()
	if _, err := f.db.ExecContext(f.Context(), stmt, args...); err != nil {
		f.Fatalf("%s: %v", stmt, err)
	}
}

// passedOn is the status with which the next handler answers.
const passedOn = http.StatusTeapot

func (f *fixture) do(method, target string, headers ...string) *httptest.ResponseRecorder {
	f.Helper()
	r := httptest.NewRequestWithContext(f.Context(), method, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return f.send(r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(passedOn)
		return nil
	}))
}

func (f *fixture) send(r *http.Request, next caddyhttp.Handler) *httptest.ResponseRecorder {
	f.Helper()
	w := httptest.NewRecorder()
	if err := f.server.ServeHTTP(w, r, next); err != nil {
		f.Fatal(err)
	}
	return w
}

// get is the answer of a path as JSON.
func (f *fixture) get(path string) map[string]any {
	f.Helper()
	w := f.do(http.MethodGet, path)
	if w.Code != http.StatusOK {
		f.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
	}
	return decode(f.T, w.Body.Bytes())
}

func decode(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// want compares with a document of JSON.
func want(t testing.TB, what, document string, got any) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
