package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Suspension says why and until when a user is kept out.
type Suspension struct {
	Until      time.Time // zero: until reinstated
	Reason, By string
}

// SuspendUser keeps a user out, whatever token is shown, until the suspension
// ends or ReinstateUser is called.
func (s *Companion) SuspendUser(ctx context.Context, userID string, u Suspension) error {
	if !u.Until.IsZero() && !u.Until.After(s.now()) {
		return invalid("until", "is in the past")
	}
	return s.setControl(ctx, userID, controlSuspended, u)
}

// DeleteUser keeps a user out as deleted. Nothing is removed.
func (s *Companion) DeleteUser(ctx context.Context, userID, reason, by string) error {
	return s.setControl(ctx, userID, controlDeleted, Suspension{Reason: reason, By: by})
}

// ReinstateUser lets a suspended or deleted user in again. Tokens that were
// revoked stay so.
func (s *Companion) ReinstateUser(ctx context.Context, userID, by string) error {
	return s.setControl(ctx, userID, controlActive, Suspension{By: by})
}

func (s *Companion) setControl(ctx context.Context, userID, state string, u Suspension) error {
	if err := checkID(userID); err != nil {
		return err
	}
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.PutControlState(ctx, sqlgen.PutControlStateParams{
			UserID: userID, State: state, Reason: text(u.Reason), Until: column.At(u.Until),
			UpdatedBy: text(u.By), UpdatedAt: column.At(s.now()),
		})
	})
	if err != nil {
		return fmt.Errorf("setting user state: %w", err)
	}
	return nil
}

// RevokeSessions refuses all tokens of the user that were issued up to now.
func (s *Companion) RevokeSessions(ctx context.Context, userID, by string) error {
	if err := checkID(userID); err != nil {
		return err
	}
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.PutTokensValidAfter(ctx, sqlgen.PutTokensValidAfterParams{
			UserID: userID, TokensValidAfter: column.At(s.now()), UpdatedBy: text(by),
		})
	})
	if err != nil {
		return fmt.Errorf("revoking sessions: %w", err)
	}
	return nil
}

// RevokeSession refuses the tokens of one session, where tokens name theirs.
func (s *Companion) RevokeSession(ctx context.Context, userID, sessionID string) error {
	if err := checkID(userID); err != nil {
		return err
	}
	if sessionID == "" {
		return invalid("session_id", "is empty")
	}
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.RevokeSession(ctx, sqlgen.RevokeSessionParams{
			SessionID: sessionID, UserID: userID, RevokedAt: column.At(s.now()),
		})
	})
	if err != nil {
		return fmt.Errorf("revoking session: %w", err)
	}
	return nil
}

// UserControl is what admins decided about a user.
type UserControl struct {
	State            quota.Control // as of now: a suspension that ended is ControlActive
	Reason           string
	Until            time.Time // zero: no end
	TokensValidAfter time.Time // zero: never revoked
	UpdatedBy        string
	UpdatedAt        time.Time
}

// UserControl is the state of a user; nil if nobody ever decided anything.
func (s *Companion) UserControl(ctx context.Context, userID string) (*UserControl, error) {
	if err := checkID(userID); err != nil {
		return nil, err
	}
	var c *UserControl
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.GetControl(ctx, userID))
		if err != nil || row == nil {
			return err
		}
		e := &quota.Entitlement{Account: quota.UserSubject(userID)}
		if err := applyControl(ctx, q, e, s.now()); err != nil {
			return err
		}
		c = &UserControl{
			State: e.Control, Reason: row.Reason.String, Until: row.Until.Time, TokensValidAfter: row.TokensValidAfter.Time,
			UpdatedBy: row.UpdatedBy.String, UpdatedAt: row.UpdatedAt.Time,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("loading user control: %w", err)
	}
	return c, nil
}
