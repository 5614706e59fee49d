package admin

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/sealed"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const boss = "boss"

var errDown = errors.New("down")

// fixture is the API over real records and a clock that tests move. Requests
// come from boss, an admin, unless as says otherwise.
type fixture struct {
	*testing.T
	db     *sql.DB
	store  *store.Companion
	server *api.Server
	log    *observer.ObservedLogs

	mu        sync.Mutex
	now       time.Time
	down      bool
	bootstrap map[string]bool

	countersDown, redisDown bool
	resets                  []string
	emptying                func() error // called when counters have been emptied
	learned                 int
	unwritten               error // what flushing ends with
}

type callerKey struct{}

// start is a fixture on SQLite, at 2026-03-15 12:00 UTC.
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
	return startOn(t, db, store.SQLite)
}

// startOn is the same on an empty database.
func startOn(t *testing.T, db *sql.DB, engine store.Engine) *fixture {
	t.Helper()
	if err := store.Migrate(t.Context(), db, engine, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	f := &fixture{T: t, db: db, now: time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC), log: logs, bootstrap: map[string]bool{}}
	f.store = store.ForCompanion(store.New(db, store.Options{Engine: engine, Now: f.clock}))
	f.server = api.NewServer(f.identify, zap.New(core))
	box, err := sealed.NewBox("a key for tests of 32 bytes or more")
	if err != nil {
		t.Fatal(err)
	}
	mount(f.server, &service{
		store: f.records, now: f.clock, log: f.server.Log(),
		bootstraps: func(p *quota.Principal) bool {
			return f.bootstrap[p.Subject.ID()] || p.EmailState == quota.EmailVerified && f.bootstrap[p.Email]
		},
		lists:  func(id, email string) bool { return f.bootstrap[id] || f.bootstrap[email] },
		peek:   func(context.Context, quota.Subject, []quota.Charge, *quota.Decision) error { return errDown },
		seal:   func(id, email string) string { return box.Seal(email, id) },
		unseal: func(id, sealed string) (string, error) { return box.Open(sealed, id) },
		learn:  f.learn, process: func() string { return "" }, reset: f.reset, hostKeys: f.hostKeys, local: func() bool { return true },
	})
	f.exec(`INSERT INTO admins (user_id, granted_by) VALUES ($1, 'test')`, boss)
	return f
}

// host gives the fixture tables of a host: boss, ann (42) with two sessions, bob
// (7), and eve (13), whose name is made of wildcards.
func (f *fixture) host() {
	f.Helper()
	f.exec(`CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT UNIQUE, username TEXT, status TEXT, created_at TEXT, hashed_password TEXT DEFAULT 'hash')`)
	f.exec(`CREATE TABLE sessions (id TEXT PRIMARY KEY, user_id TEXT, created_at TEXT, user_agent TEXT, ip TEXT, revoked_at TEXT, refresh_token TEXT DEFAULT 'secret')`)
	f.exec(`INSERT INTO users (id, email, username, status, created_at) VALUES
		('boss', 'boss@example.com', 'boss', 'active', '2026-01-01 00:00:00'), ('42', 'ann@example.com', 'ann', 'active', '2026-01-02 00:00:00'),
		('7', 'bob@example.com', 'bob', 'active', '2026-01-03 00:00:00'), ('13', '100%_e@example.com', 'eve', 'active', '2026-01-04 00:00:00')`)
	f.exec(`INSERT INTO sessions (id, user_id, created_at, user_agent, ip) VALUES
		('s1', '42', '2026-03-01 00:00:00', 'Firefox', '192.0.2.1'), ('s2', '42', '2026-03-02 00:00:00', 'curl', '192.0.2.2'), ('s3', '7', '2026-03-03 00:00:00', NULL, NULL)`)
	f.store.SetHost(store.HostOptions{})
}

// reset keeps what it was asked to empty; every subject has used api and jobs.
func (f *fixture) reset(_ context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.countersDown {
		return nil, errDown
	}
	var emptied []string
	for _, scope := range []string{"api", "jobs"} {
		if len(scopes) == 0 || slices.Contains(scopes, scope) {
			emptied = append(emptied, scope)
		}
	}
	f.resets = append(f.resets, fmt.Sprint(subject, emptied))
	if f.emptying != nil {
		return emptied, f.emptying()
	}
	return emptied, nil
}

