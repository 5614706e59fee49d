package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// hosted is a migrated database in which a host has tables of its own.
type hosted struct {
	*testing.T
	engine store.Engine
	db     *sql.DB
	store  *store.Companion
	clock  *gatetest.Clock
}

// onBoth runs f on each engine, with the host's tables made by ddl: text of
// Postgres, whose types SQLite takes as affinities.
func onBoth(t *testing.T, ddl string, f func(h *hosted)) {
	t.Helper()
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(newHosted(t, store.Postgres, ddl))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(newHosted(t, store.SQLite, strings.ReplaceAll(ddl, "public.", "")))
	})
}

func newHosted(t *testing.T, engine store.Engine, ddl string) *hosted {
	t.Helper()
	h := &hosted{T: t, engine: engine, clock: gatetest.NewClock(time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC))}
	if engine == store.Postgres {
		h.db = gatetest.Postgres(t).Open(t, store.Schema)
	} else {
		db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		h.db = db
	}
	if err := store.Migrate(t.Context(), h.db, engine, "up", t.Output()); err != nil {
		t.Fatal(err)
	}
	h.exec(ddl)
	h.store = store.ForCompanion(store.New(h.db, store.Options{Engine: engine, Now: h.clock.Now}))
	return h
}

func (h *hosted) exec(text string) {
	h.Helper()
	for _, stmt := range strings.Split(text, ";") {
		if strings.TrimSpace(stmt) == "" {
			continue
		}
		stmt = strings.ReplaceAll(stmt, "$ ", "; ") // within a function
		if _, err := h.db.ExecContext(h.Context(), stmt); err != nil {
			h.Fatalf("%s: %v", stmt, err)
		}
	}
}

func (h *hosted) text(query string) string {
	h.Helper()
	var s sql.NullString
	if err := h.db.QueryRowContext(h.Context(), query).Scan(&s); err != nil {
		h.Fatalf("%s: %v", query, err)
	}
	return s.String
}

// state is what the gateway would make of a user.
func (h *hosted) state(user string) quota.Control {
	h.Helper()
	e, err := h.store.Entitlement(h.Context(), quota.UserSubject(user))
	if err != nil {
		h.Fatal(err)
	}
	if err := h.store.HostFault(); err != nil {
		h.Fatal(err)
	}
	return e.Control
}

// public is the name of a host's table in statements by hand.
func (h *hosted) public(table string) string {
	if h.engine == store.Postgres {
		return "public." + table
	}
	return table
}

// Ids are compared in the host's own type, and what is none of its values finds nobody.
func TestHostIDs(t *testing.T) {
	t.Parallel()
	const id = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
	for name, tt := range map[string]struct {
		typ, row      string
		found, absent []string
	}{
		"integer": {"INTEGER", "7", []string{"7"}, []string{"07", "+7", " 7", "7.0", "7e0", "8", "x", "99999999999999999999", "7' OR '1'='1"}},
		"bigint":  {"BIGINT", "9007199254740993", []string{"9007199254740993"}, []string{"9007199254740992", "09007199254740993"}},
		"text":    {"TEXT", "'us:er''1\"'", []string{`us:er'1"`}, []string{"us:er'1", "US:ER'1\""}},
		"varchar": {"VARCHAR(36)", "'" + id + "'", []string{id}, []string{strings.ToUpper(id)}},
		"uuid":    {"UUID", "'" + id + "'", []string{id}, []string{"7", "x", id + "0", "{" + id + "}", strings.ReplaceAll(id, "-", "")}},
		"numeric": {"NUMERIC(10)", "7", []string{"7"}, []string{"8", "x", "7.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, fmt.Sprintf("CREATE TABLE public.users (id %s PRIMARY KEY, status TEXT); INSERT INTO public.users VALUES (%s, 'suspended')", tt.typ, tt.row), func(h *hosted) {
				for _, user := range tt.found {
					if h.state(user) != quota.ControlSuspended {
						h.Errorf("%q was not found", user)
					}
					if u, err := h.store.User(h.Context(), user); err != nil || u.ID != user {
						h.Errorf("%q in the directory: %+v, %v", user, u, err)
					}
				}
				for _, user := range tt.absent {
					if h.state(user) != quota.ControlActive {
						h.Errorf("%q is another's id", user)
					}
				}
			})
		})
	}
	// A char(n) is padded, and equal to what it was made of.
	h := newHosted(t, store.Postgres, "CREATE DOMAIN public.key AS char(8); CREATE TABLE public.users (id public.key, status TEXT); INSERT INTO public.users VALUES ('ab', 'banned')")
	if h.state("ab") != quota.ControlSuspended {
		t.Error("char(8) was not found")
	}
	if u, err := h.store.User(t.Context(), "ab"); err != nil || u.ID != "ab" {
		t.Errorf("char(8): %+v, %v", u, err)
	}
}

