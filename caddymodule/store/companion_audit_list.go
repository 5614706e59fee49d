package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// AuditEntry is an event as it stands in the audit log.
type AuditEntry struct {
	Seq                                          int64
	ID                                           string
	ActorType, ActorID, ActorLabel, Impersonator string
	Action, ResourceType, ResourceID, Account    string
	Outcome, Reason                              string
	Changes, Metadata                            string // JSON objects
	IP, UserAgent, RequestID                     string
	PrevHash, Hash                               string
	CreatedAt                                    time.Time
}

// AuditFilter narrows ListAudit; what is empty narrows nothing.
type AuditFilter struct {
	// User did it, or it concerns the account or user with that id.
	User string
	// Action is the whole word of an action.
	Action   string
	From, To time.Time // To is exclusive
}

// AuditPage says which part of the log is wanted.
type AuditPage struct {
	// Limit is 1..MaxAudit.
	Limit int
	// Skip leaves out so many; After goes on behind the page whose Next it is. Use
	// one of them.
	Skip  int64
	After string
}

// MaxAudit bounds a page of the audit log.
const MaxAudit = 10_000

// AuditList is a page of the audit log, the newest event first.
type AuditList struct {
	Entries []AuditEntry
	Total   int64 // how many match the filter
	// Next continues the list; empty: this was the last page.
	Next string
}

// ListAudit is a page of the events that match. It answers an *InvalidError for
// a page that cannot be.
func (s *Companion) ListAudit(ctx context.Context, f AuditFilter, p AuditPage) (*AuditList, error) {
	if p.Limit < 1 || p.Limit > MaxAudit {
		return nil, invalid("limit", "want 1 to %d, got %d", MaxAudit, p.Limit)
	}
	if p.Skip < 0 || p.Skip > 0 && p.After != "" {
		return nil, invalid("skip", "want 0 or more, and not together with a cursor")
	}
	for field, text := range map[string]string{"user_id": f.User, "action": f.Action} {
		if text != "" && checkID(text) != nil {
			return nil, invalid(field, "is too long, or no text")
		}
	}
	var before int64
	if p.After != "" {
		var err error
		if before, err = strconv.ParseInt(p.After, 10, 64); err != nil || before < 1 || strconv.FormatInt(before, 10) != p.After {
			return nil, errCursor()
		}
	}
	var list *AuditList
	err := s.readTx(ctx, func(tx sqlgen.DBTX, _ *sqlgen.Queries) error {
		list = &AuditList{}
		q := &auditQuery{hostQuery: hostQuery{engine: s.engine}}
		q.filter(f)
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM audit_events e"+q.condition(), q.args...).Scan(&list.Total); err != nil {
			return fmt.Errorf("counting events: %w", err)
		}
		if before > 0 {
			q.where = append(q.where, "e.seq < "+q.number(before))
		}
		return q.run(ctx, tx, list, p)
	})
	if err != nil {
		return nil, fmt.Errorf("listing the audit log: %w", err)
	}
	return list, nil
}

// auditQuery is made of the conditions that were asked for alone, so that an
// index serves each.
type auditQuery struct {
	hostQuery
	where []string
}

func (q *auditQuery) number(n int64) string {
	if q.engine == SQLite {
		return q.arg(n)
	}
	return "CAST(" + q.arg(n) + " AS bigint)"
}

func (q *auditQuery) filter(f AuditFilter) {
	if f.User != "" {
		id := q.text(f.User)
		q.where = append(q.where, "(e.account_id = "+id+" OR e.actor_id = "+id+")")
	}
	if f.Action != "" {
		q.where = append(q.where, "e.action = "+q.text(f.Action))
	}
	if !f.From.IsZero() {
		q.where = append(q.where, "e.created_at >= "+q.instant(f.From))
	}
	if !f.To.IsZero() {
		q.where = append(q.where, "e.created_at < "+q.instant(f.To))
	}
}

func (q *auditQuery) condition() string {
	if len(q.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(q.where, " AND ")
}

func (q *auditQuery) run(ctx context.Context, tx sqlgen.DBTX, list *AuditList, p AuditPage) (err error) {
	// One more than asked for shows whether there is a next page.
	text := "SELECT e.seq, e.id, e.actor_type, e.actor_id, e.actor_label, e.impersonator_id, e.action, e.resource_type, e.resource_id," +
		" e.account_id, e.outcome, e.reason, e.changes, e.metadata, e.ip_address, e.user_agent, e.request_id, e.prev_hash, e.hash, e.created_at" +
		" FROM audit_events e" + q.condition() + " ORDER BY e.seq DESC LIMIT " + strconv.Itoa(p.Limit+1)
	if p.Skip > 0 {
		text += " OFFSET " + q.number(p.Skip)
	}
	rows, err := tx.QueryContext(ctx, text, q.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if len(list.Entries) == p.Limit {
			list.Next = strconv.FormatInt(list.Entries[p.Limit-1].Seq, 10)
			break
		}
		var e AuditEntry
		var at column.Time
		err := rows.Scan(&e.Seq, &e.ID, &e.ActorType, &e.ActorID, &e.ActorLabel, &e.Impersonator, &e.Action, &e.ResourceType, &e.ResourceID,
			&e.Account, &e.Outcome, &e.Reason, &e.Changes, &e.Metadata, &e.IP, &e.UserAgent, &e.RequestID, &e.PrevHash, &e.Hash, &at)
		if err != nil {
			return fmt.Errorf("reading an event: %w", err)
		}
		e.CreatedAt = at.Time
		list.Entries = append(list.Entries, e)
	}
	return rows.Err()
}
