package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Entitlement is what the account may do now, from one snapshot, and what the
// host's own tables say of a user. An account without any row has the default plan. It answers a *RowError where a row
// cannot be enforced as written, ErrNoDefaultPlan where there is no plan to fall
// back to, and a *SchemaError.
func (s *Store) Entitlement(ctx context.Context, account quota.Subject) (*quota.Entitlement, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	var e *quota.Entitlement
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		v, err := s.view(ctx, q, account, s.now())
		if err == nil {
			e = v.entitlement
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading entitlement: %w", err)
	}
	if account.Kind() == kindUser {
		s.applyHost(ctx, e)
	}
	return e, nil
}

// view is everything that one snapshot says of an account.
type view struct {
	now         time.Time
	catalogue   *catalogue
	row         *sqlgen.Subscription // nil: none
	standing    standing
	planRow     *sqlgen.SubscriptionPlan
	entitlement *quota.Entitlement
}

func (s *Store) view(ctx context.Context, q *sqlgen.Queries, account quota.Subject, now time.Time) (*view, error) {
	version, err := q.LatestChange(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading changes: %w", err)
	}
	v := &view{now: now}
	if v.catalogue, err = s.loadCatalogue(ctx, q); err != nil {
		return nil, err
	}
	if v.row, err = s.currentRow(ctx, q, account); err != nil {
		return nil, err
	}
	v.standing = judge(v.row, now, s.grace)
	if v.planRow, err = v.catalogue.rowOf(v.standing.planID); err != nil {
		return nil, err
	}
	plan, err := v.catalogue.decode(v.planRow)
	if err != nil {
		return nil, err
	}
	v.entitlement = &quota.Entitlement{
		Account: account, Plan: plan, Status: v.standing.status, ValidUntil: v.standing.changes,
		CurrentPeriodEnd: periodEnd(v.row, v.standing),
		Anchor:           anchor(v.row), Counted: v.catalogue.counted, Version: version,
	}
	if err := applyOverrides(ctx, q, v); err != nil {
		return nil, err
	}
	if account.Kind() == kindUser {
		err = applyControl(ctx, q, v.entitlement, now)
	}
	return v, err
}

// periodEnd is when the period ends that the subscription is in; zero: there is
// no subscription, or it has no end.
func periodEnd(row *sqlgen.Subscription, st standing) time.Time {
	switch {
	case row == nil:
		return time.Time{}
	case st.pendingDue:
		return row.PendingPeriodEnd.Time
	}
	return row.CurrentPeriodEnd.Time
}

// currentRow is the account's current subscription, nil if it has none.
func (s *Store) currentRow(ctx context.Context, q *sqlgen.Queries, account quota.Subject) (*sqlgen.Subscription, error) {
	row, err := first(q.CurrentSubscription(ctx, account.ID()))
	if err != nil {
		return nil, fmt.Errorf("loading subscriptions, account %s: %w", account.ID(), err)
	}
	if row == nil {
		return nil, nil
	}
	return row, checkSubscription(row)
}

// user_controls.state
const (
	controlActive    = "active"
	controlSuspended = "suspended"
	controlDeleted   = "deleted"
)

// applyControl reads what admins decided about the user.
func applyControl(ctx context.Context, q *sqlgen.Queries, e *quota.Entitlement, now time.Time) error {
	user := e.Account.ID()
	row, err := first(q.GetControl(ctx, user))
	if err != nil {
		return fmt.Errorf("loading user_controls, user %s: %w", user, err)
	}
	if row != nil {
		e.TokensValidAfter = row.TokensValidAfter.Time
		until := row.Until.Time
		switch row.State {
		case controlSuspended:
			if until.IsZero() || now.Before(until) {
				e.Control = quota.ControlSuspended
				e.ValidUntil = earliest(e.ValidUntil, until)
			}
		case controlDeleted:
			e.Control = quota.ControlDeleted
		case controlActive:
		default:
			return &RowError{"user_controls", user, "state", invalid("state", "unknown state %q", row.State)}
		}
	}
	sessions, err := q.ListRevokedSessions(ctx, user)
	if err != nil {
		return fmt.Errorf("loading revoked_sessions, user %s: %w", user, err)
	}
	if len(sessions) > 0 {
		e.RevokedSessions = make(map[string]struct{}, len(sessions))
		for _, id := range sessions {
			e.RevokedSessions[id] = struct{}{}
		}
	}
	return nil
}

// The kinds of accounts.
const (
	kindUser = "user"
	kindOrg  = "org"
)

// maxID is the longest user or organization id, in bytes.
const maxID = 255

// checkAccount accepts the subjects that can pay: users and organizations.
func checkAccount(account quota.Subject) error {
	if kind := account.Kind(); kind != kindUser && kind != kindOrg {
		return invalid("account", "%q is neither a user nor an organization", account)
	}
	return checkID(account.ID())
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return invalid("id", "want 1 to %d bytes, got %d", maxID, len(id))
	}
	if !isText(id) {
		return invalid("id", "contains a zero byte, or is not UTF-8")
	}
	return nil
}

// subjectOf is the inverse of Subject.ID for a kind as it stands in accounts;
// an account that was never seen counts as a user.
func subjectOf(kind, id string) quota.Subject {
	if kind == kindOrg {
		return quota.OrgSubject(id)
	}
	return quota.UserSubject(id)
}

// isText reports whether Postgres has such a text.
func isText(text string) bool { return !strings.ContainsRune(text, 0) && utf8.ValidString(text) }