func TestHostStatusWords(t *testing.T) {
	t.Parallel()
	onBoth(t, "CREATE TABLE public.users (id TEXT PRIMARY KEY, status TEXT)", func(h *hosted) {
		for word, want := range map[string]quota.Control{
			"active": 0, "": 0, "pending": 0, "ACTIVE": 0, "locked": 0, "suspended": 1, "SUSPENDED": 1, "Inactive": 1, "deleted": 1, "disabled": 1, "banned": 1,
		} {
			h.exec("DELETE FROM " + h.public("users") + "; INSERT INTO " + h.public("users") + " VALUES ('a', '" + word + "')")
			if got := h.state("a"); got != want {
				h.Errorf("%q: %d, want %d", word, got, want)
			}
		}
		h.exec("UPDATE " + h.public("users") + " SET status = NULL")
		if h.state("a") != quota.ControlActive || h.state("stranger") != quota.ControlActive {
			h.Error("a user without a status is refused")
		}
	})
	onBoth(t, "CREATE TABLE public.people (uid TEXT, is_active BOOLEAN); INSERT INTO public.people VALUES ('yes', TRUE), ('no', FALSE), ('null', NULL)", func(h *hosted) {
		h.store.SetHost(store.HostOptions{Users: &store.HostTable{Table: "people", Columns: map[string]string{"id": "uid", "status": "is_active"}}})
		if h.state("yes") != 0 || h.state("no") != 1 || h.state("null") != 0 {
			h.Errorf("yes or no: %d %d %d", h.state("yes"), h.state("no"), h.state("null"))
		}
	})
}

func TestHostSessions(t *testing.T) {
	t.Parallel()
	onBoth(t, `CREATE TABLE public.sessions (id INTEGER PRIMARY KEY, user_id INTEGER, created_at TIMESTAMP, last_seen_at TIMESTAMP, user_agent TEXT, revoked_at TIMESTAMP);
		INSERT INTO public.sessions VALUES (1, 7, '2026-03-01 10:00:00', '2026-03-02 10:00:00', 'curl', NULL),
			(2, 7, '2026-03-03 10:00:00', NULL, NULL, NULL), (3, 7, '2026-03-04 10:00:00', NULL, NULL, '2026-03-05 10:00:00'), (4, 8, NULL, NULL, NULL, NULL);
		INSERT INTO accounts (id, kind) VALUES ('7', 'user')`,
		func(h *hosted) {
			ctx := h.Context()
			revoked := func() string {
				e, err := h.store.Entitlement(ctx, "user:7")
				if err != nil {
					h.Fatal(err)
				}
				var ids []string
				for _, id := range []string{"1", "2", "3", "4"} {
					if e.Revoked(&quota.Principal{Session: id, IssuedAt: h.clock.Now().Add(time.Hour)}) {
						ids = append(ids, id)
					}
				}
				return strings.Join(ids, " ")
			}
			if got := revoked(); got != "3" {
				h.Errorf("revoked: %s", got)
			}
			agent := "curl"
			at := func(day int) time.Time { return time.Date(2026, 3, day, 10, 0, 0, 0, time.UTC) }
			want := []store.HostSession{{ID: "1", UserAgent: &agent, CreatedAt: at(1), LastSeenAt: at(2)}, {ID: "2", CreatedAt: at(3)}}
			got, err := h.store.UserSessions(ctx, "7")
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				h.Errorf("%v\n%s", err, diff)
			}
			r, err := h.store.LogOutUser(ctx, store.Actor{Type: store.ActorCLI}, "7", "", store.Precondition{})
			if err != nil || r.Sessions != 2 || !r.Host.Updated {
				h.Errorf("revoking all: %+v, %v", r, err)
			}
			if got := revoked(); got != "1 2 3" {
				h.Errorf("revoked: %s", got)
			}
			if left, err := h.store.UserSessions(ctx, "7"); len(left) != 0 || err != nil {
				h.Errorf("left: %v, %v", left, err)
			}
			if got := h.text("SELECT CAST(revoked_at AS text) FROM " + h.public("sessions") + " WHERE id = 1"); !strings.HasPrefix(got, "2026-03-15 12:00:00") {
				h.Errorf("revoked at %s", got)
			}
			if got := h.text("SELECT CAST(revoked_at AS text) FROM " + h.public("sessions") + " WHERE id = 4"); got != "" {
				h.Errorf("another's session was revoked: %s", got)
			}
		})
}