// hostKeys has a login and a jobs key of ann's.
func (f *fixture) hostKeys(_ context.Context, keys []string) ([]int, error) {
	var there []int
	for i, key := range keys {
		if key == "rate_limit:login:account:ann@example.com" || key == "rate_limit:jobs:account:ann@example.com" {
			there = append(there, i)
		}
	}
	if f.redisDown {
		return nil, errDown
	}
	return there, nil
}

// text is the result of a query with one text; "NULL" for none.
func (f *fixture) text(query string, args ...any) string {
	f.Helper()
	var s sql.NullString
	if err := f.db.QueryRowContext(f.Context(), query, args...).Scan(&s); err != nil {
		f.Fatalf("%s: %v", query, err)
	}
	if !s.Valid {
		return "NULL"
	}
	return s.String
}

// audited are the actions in the log, in order.
func (f *fixture) audited() []string {
	f.Helper()
	rows, err := f.db.QueryContext(f.Context(), "SELECT action || ' ' || resource_id || ' by ' || actor_id FROM audit_events ORDER BY seq")
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	var actions []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			f.Fatal(err)
		}
		actions = append(actions, s)
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return actions
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) records() (*store.Companion, error) {
	if f.down {
		return nil, errDown
	}
	return f.store, nil
}

// identify answers the caller that the request's context names, as the records
// know it now.
func (f *fixture) identify(r *http.Request) (gate.Caller, error) {
	p, _ := r.Context().Value(callerKey{}).(*quota.Principal)
	c := gate.Caller{Identity: gate.Identity{Principal: p}}
	if p.Anonymous() {
		return c, nil
	}
	e, err := f.store.Entitlement(r.Context(), p.Subject)
	if err != nil {
		return c, err
	}
	switch e.Control {
	case quota.ControlSuspended:
		return c, quota.Refuse(quota.CodeSuspended)
	case quota.ControlDeleted:
		return c, quota.Refuse(quota.CodeDeleted)
	}
	c.Entitlement = e
	return c, nil
}

func (f *fixture) exec(stmt string, args ...any) {
	f.Helper()
	if _, err := f.db.ExecContext(f.Context(), stmt, args...); err != nil {
		f.Fatalf("%s: %v", stmt, err)
	}
}

// number is the result of a query with one number.
func (f *fixture) number(query string, args ...any) int64 {
	f.Helper()
	var n int64
	if err := f.db.QueryRowContext(f.Context(), query, args...).Scan(&n); err != nil {
		f.Fatalf("%s: %v", query, err)
	}
	return n
}

// passedOn is the status with which the next handler answers.
const passedOn = http.StatusTeapot

// reply is an answer.
type reply struct {
	*httptest.ResponseRecorder
	t *testing.T
}

// do sends a request as boss; headers are "Name: value".
func (f *fixture) do(method, target, body string, headers ...string) *reply {
	f.Helper()
	return f.as(&quota.Principal{Subject: quota.UserSubject(boss)}, method, target, body, headers...)
}

// as sends a request as somebody.
func (f *fixture) as(p *quota.Principal, method, target, body string, headers ...string) *reply {
	f.Helper()
	r := httptest.NewRequestWithContext(f.Context(), method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if !p.Anonymous() {
		r.Header.Set("Authorization", "Bearer x")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	return f.send(p, r)
}

func (f *fixture) send(p *quota.Principal, r *http.Request) *reply {
	f.Helper()
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, p))
	w := httptest.NewRecorder()
	if err := f.server.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(passedOn)
		return nil
	})); err != nil {
		f.Fatal(err)
	}
	return &reply{w, f.T}
}

// want fails unless the answer has the status.
func (r *reply) want(status int) *reply {
	r.t.Helper()
	if r.Code != status {
		r.t.Fatalf("status %d, want %d: %s", r.Code, status, r.Body)
	}
	return r
}

// json is the answer's body.
func (r *reply) json() map[string]any {
	r.t.Helper()
	var v map[string]any
	if err := json.Unmarshal(r.Body.Bytes(), &v); err != nil {
		r.t.Fatalf("%v: %s", err, r.Body)
	}
	return v
}

// wantBody compares with a document of JSON.
func (r *reply) wantBody(document string) {
	r.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(v, any(r.json())); diff != "" {
		r.t.Errorf("(-want +got):\n%s", diff)
	}
}

// learn counts how often the callers seen were asked for.
func (f *fixture) learn(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learned++
	return f.unwritten
}
