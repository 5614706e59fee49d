package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// ErrUserNotFound says that the directory has no such user (404).
var ErrUserNotFound = errors.New("user not found")

// DirectoryUser is a user as the directory knows it: the host's row, with what
// we know of the user beside it.
type DirectoryUser struct {
	// ID is the host's id as text, as tokens carry it.
	ID string
	// Email, Username and HostStatus are the host's, nil where it says nothing.
	Email, Username, HostStatus *string
	// Status is what counts: deleted or suspended by our own records, else the
	// host's word in lower case, else active.
	Status     string
	Superadmin bool
	// Plan and Subscription are as of now; StatusNone: no subscription, the default
	// plan. Plan is empty where the row's plan is unknown.
	Plan         string
	Subscription quota.Status
	CreatedAt    time.Time // zero: unknown
}

// UserFilter selects users. The zero value selects all.
type UserFilter struct {
	// Search is looked for as it stands, in any case of letters, in e-mail and
	// username; an id must be equal to it.
	Search string
	// Status as of DirectoryUser.Status, in any case of letters.
	Status string
	// Plan is the name of the plan that the user has now, the default plan included.
	Plan string
}

// UserPage says which part of a list is wanted, and in which order.
type UserPage struct {
	// Sort is id, email, username or created_at, with - before it for the reverse;
	// empty: -created_at. Users without the value come last. Ties go by id.
	Sort string
	// Limit is 1..200; 0: 50.
	Limit int
	// Skip leaves out so many; After goes on behind the page whose Next it is, and
	// costs the same however far in the list that is. Use one of them.
	Skip  int
	After string
	// NoTotal saves the counting of all that match.
	NoTotal bool
}

// Users is a page of the directory.
type Users struct {
	Users []DirectoryUser
	// Total is how many match the filter; -1: not counted.
	Total int64
	// Next continues the list, see UserPage.After; empty: this was the last page.
	Next string
}

// The bounds of a page.
const (
	defaultPage = 50
	maxPage     = 200
)

// ListUsers is a page of the users that match. The host's own table is the
// directory, or, where it has none, the users that verified tokens have named.
// It answers an *InvalidError for a page that cannot be.
func (s *Companion) ListUsers(ctx context.Context, f UserFilter, p UserPage) (*Users, error) {
	order, err := p.check()
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return nil, err
	}
	var users *Users
	err = s.directory(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries, t *hostTable) error {
		users = &Users{Total: -1}
		plans, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		query := s.newDirectoryQuery(t, plans)
		query.filter(f)
		// What has to be searched through is so once, for the page and the total.
		query.totals = !p.NoTotal && p.After == "" && f != (UserFilter{})
		if !p.NoTotal && !query.totals {
			if err := tx.QueryRowContext(ctx, query.count(), query.args...).Scan(&users.Total); err != nil {
				return fmt.Errorf("counting users: %w", err)
			}
		}
		counted := *query
		text, err := query.page(order, p)
		if err != nil {
			return err
		}
		users.Users, users.Next, err = query.run(ctx, tx, text, order, p.Limit)
		if err != nil || !query.totals {
			return err
		}
		if users.Total = query.total; len(users.Users) == 0 { // behind the end nobody has counted
			return tx.QueryRowContext(ctx, counted.count(), counted.args...).Scan(&users.Total)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing users: %w", err)
	}
	return users, nil
}

// User is one user of the directory, or ErrUserNotFound.
func (s *Companion) User(ctx context.Context, id string) (*DirectoryUser, error) {
	if err := checkID(id); err != nil {
		return nil, fmt.Errorf("loading user: %w: %w", ErrUserNotFound, err)
	}
	var user *DirectoryUser
	err := s.directory(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries, t *hostTable) error {
		var err error
		user, err = s.userIn(ctx, tx, q, t, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading user: %w", err)
	}
	return user, nil
}

// userIn is User within a transaction.
func (s *Companion) userIn(ctx context.Context, tx sqlgen.DBTX, q *sqlgen.Queries, t *hostTable, id string) (*DirectoryUser, error) {
	plans, err := s.loadCatalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	query := s.newDirectoryQuery(t, plans)
	is, ok := query.equals(t.columns["id"], id)
	if !ok {
		return nil, ErrUserNotFound
	}
	query.where = append(query.where, is)
	found, _, err := query.run(ctx, tx, query.selection("NULL")+" LIMIT 1", userOrder{}, 1)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrUserNotFound
	}
	return &found[0], nil
}

// HostSession is a session of the host's that was not revoked.
type HostSession struct {
	ID string
	// UserAgent and IP are nil where the host says nothing.
	UserAgent, IP         *string
	CreatedAt, LastSeenAt time.Time // zero: unknown
}