// What the host refuses is reported, and ours stands.
func TestHostRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ddl, word, reason string
		updated           bool
		sqlite            bool
	}{
		"text":              {"CREATE TABLE public.users (id TEXT, status TEXT); INSERT INTO public.users VALUES ('a', 'active')", "suspended", "", true, true},
		"a check":           {"CREATE TABLE public.users (id TEXT, status TEXT CHECK (status IN ('active', 'deleted'))); INSERT INTO public.users VALUES ('a', 'active')", "suspended", "refuses", false, true},
		"no column":         {"CREATE TABLE public.users (id TEXT)", "suspended", "no column status", false, true},
		"no table":          {"SELECT 1", "suspended", "no table users", false, true},
		"no row":            {"CREATE TABLE public.users (id TEXT, status TEXT)", "suspended", "no such user", false, true},
		"yes or no":         {"CREATE TABLE public.users (id TEXT, status BOOLEAN); INSERT INTO public.users VALUES ('a', TRUE)", "suspended", "", true, true},
		"a short column":    {"CREATE TABLE public.users (id TEXT, status VARCHAR(8)); INSERT INTO public.users VALUES ('a', 'active')", "suspended", "refuses", false, false},
		"an enumeration":    {"CREATE TYPE public.state AS ENUM ('ACTIVE', 'SUSPENDED'); CREATE TABLE public.users (id TEXT, status public.state); INSERT INTO public.users VALUES ('a', 'ACTIVE')", "suspended", "", true, false},
		"another word":      {"CREATE TYPE public.state AS ENUM ('active', 'off'); CREATE TABLE public.users (id TEXT, status public.state); INSERT INTO public.users VALUES ('a', 'active')", "suspended", "none of the words", false, false},
		"another type":      {"CREATE TABLE public.users (id TEXT, status INTEGER); INSERT INTO public.users VALUES ('a', 1)", "suspended", "refuses", false, false},
		"a trigger":         {"CREATE TABLE public.log (word TEXT); CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.status)$ RETURN NEW$ END'; CREATE TABLE public.users (id TEXT, status TEXT); INSERT INTO public.users VALUES ('a', 'active'); CREATE TRIGGER noted BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.note()", "suspended", "", true, false},
		"a view over two":   {"CREATE VIEW public.users AS SELECT 'a' AS id, 'active' AS status UNION SELECT 'b', 'active'", "suspended", "refuses", false, true},
		"a late constraint": {"CREATE TABLE public.states (word TEXT PRIMARY KEY); INSERT INTO public.states VALUES ('active'); CREATE TABLE public.users (id TEXT, status TEXT REFERENCES public.states DEFERRABLE INITIALLY DEFERRED); INSERT INTO public.users VALUES ('a', 'active')", "suspended", "refuses", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(h *hosted) {
				w, err := h.store.SuspendBoth(h.Context(), "a", tt.word)
				if err != nil || w.Updated != tt.updated || !strings.Contains(w.Reason, tt.reason) {
					h.Errorf("%+v, %v; want updated %t, reason %q", w, err, tt.updated, tt.reason)
				}
				if h.state("a") != quota.ControlSuspended {
					h.Error("ours was rolled back")
				}
			}
			if tt.sqlite {
				onBoth(t, tt.ddl, check)
			} else {
				check(newHosted(t, store.Postgres, tt.ddl))
			}
		})
	}
}

