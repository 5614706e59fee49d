package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// The kinds of actors. Others may be used; none is empty.
const (
	ActorUser   = "user"   // whoever the token names
	ActorCLI    = "cli"    // an operator with a command of `caddy quota`
	ActorSystem = "system" // Quotagate itself
)

// Actor is who does something, and from where: what the audit log says of it.
type Actor struct {
	Type string // empty: ActorSystem
	ID   string // of a user: as tokens name it
	// Label is what people call the actor: an e-mail address, a login name.
	Label string
	// Bootstrap: the config makes the actor an admin, whatever the table of admins says.
	Bootstrap bool
	// Impersonator is the admin who acts as the user ID.
	Impersonator string
	IP           string
	UserAgent    string
	// RequestID finds the request in the log.
	RequestID string
	// Request is the idempotency key that the request holds, nil for none: it is
	// marked as done in the transaction of whatever is audited.
	Request *IdempotentRequest
}

// outcomeSuccess is the outcome of whatever is audited: what is refused changes nothing.
const outcomeSuccess = "success"

// AuditChange is one field before and after. Both end as JSON in the log, which
// is never altered: no secret belongs here.
type AuditChange struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// AuditEvent is one thing that was done.
type AuditEvent struct {
	// Action is what was done, as "<resource>.<verb in the past>": user.suspended.
	Action                   string
	ResourceType, ResourceID string
	// Account is the user or organization id that it concerns; empty: none.
	Account  string
	Reason   string
	Changes  map[string]AuditChange
	Metadata map[string]any
}

// auditor collects what a transaction does. It is written as the transaction's
// last statements: the lock that orders the log is held briefly, and nobody waits
// for another row while he holds it.
type auditor struct {
	actor  Actor
	events []AuditEvent
	outbox []OutboxEvent
}

// add notes an event.
func (a *auditor) add(e AuditEvent) { a.events = append(a.events, e) }

// tell notes an event for others.
func (a *auditor) tell(e OutboxEvent) { a.outbox = append(a.outbox, e) }

// audited is write for what the audit log records: f notes what it does, and that
// is appended in the same transaction. Nothing is appended where f notes nothing.
func (s *Companion) audited(ctx context.Context, by Actor, f func(q *sqlgen.Queries, a *auditor) error) error {
	return s.write(ctx, func(q *sqlgen.Queries) error {
		a := &auditor{actor: by}
		if err := f(q, a); err != nil {
			return err
		}
		return s.appendAudit(ctx, q, a)
	})
}

// auditedHost is audited for services that write the host's rows too.
func (s *Companion) auditedHost(ctx context.Context, by Actor, f func(q *sqlgen.Queries, host *hostTx, a *auditor) error) error {
	return s.writeHost(ctx, func(q *sqlgen.Queries, host *hostTx) error {
		a := &auditor{actor: by}
		if err := f(q, host, a); err != nil {
			return err
		}
		return s.appendAudit(ctx, q, a)
	})
}

// appendAudit writes what was noted. It must be the transaction's last act.
func (s *Companion) appendAudit(ctx context.Context, q *sqlgen.Queries, a *auditor) error {
	if err := s.commitRequest(ctx, q, a.actor.Request); err != nil {
		return err
	}
	if err := s.putOutbox(ctx, q, a.outbox); err != nil {
		return err
	}
	for _, e := range a.events {
		head, err := q.AdvanceAuditHead(ctx)
		if err != nil {
			return fmt.Errorf("locking the audit log: %w", err)
		}
		row, err := auditRow(a.actor, e, s.now())
		if err != nil {
			return err
		}
		row.Seq, row.PrevHash = head.Seq, head.Hash
		row.Hash = auditHash(row)
		if err := q.AppendAudit(ctx, sqlgen.AppendAuditParams(*row)); err != nil {
			return fmt.Errorf("appending to the audit log: %w", err)
		}
		if err := q.SetAuditHead(ctx, row.Hash); err != nil {
			return fmt.Errorf("advancing the audit log: %w", err)
		}
	}
	return nil
}

// auditRow is the row of an event, without its place in the chain.
func auditRow(by Actor, e AuditEvent, now time.Time) (*sqlgen.AuditEvent, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	row := &sqlgen.AuditEvent{
		ID: id, ActorType: cleanText(by.Type, maxAuditText), ActorID: cleanText(by.ID, maxAuditText),
		ActorLabel: cleanText(by.Label, maxAuditText), ImpersonatorID: cleanText(by.Impersonator, maxAuditText),
		Action: e.Action, ResourceType: e.ResourceType, ResourceID: cleanText(e.ResourceID, maxAuditText),
		AccountID: cleanText(e.Account, maxAuditText), Outcome: outcomeSuccess, Reason: cleanText(e.Reason, MaxReason),
		IpAddress: cleanText(by.IP, maxAuditText), UserAgent: cleanText(by.UserAgent, maxAuditText),
		RequestID: cleanText(by.RequestID, maxAuditText), Changes: "{}", Metadata: "{}", CreatedAt: column.At(now),
	}
	if row.ActorType == "" {
		row.ActorType = ActorSystem
	}
	if len(e.Changes) > 0 {
		if row.Changes, err = encode(e.Changes); err != nil {
			return nil, fmt.Errorf("encoding audited changes: %w", err)
		}
	}
	if len(e.Metadata) > 0 {
		if row.Metadata, err = encode(e.Metadata); err != nil {
			return nil, fmt.Errorf("encoding audit metadata: %w", err)
		}
	}
	return row, nil
}

// The bounds of texts that others send us, in bytes.
const (
	maxAuditText = 512
	// MaxReason bounds the reason that an admin gives.
	MaxReason = 2000
)

// cleanText is what both engines can keep of a text: Postgres takes neither a
// zero byte nor invalid UTF-8.
func cleanText(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}

// said is a reason as a column has it.
func said(reason string) sql.NullString { return text(cleanText(reason, MaxReason)) }

// auditGenesis is the hash before the first event.
const auditGenesis = "0000000000000000000000000000000000000000000000000000000000000000"

// auditHash is the SHA-256 over everything in a row but the hash itself. Each
// field is preceded by its length, so that no text can pass for two.
func auditHash(r *sqlgen.AuditEvent) string {
	h := sha256.New()
	var n [8]byte
	number := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	number(uint64(r.Seq)) // above 0 by the table's check, and any other value changes the hash
	for _, field := range [...]string{
		r.PrevHash, r.ID, r.ActorType, r.ActorID, r.ActorLabel, r.ImpersonatorID, r.Action, r.ResourceType, r.ResourceID,
		r.AccountID, r.Outcome, r.Reason, r.Changes, r.Metadata, r.IpAddress, r.UserAgent, r.RequestID,
		r.CreatedAt.UTC().Format(column.Layout),
	} {
		number(uint64(len(field)))
		h.Write([]byte(field))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// AuditHead is the newest event of the audit log: who knows it can tell whether
// anything before it was tampered with.
type AuditHead struct {
	Seq  int64  // 0: there is none yet
	Hash string // lower-case hexadecimal
}

// String is the head as `caddy quota audit verify --head` takes it.
func (h AuditHead) String() string { return fmt.Sprintf("%d:%s", h.Seq, h.Hash) }

// AuditHead is the newest event.
func (s *Companion) AuditHead(ctx context.Context) (AuditHead, error) {
	var head AuditHead
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := q.AuditHead(ctx)
		head = AuditHead{row.Seq, row.Hash}
		return err
	})
	if err != nil {
		return head, fmt.Errorf("reading the audit log's head: %w", err)
	}
	return head, nil
}
