package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const (
	// hostPatience bounds the look at a user's rows: a table that the host has
	// locked must not keep anybody from what our own rows say.
	hostPatience = 500 * time.Millisecond
	// hostAgain is when a look that failed is tried again.
	hostAgain = 2 * time.Second
	// maxRevoked is how many of a user's revoked sessions are known, the latest.
	maxRevoked = 1000
)

// hostFault is a look at the host's rows that failed.
type hostFault struct {
	at  time.Time
	err error
}

// keptOut are the words of the host's status by which a user is refused. False is
// what a column that only says yes or no says.
func keptOut() []string {
	return []string{"suspended", "inactive", "disabled", "deactivated", "blocked", "banned", "deleted", "removed", "closed", "false"}
}

// KeptOut reports whether a user whose status the host writes so is refused.
func KeptOut(status string) bool {
	return slices.Contains(keptOut(), strings.ToLower(strings.TrimSpace(status)))
}

// applyHost adds what the host's tables say of a user. Where they cannot be read
// the entitlement stands as our own rows have it, and is soon loaded again.
func (s *Store) applyHost(ctx context.Context, e *quota.Entitlement) {
	if f := s.host.fault.Load(); f == nil || time.Since(f.at) >= hostAgain {
		asking, cancel := context.WithTimeout(ctx, hostPatience)
		defer cancel()
		err := s.withHost(asking, func(h *hostSchema) error { return s.readHost(asking, h, e) })
		if err == nil {
			s.host.fault.Store(nil)
			return
		}
		if ctx.Err() == nil {
			s.host.fault.Store(&hostFault{time.Now(), err})
		}
	}
	e.ValidUntil = earliest(e.ValidUntil, s.now().Add(hostAgain))
}

// readHost reads the user's status and revoked sessions in one statement.
func (s *Store) readHost(ctx context.Context, h *hostSchema, e *quota.Entitlement) error {
	q := &hostQuery{engine: s.engine}
	var parts []string
	if t := h.users; t != nil && t.columns["status"].there() {
		if is, ok := q.equals(t.columns["id"], e.Account.ID()); ok {
			parts = append(parts, "SELECT 0 AS kind, "+q.status(t.columns["status"])+" AS said FROM "+t.name+" u WHERE "+is)
		}
	}
	if t := h.sessions; t != nil && t.columns["revoked_at"].there() {
		if is, ok := q.equals(t.columns["user_id"], e.Account.ID()); ok {
			revoked := t.columns["revoked_at"]
			parts = append(parts, fmt.Sprintf(
				"SELECT 1 AS kind, said FROM (SELECT %s AS said FROM %s u WHERE %s AND %s ORDER BY u.%s DESC LIMIT %d) latest",
				q.asText(t.columns["id"]), t.name, is, q.revoked(revoked), revoked.name, maxRevoked))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return s.each(ctx, strings.Join(parts, " UNION ALL "), q.args, func(rows *sql.Rows) error {
		var kind int
		var said sql.NullString
		if err := rows.Scan(&kind, &said); err != nil {
			return err
		}
		switch {
		case kind == 1 && said.Valid:
			if e.RevokedSessions == nil {
				e.RevokedSessions = map[string]struct{}{}
			}
			e.RevokedSessions[said.String] = struct{}{}
		case kind == 0 && e.Control == quota.ControlActive && KeptOut(said.String):
			e.Control = quota.ControlSuspended
		}
		return nil
	})
}

// HostFault is why the host's rows cannot be read at the moment; nil: they can,
// or there are none.
func (s *Store) HostFault() error {
	f := s.host.fault.Load()
	switch {
	case f == nil:
		return nil
	case errors.Is(f.err, context.DeadlineExceeded):
		return fmt.Errorf("reading the host's tables: no answer within %s: is one of them locked?", hostPatience)
	}
	return fmt.Errorf("reading the host's tables: %w", f.err)
}