// A row that the host holds locked is not waited for without end.
func TestHostRowIsLocked(t *testing.T) {
	t.Parallel()
	h := newHosted(t, store.Postgres, "CREATE TABLE public.users (id TEXT, status TEXT); INSERT INTO public.users VALUES ('a', 'active')")
	tx, err := h.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "SELECT 1 FROM public.users FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	w, err := h.store.SuspendBoth(t.Context(), "a", "suspended")
	if err != nil || w.Updated || !strings.Contains(w.Reason, "lock timeout") {
		t.Errorf("%+v, %v", w, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if h.state("a") != quota.ControlSuspended {
		t.Error("ours was rolled back")
	}
}

// While the host has its table locked, callers have what our own rows say.
func TestHostTableIsLocked(t *testing.T) {
	t.Parallel()
	h := newHosted(t, store.Postgres, "CREATE TABLE public.users (id TEXT, status TEXT); INSERT INTO public.users VALUES ('a', 'suspended')")
	if _, err := h.store.Upgrade(t.Context(), "user:a", store.Grant{Plan: "pro"}); err != nil {
		t.Fatal(err)
	}
	tx, err := h.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	e, err := h.store.Entitlement(t.Context(), "user:a")
	if err != nil || e.Plan.Name != "pro" || e.ValidUntil.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	if h.store.HostFault() == nil {
		t.Error("the fault is not reported")
	}
	if _, err := h.store.Entitlement(t.Context(), "user:b"); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("two loads took %s: the second waited too", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		e, err := h.store.Entitlement(t.Context(), "user:a")
		if err != nil {
			t.Fatal(err)
		}
		if e.Control == quota.ControlSuspended {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the host's table is free and not read again")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := h.store.HostFault(); err != nil {
		t.Error(err)
	}
}

// The host may do with its tables what it likes.
func TestHostChangesItsTables(t *testing.T) {
	t.Parallel()
	h := newHosted(t, store.Postgres, `CREATE TABLE public.users (id INTEGER PRIMARY KEY, email TEXT, status TEXT);
		INSERT INTO public.users VALUES (7, 'a@x', 'suspended');
		CREATE TABLE public.sessions (id INTEGER PRIMARY KEY, user_id INTEGER, revoked_at TIMESTAMPTZ)`)
	ctx := t.Context()
	check := func(want quota.Control, email string) {
		t.Helper()
		if got := h.state("7"); got != want {
			t.Errorf("state %d, want %d", got, want)
		}
		u, err := h.store.User(ctx, "7")
		if err != nil {
			t.Fatal(err)
		}
		got := "null"
		if u.Email != nil {
			got = *u.Email
		}
		if got != email {
			t.Errorf("e-mail %s, want %s", got, email)
		}
		if _, err := h.store.UserSessions(ctx, "7"); err != nil {
			t.Error(err)
		}
		if _, err := h.store.ListUsers(ctx, store.UserFilter{Search: "a"}, store.UserPage{}); err != nil {
			t.Error(err)
		}
	}
	check(1, "a@x")
	for _, step := range []struct {
		ddl   string
		want  quota.Control
		email string
	}{
		{"ALTER TABLE public.users ALTER COLUMN id TYPE BIGINT", 1, "a@x"},
		{"ALTER TABLE public.users ALTER COLUMN id TYPE TEXT USING id::text", 1, "a@x"},
		{"ALTER TABLE public.users ALTER COLUMN status TYPE BOOLEAN USING status <> 'suspended'", 1, "a@x"},
		{"ALTER TABLE public.users DROP COLUMN email", 1, "null"},
		{"ALTER TABLE public.users DROP COLUMN status", 0, "null"},
		{"DROP TABLE public.sessions", 0, "null"},
	} {
		h.exec(step.ddl)
		check(step.want, step.email)
	}
	h.exec("DROP TABLE public.users")
	if h.state("7") != quota.ControlActive {
		t.Error("a user of no table is refused")
	}
	if _, err := h.store.User(ctx, "7"); err == nil {
		t.Error("found in a table that was dropped")
	}
	if w, err := h.store.SuspendBoth(ctx, "7", "suspended"); err != nil || w.Updated {
		t.Errorf("%+v, %v", w, err)
	}
	if err := store.Migrate(ctx, h.db, store.Postgres, "status", t.Output()); err != nil {
		t.Error(err)
	}
}

// Names are the host's as they stand, whatever is in them.
func TestHostNamesAreQuoted(t *testing.T) {
	t.Parallel()
	const ddl = `CREATE TABLE public."us""ers; DROP" ("the ID" TEXT, "select" TEXT, "a""b" TEXT)`
	onBoth(t, "SELECT 1", func(h *hosted) {
		text := ddl
		if h.engine == store.SQLite {
			text = strings.ReplaceAll(text, "public.", "")
		}
		if _, err := h.db.ExecContext(h.Context(), text); err != nil {
			h.Fatal(err)
		}
		table := strings.TrimPrefix(text[len("CREATE TABLE "):strings.Index(text, " (\"the")], "")
		if _, err := h.db.ExecContext(h.Context(), "INSERT INTO "+table+` VALUES ('a', 'x@y', 'deleted')`); err != nil {
			h.Fatal(err)
		}
		h.store.SetHost(store.HostOptions{Users: &store.HostTable{
			Table: `public.us"ers; DROP`, Columns: map[string]string{"id": "the ID", "email": "select", "status": `a"b`},
		}})
		if h.state("a") != quota.ControlSuspended {
			h.Error("not found")
		}
		by, seal := store.Actor{Type: store.ActorCLI}, func(_, email string) string { return email }
		if r, err := h.store.RemoveUser(h.Context(), by, "a", store.Removal{Seal: seal}); err != nil || !r.Email.Updated || !r.Host.Updated {
			h.Errorf("%+v, %v", r, err)
		}
		if u, err := h.store.User(h.Context(), "a"); err != nil || u.Email == nil || *u.Email != "deleted_a@example.com" || u.Status != "deleted" {
			h.Errorf("%+v, %v", u, err)
		}
	})
}

// What was found says where to look, and what is missing why.
func TestHostReport(t *testing.T) {
	t.Parallel()
	onBoth(t, "CREATE TABLE public.users (id TEXT, email TEXT); CREATE TABLE public.sessions (id TEXT)", func(h *hosted) {
		got, err := h.store.Host(h.Context())
		if err != nil {
			h.Fatal(err)
		}
		if got.Users == "" || strings.Join(got.UserColumns, " ") != "id email" || got.Sessions != "" || !strings.Contains(got.SessionsMissing, "no column user_id") {
			h.Errorf("%+v", got)
		}
	})
}

func BenchmarkEntitlementWithHost(b *testing.B) {
	db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(b.TempDir(), "quota.db")))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	if err := store.Migrate(context.Background(), db, store.SQLite, "up", b.Output()); err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(b.Context(), "CREATE TABLE users (id INTEGER PRIMARY KEY, status TEXT)"); err != nil {
		b.Fatal(err)
	}
	s := store.New(db, store.Options{Engine: store.SQLite})
	for b.Loop() {
		if _, err := s.Entitlement(b.Context(), "user:1"); err != nil {
			b.Fatal(err)
		}
	}
}
