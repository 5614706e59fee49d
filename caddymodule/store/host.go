package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HostTable names a table of the backends and, by our names, those of its
// columns that are called something else there.
type HostTable struct {
	// Table is its name, with or without a schema; without one it is in public.
	Table string
	// Columns are the host's names by ours. What is not here has the same name;
	// a column that the table does not have is read as null.
	Columns map[string]string
}

// HostOptions name the backends' own tables of users and sessions; nil is
// public.users and public.sessions (in SQLite users and sessions of the same
// file), where they exist.
//
// Our names of the columns of users are id, email, username, status and
// created_at, of sessions id, user_id, created_at, last_seen_at, user_agent, ip
// and revoked_at. A table without an id, or of sessions without user_id, is as
// good as none.
type HostOptions struct{ Users, Sessions *HostTable }

// hostSchemaAge is how long the catalogue's answer is believed. What the host
// changes is noticed before that when a statement fails by it.
const hostSchemaAge = 10 * time.Second

// hostState is what is known of the host's tables.
type hostState struct {
	options atomic.Pointer[HostOptions]
	schema  atomic.Pointer[hostSchema]
	loading sync.Mutex
	// fault is why the latest look at a user's rows failed; nil: it did not.
	fault atomic.Pointer[hostFault]
}

// SetHost names the host's tables. It takes effect at the next look.
func (s *Store) SetHost(o HostOptions) {
	s.host.options.Store(&o)
	s.host.schema.Store(nil)
}

// hostSchema is what the catalogue says of the host's tables at one moment.
type hostSchema struct {
	at              time.Time
	users, sessions *hostTable // nil: there is none that can be used
	// missing says of each table that is nil why.
	missing map[string]string
}

// hostTable is a table of the host, with the columns that are there.
type hostTable struct {
	name    string // quoted and qualified
	schema  string // quoted; empty: none
	columns map[string]hostColumn
	// deferrable are its constraints that could refuse a row as late as the
	// commit, quoted and qualified.
	deferrable []string
	// condition limits which of its rows count; empty: all.
	condition string
}

// columnClass is how values of a column are compared and written.
type columnClass uint8

const (
	classOther columnClass = iota // compared as text
	classInt
	classUUID
	classText
	classBool
	classEnum
	classTime
	classNaiveTime // without a zone, or a date: UTC
)

// hostColumn is a column of the host; the zero value is one that is not there.
type hostColumn struct {
	name  string // quoted
	typ   string // as it is written in a cast
	class columnClass
	bits  int      // of classInt
	words []string // of classEnum
	// notNull says that every row has a value, so that an order has no place for none.
	notNull bool
	// folds says that texts which differ may be equal (a collation that is not
	// deterministic): Postgres looks for no part of such a text.
	folds bool
}

func (c hostColumn) there() bool { return c.name != "" }

// The host's tables by our names.
const (
	hostUsers    = "users"
	hostSessions = "sessions"
)

// hostColumns are our names of the columns of each table.
func hostColumns(table string) []string {
	if table == hostUsers {
		return []string{"id", "email", "username", "status", "created_at"}
	}
	return []string{"id", "user_id", "created_at", "last_seen_at", "user_agent", "ip", "revoked_at"}
}

// withHost calls f with the host's tables, a second time with what the
// catalogue says now if it failed since the host has changed them.
func (s *Store) withHost(ctx context.Context, f func(*hostSchema) error) error {
	h, err := s.hostSchema(ctx, hostSchemaAge)
	if err != nil {
		return err
	}
	if err = f(h); !hostChanged(err) {
		return err
	}
	if h, err = s.hostSchema(ctx, 0); err != nil {
		return err
	}
	return f(h)
}

// hostSchema is what is known, if it is not older than age, or is asked for.
func (s *Store) hostSchema(ctx context.Context, age time.Duration) (*hostSchema, error) {
	known := s.host.schema.Load()
	if known != nil && time.Since(known.at) < age {
		return known, nil
	}
	s.host.loading.Lock()
	defer s.host.loading.Unlock()
	if now := s.host.schema.Load(); now != known && now != nil {
		return now, nil // somebody else has just asked
	}
	h, err := s.loadHostSchema(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at the host's tables: %w", err)
	}
	s.host.schema.Store(h)
	return h, nil
}

func (s *Store) loadHostSchema(ctx context.Context) (*hostSchema, error) {
	var o HostOptions
	if p := s.host.options.Load(); p != nil {
		o = *p
	}
	h := &hostSchema{at: time.Now(), missing: map[string]string{}}
	for _, t := range []struct {
		ours   string
		option *HostTable
		field  **hostTable
		needed []string
	}{
		{hostUsers, o.Users, &h.users, []string{"id"}},
		{hostSessions, o.Sessions, &h.sessions, []string{"id", "user_id"}},
	} {
		if t.option == nil {
			t.option = &HostTable{Table: t.ours}
		}
		table, err := s.lookUpTable(ctx, t.option, hostColumns(t.ours))
		if err != nil {
			return nil, err
		}
		if why := unusable(table, t.option, t.needed); why != "" {
			h.missing[t.ours] = why
			continue
		}
		*t.field = table
	}
	return h, nil
}

// unusable says why a table cannot serve; empty: it can.
func unusable(t *hostTable, o *HostTable, needed []string) string {
	if t == nil {
		return fmt.Sprintf("there is no table %s that may be read", o.Table)
	}
	for _, ours := range needed {
		if !t.columns[ours].there() {
			return fmt.Sprintf("the table %s has no column %s that may be read", o.Table, o.column(ours))
		}
	}
	return ""
}

func (t *HostTable) column(ours string) string {
	if name := t.Columns[ours]; name != "" {
		return name
	}
	return ours
}

// split is the schema and the name of the table.
func (t *HostTable) split() (schema, name string) {
	schema, name, qualified := strings.Cut(t.Table, ".")
	if !qualified {
		return "public", schema
	}
	return schema, name
}

// hostChanged recognizes what a statement answers when the table is no longer
// as it was: a table, a column or a right is gone, or a type is another.
func hostChanged(err error) bool {
	if err == nil {
		return false
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return slices.Contains([]string{
			"42P01", "42703", "3F000", // undefined table, column, schema
			"42501",                            // insufficient privilege
			"42883", "42804", "42846", "42704", // no such operator, wrong type, no such cast, no such type
			"22P02", "0A000", // text that does not parse, a plan whose result has changed
		}, state.SQLState())
	}
	return strings.Contains(err.Error(), "no such column") || strings.Contains(err.Error(), "no such table")
}

// quoteIdent writes a name as both engines read it literally.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