// maxSessions bounds what UserSessions answers.
const maxSessions = 200

// UserSessions are the user's sessions that were not revoked, the latest first,
// at most 200; none where the host has no table of sessions.
func (s *Companion) UserSessions(ctx context.Context, userID string) ([]HostSession, error) {
	if err := checkID(userID); err != nil {
		return nil, err
	}
	var sessions []HostSession
	err := s.withHost(ctx, func(h *hostSchema) error {
		sessions = nil
		t := h.sessions
		if t == nil {
			return nil
		}
		q := &hostQuery{engine: s.engine}
		is, ok := q.equals(t.columns["user_id"], userID)
		if !ok {
			return nil
		}
		text := "SELECT " + strings.Join([]string{
			q.asText(t.columns["id"]), q.asText(t.columns["user_agent"]), q.asText(t.columns["ip"]),
			q.asText(t.columns["created_at"]), q.asText(t.columns["last_seen_at"]),
		}, ", ") + " FROM " + t.name + " u WHERE " + is + " AND NOT (" + q.revoked(t.columns["revoked_at"]) + ") ORDER BY "
		for _, ours := range []string{"last_seen_at", "created_at"} {
			if c := t.columns[ours]; c.there() {
				text += "u." + c.name + " DESC NULLS LAST, "
			}
		}
		text += "u." + t.columns["id"].name + fmt.Sprintf(" LIMIT %d", maxSessions)
		return s.each(ctx, text, q.args, func(rows *sql.Rows) error {
			var id, agent, ip, created, seen sql.NullString
			err := rows.Scan(&id, &agent, &ip, &created, &seen)
			sessions = append(sessions, HostSession{id.String, pointer(agent), pointer(ip), hostTime(created), hostTime(seen)})
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return sessions, nil
}

func pointer(v sql.NullString) *string {
	if !v.Valid {
		return nil
	}
	return &v.String
}

// Host says where the directory and the sessions are.
type Host struct {
	// Users and Sessions are the tables as they are written in SQL; empty: there
	// is none, and UsersMissing or SessionsMissing says why.
	Users, Sessions               string
	UsersMissing, SessionsMissing string
	// UserColumns and SessionColumns are our names of the columns that were found.
	UserColumns, SessionColumns []string
}

// Host looks at the host's tables anew.
func (s *Companion) Host(ctx context.Context) (*Host, error) {
	h, err := s.hostSchema(ctx, 0)
	if err != nil {
		return nil, err
	}
	found := &Host{UsersMissing: h.missing[hostUsers], SessionsMissing: h.missing[hostSessions]}
	if h.users != nil {
		found.Users, found.UserColumns = h.users.name, h.users.found(hostUsers)
	}
	if h.sessions != nil {
		found.Sessions, found.SessionColumns = h.sessions.name, h.sessions.found(hostSessions)
	}
	return found, nil
}

func (t *hostTable) found(ours string) []string {
	var names []string
	for _, name := range hostColumns(ours) {
		if t.columns[name].there() {
			names = append(names, name)
		}
	}
	return names
}

// directory calls f in a snapshot with the table that is the directory.
func (s *Companion) directory(ctx context.Context, f func(sqlgen.DBTX, *sqlgen.Queries, *hostTable) error) error {
	return s.withHost(ctx, func(h *hostSchema) error {
		t := h.users
		if t == nil {
			t = learnedUsers()
		}
		return s.readTx(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries) error { return f(tx, q, t) })
	})
}

// learnedUsers are the callers that were learned from verified tokens.
func learnedUsers() *hostTable {
	return &hostTable{
		name: "accounts",
		columns: map[string]hostColumn{
			"id": {name: "id", typ: "text", class: classText}, "email": {name: "email", typ: "text", class: classText},
			"created_at": {name: "first_seen_at", typ: "timestamptz", class: classTime, notNull: true},
		},
		condition: "u.kind = 'user'",
	}
}

// hostTime reads what asText makes of an instant, or a number of seconds or
// milliseconds since 1970; zero: it is none of these.
func hostTime(v sql.NullString) time.Time {
	if !v.Valid {
		return time.Time{}
	}
	text := strings.TrimSpace(v.String)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		const inMilliseconds = 100_000_000_000 // as seconds: the year 5138
		if n > inMilliseconds {
			return time.UnixMilli(n).UTC()
		}
		return time.Unix(n, 0).UTC()
	}
	var at column.Time
	if err := at.Scan(text); err != nil {
		return time.Time{}
	}
	return at.Time
}
