package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Admin is a user who may use the admin API.
type Admin struct {
	UserID, Role, GrantedBy string
	GrantedAt               time.Time
}

func adminEvent(action, userID string) AuditEvent {
	return AuditEvent{Action: action, ResourceType: "user", ResourceID: userID, Account: userID}
}

// GrantAdmin makes the user a superadmin; false if they were one.
func (s *Companion) GrantAdmin(ctx context.Context, userID string, by Actor) (bool, error) {
	if err := checkID(userID); err != nil {
		return false, err
	}
	var n int64
	err := s.audited(ctx, by, func(q *sqlgen.Queries, a *auditor) (err error) {
		name := by.ID
		if name == "" {
			name = by.Type
		}
		n, err = q.GrantAdmin(ctx, sqlgen.GrantAdminParams{UserID: userID, GrantedBy: text(name), GrantedAt: column.At(s.now())})
		if n > 0 {
			a.add(adminEvent("admin.granted", userID))
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("granting admin: %w", err)
	}
	return n > 0, nil
}

// RevokeAdmin takes the role away; false if the user did not have it. It answers
// ErrLastSuperadmin rather than leave nobody.
func (s *Companion) RevokeAdmin(ctx context.Context, userID string, by Actor) (bool, error) {
	var n int64
	err := s.audited(ctx, by, func(q *sqlgen.Queries, a *auditor) error {
		now := column.At(s.now())
		if err := q.LockName(ctx, sqlgen.LockNameParams{Name: lockAdmins, ExpiresAt: now}); err != nil {
			return fmt.Errorf("locking the admins: %w", err)
		}
		active, err := q.ActiveAdmins(ctx, now)
		if err != nil {
			return err
		}
		if len(active) == 1 && active[0] == userID {
			return ErrLastSuperadmin
		}
		n, err = q.RevokeAdmin(ctx, userID)
		if n > 0 {
			a.add(adminEvent("admin.revoked", userID))
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("revoking admin: %w", err)
	}
	return n > 0, nil
}

// RevokeAllAdmins takes the role away from everybody, the last one included.
func (s *Companion) RevokeAllAdmins(ctx context.Context, by Actor) (users []string, err error) {
	err = s.audited(ctx, by, func(q *sqlgen.Queries, a *auditor) (err error) {
		users, err = q.RevokeAllAdmins(ctx)
		for _, id := range users {
			a.add(adminEvent("admin.revoked", id))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("revoking all admins: %w", err)
	}
	return users, nil
}

// IsAdmin reports whether the user is a superadmin.
func (s *Companion) IsAdmin(ctx context.Context, userID string) (bool, error) {
	var is bool
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.GetAdmin(ctx, userID))
		is = row != nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking up admin: %w", err)
	}
	return is, nil
}

// ListAdmins are all admins by user id.
func (s *Companion) ListAdmins(ctx context.Context) ([]Admin, error) {
	var admins []Admin
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		rows, err := q.ListAdmins(ctx)
		for _, r := range rows {
			admins = append(admins, Admin{r.UserID, r.Role, r.GrantedBy.String, r.GrantedAt.Time})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing admins: %w", err)
	}
	return admins, nil
}
