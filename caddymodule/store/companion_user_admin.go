package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// UserPatch is what an admin changes of a user. All of it is done, or nothing.
type UserPatch struct {
	Precondition
	// Status is "active" or "suspended"; empty: as it is.
	Status string
	// Plan is the name of the plan that the user gets at once; empty: as it is.
	Plan string
	// Duration is how long the user has it; 0: without end.
	Duration time.Duration
	// Force changes a subscription that Stripe manages.
	Force  bool
	Reason string
}

// PatchUser changes a user. Answers: ErrUserNotFound, ErrSelf, ErrLastSuperadmin,
// ErrNotAdmin, ErrUserDeleted, ErrChanged, ErrPlanNotFound, ErrPlanInactive,
// ErrStripeManaged, *InvalidError.
func (s *Companion) PatchUser(ctx context.Context, by Actor, id string, p UserPatch) (*UserResult, error) {
	switch {
	case p.Status != "" && p.Status != controlActive && p.Status != controlSuspended:
		return nil, invalid("status", "%q is neither active nor suspended", p.Status)
	case p.Duration < 0 || p.Duration > maxDuration:
		return nil, invalid("duration_days", "is outside 0..%d", int64(maxDuration/(24*time.Hour)))
	case p.Duration > 0 && p.Plan == "":
		return nil, invalid("duration_days", "needs a plan_name")
	case len(p.Reason) > MaxReason:
		return nil, invalid("reason", "is longer than %d bytes", MaxReason)
	}
	r, err := s.changeUser(ctx, by, id, p.Precondition, func(ctx context.Context, c *userChange) error {
		if p.Status != "" {
			if err := c.patchStatus(ctx, p); err != nil {
				return err
			}
		}
		if p.Plan != "" {
			return c.patchPlan(ctx, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changing user: %w", err)
	}
	return r, nil
}

func (c *userChange) patchStatus(ctx context.Context, p UserPatch) error {
	before := c.control.State
	suspend := p.Status == controlSuspended
	switch {
	case before == controlDeleted:
		return ErrUserDeleted
	case suspend:
		if err := c.keepAdmins(ctx); err != nil {
			return err
		}
	}
	kept := c.user.HostStatus != nil && KeptOut(*c.user.HostStatus)
	if suspend == c.suspended() && (c.user.HostStatus == nil || kept == suspend) && (!suspend || p.Reason == c.control.Reason.String) {
		return nil // as it was
	}
	words := c.words(p.Status)
	if err := c.setState(ctx, p.Status, p.Reason); err != nil {
		return err
	}
	c.writeStatus(ctx, words)
	action := "user.activated"
	if suspend {
		action = "user.suspended"
	}
	c.record(action, p.Reason, map[string]AuditChange{"status": {before, p.Status}})
	return nil
}

func (c *userChange) patchPlan(ctx context.Context, p UserPatch) error {
	if c.control.State == controlDeleted {
		return ErrUserDeleted
	}
	account := quota.UserSubject(c.user.ID)
	before, err := c.s.accountState(ctx, c.q, account)
	if err != nil {
		return err
	}
	if s := before.Subscription; s != nil && s.Running && s.Plan == p.Plan && s.Source == "manual" && s.ExpiresAt.IsZero() &&
		s.PendingPlan == "" && p.Duration == 0 {
		return nil // as it was
	}
	g := Grant{Plan: p.Plan, Duration: p.Duration, Force: p.Force, By: c.actorName(), Reason: p.Reason}
	sub, err := c.s.upgrade(ctx, c.q, account, g)
	if err != nil {
		return err
	}
	c.result.Changed, c.result.Subscription = true, sub
	changes := map[string]AuditChange{"plan": {before.Plan.Name, p.Plan}}
	if !sub.ExpiresAt.IsZero() {
		changes["expires_at"] = AuditChange{nil, sub.ExpiresAt.UTC().Format(time.RFC3339)}
	}
	c.audit.add(AuditEvent{
		Action: "subscription.granted", ResourceType: "subscription", ResourceID: sub.ID, Account: c.user.ID, Reason: p.Reason,
		Changes: changes, Metadata: map[string]any{"forced": p.Force},
	})
	event := SubscriptionUpdated
	if before.Subscription == nil {
		event = SubscriptionCreated
	}
	c.audit.tell(OutboxEvent{Type: event, Account: c.user.ID, Payload: map[string]any{
		"user_id": c.user.ID, "subscription_id": sub.ID, "plan": p.Plan, "status": sub.Status,
	}})
	return nil
}

// Removal is how a user is deleted. Nothing of what the user has made is removed.
type Removal struct {
	Precondition
	Reason string
	// Seal encrypts the e-mail address, so that a restored user gets it back. nil:
	// the address stays, and cannot be used to register again.
	Seal func(userID, email string) string
}

// RemoveUser keeps a user out as deleted: sessions and the role of an admin end,
// and the e-mail address can be used again. A user who is deleted stays as he is.
// Answers: ErrUserNotFound, ErrSelf, ErrLastSuperadmin, ErrNotAdmin, ErrChanged.
func (s *Companion) RemoveUser(ctx context.Context, by Actor, id string, r Removal) (*UserResult, error) {
	result, err := s.changeUser(ctx, by, id, r.Precondition, func(ctx context.Context, c *userChange) error {
		if err := c.keepAdmins(ctx); err != nil {
			return err
		}
		if c.control.State == controlDeleted {
			return nil
		}
		before := c.control.State
		if err := c.freeEmail(ctx, r.Seal); err != nil {
			return err
		}
		if err := c.setState(ctx, controlDeleted, r.Reason); err != nil {
			return err
		}
		c.writeStatus(ctx, c.words(controlDeleted))
		if err := c.revokeSessions(ctx); err != nil {
			return err
		}
		c.record("user.deleted", r.Reason, map[string]AuditChange{"status": {before, controlDeleted}})
		if err := c.endBilling(ctx); err != nil {
			return err
		}
		n, err := c.q.RevokeAdmin(ctx, c.user.ID)
		if err != nil {
			return fmt.Errorf("revoking admin: %w", err)
		}
		if n > 0 {
			c.audit.add(adminEvent("admin.revoked", c.user.ID))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("deleting user: %w", err)
	}
	return result, nil
}

// endBilling queues whom the user is at the payment provider: what is paid for
// ends there, as soon as the provider can be reached.
func (c *userChange) endBilling(ctx context.Context) error {
	row, err := first(c.q.BillingAccount(ctx, c.user.ID))
	if err != nil {
		return fmt.Errorf("loading the billing account: %w", err)
	}
	if row == nil || row.StripeCustomerID.String == "" {
		return nil
	}
	return enqueue(ctx, c.q, row.StripeCustomerID.String, "user deleted", column.At(c.s.now()))
}

// freeEmail puts another address in the place of the user's, and keeps that
// encrypted. An address that cannot be encrypted stays.
func (c *userChange) freeEmail(ctx context.Context, seal func(userID, email string) string) error {
	email, err := c.email(ctx)
	if err != nil || email == "" {
		return err
	}
	if seal == nil {
		w := notWritten("without an encryption_key the address stays as it is")
		c.result.Email = &w
		return nil
	}
	freed := freedEmail(c.user.ID)
	w := HostWrite{Updated: true}
	if c.hostHasEmails() && email != freed {
		w = c.host.setEmail(ctx, c.user.ID, freed)
	}
	c.result.Email = &w
	if !w.Updated {
		return nil
	}
	if email != freed { // else the address could not be given back, and is kept already
		c.control.OriginalEmail = text(seal(c.user.ID, email))
	}
	return c.setAccountEmail(ctx, sql.NullString{})
}

// hostHasEmails reports whether the host says what a user's address is; else it is
// what tokens have told.
func (c *userChange) hostHasEmails() bool {
	users := c.host.h.users
	return users != nil && users.columns["email"].there()
}

// email is the user's address, empty if none is known.
func (c *userChange) email(ctx context.Context) (string, error) {
	if c.hostHasEmails() {
		if c.user.Email == nil {
			return "", nil
		}
		return *c.user.Email, nil
	}
	row, err := first(c.q.GetAccount(ctx, c.user.ID))
	if err != nil {
		return "", fmt.Errorf("loading account: %w", err)
	}
	if row == nil {
		return "", nil
	}
	return row.Email.String, nil
}

// setAccountEmail writes what was learned from tokens.
func (c *userChange) setAccountEmail(ctx context.Context, email sql.NullString) error {
	if err := c.q.SetAccountEmail(ctx, sqlgen.SetAccountEmailParams{ID: c.user.ID, Email: email}); err != nil {
		return fmt.Errorf("writing accounts: %w", err)
	}
	return nil
}

// freedEmail is the address of a deleted user: nobody's, and unlike every other.
func freedEmail(id string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if len(id) > 48 || strings.Trim(id, letters) != "" {
		sum := sha256.Sum256([]byte(id))
		id = hex.EncodeToString(sum[:16])
	}
	return "deleted_" + id + "@example.com"
}

// Restoration is how a deleted user comes back.
type Restoration struct {
	Precondition
	Reason string
	// Open decrypts what Removal.Seal has made; nil: the address is not given back.
	Open func(userID, sealed string) (string, error)
}

// RestoreUser lets a deleted user in again, with the status and the e-mail
// address from before, if nobody else has that by now. Tokens that were revoked
// stay so, and so does the role of an admin. A user who is not deleted stays as
// he is, but for an address that could not be given back before and can be now.
// Answers: ErrUserNotFound, ErrChanged.
func (s *Companion) RestoreUser(ctx context.Context, by Actor, id string, r Restoration) (*UserResult, error) {
	result, err := s.changeUser(ctx, by, id, r.Precondition, func(ctx context.Context, c *userChange) error {
		if c.control.State != controlDeleted {
			return c.returnKept(ctx, r)
		}
		if err := c.returnEmail(ctx, r.Open); err != nil {
			return err
		}
		words := c.words(controlActive)
		if err := c.setState(ctx, controlActive, r.Reason); err != nil {
			return err
		}
		c.writeStatus(ctx, words)
		c.record("user.restored", r.Reason, map[string]AuditChange{"status": {controlDeleted, controlActive}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("restoring user: %w", err)
	}
	return result, nil
}

func (c *userChange) returnEmail(ctx context.Context, open func(userID, sealed string) (string, error)) error {
	if !c.control.OriginalEmail.Valid {
		return nil
	}
	var w HostWrite
	c.result.Email = &w
	if open == nil {
		w = notWritten("without the encryption_key the address cannot be read")
		return nil
	}
	email, err := open(c.user.ID, c.control.OriginalEmail.String)
	if err != nil {
		w = notWritten("the address cannot be decrypted: %v", err)
		return nil
	}
	if w.Updated = true; c.hostHasEmails() {
		w = c.host.setEmail(ctx, c.user.ID, email)
	}
	if !w.Updated {
		return nil // it is kept, and can be given back later
	}
	c.control.OriginalEmail = text("")
	return c.setAccountEmail(ctx, text(email))
}

// returnKept gives a restored user the address that somebody else had when the
// user was restored, unless the user has chosen another since.
func (c *userChange) returnKept(ctx context.Context, r Restoration) error {
	present, err := c.email(ctx)
	if err != nil || present != freedEmail(c.user.ID) {
		return err
	}
	if err := c.returnEmail(ctx, r.Open); err != nil {
		return err
	}
	if c.result.Email == nil || !c.result.Email.Updated {
		return nil
	}
	c.result.Changed = true
	c.record("user.email_returned", r.Reason, nil)
	return c.putControl(ctx)
}

// LogOutUser refuses all tokens of the user that were issued up to now, and marks
// the host's sessions as revoked. Answers: ErrUserNotFound, ErrChanged.
func (s *Companion) LogOutUser(ctx context.Context, by Actor, id, reason string, p Precondition) (*UserResult, error) {
	r, err := s.changeUser(ctx, by, id, p, func(ctx context.Context, c *userChange) error {
		if err := c.revokeSessions(ctx); err != nil {
			return err
		}
		c.record("user.sessions_revoked", reason, map[string]AuditChange{"sessions": {c.result.Sessions, 0}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("revoking sessions: %w", err)
	}
	return r, nil
}

// NoteClearing records that counters of the user are about to be emptied, of the
// named scopes or of all.
func (s *Companion) NoteClearing(ctx context.Context, by Actor, id, reason string, scopes []string) error {
	_, err := s.changeUser(ctx, by, id, Precondition{}, func(_ context.Context, c *userChange) error {
		c.audit.add(AuditEvent{
			Action: "user.rate_limits_clearing", ResourceType: "user", ResourceID: c.user.ID, Account: c.user.ID, Reason: reason,
			Metadata: map[string]any{"scopes": scopes},
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting that limits are cleared: %w", err)
	}
	return nil
}

// NoteCleared records that counters of the user were emptied, and tells every
// gateway to look again.
func (s *Companion) NoteCleared(ctx context.Context, by Actor, id, reason string, scopes, keys []string) error {
	_, err := s.changeUser(ctx, by, id, Precondition{}, func(ctx context.Context, c *userChange) error {
		err := c.q.TouchControl(ctx, sqlgen.TouchControlParams{UserID: c.user.ID, UpdatedBy: text(c.actorName()), UpdatedAt: c.now})
		if err != nil {
			return fmt.Errorf("writing user_controls: %w", err)
		}
		c.audit.add(AuditEvent{
			Action: "user.rate_limits_cleared", ResourceType: "user", ResourceID: c.user.ID, Account: c.user.ID, Reason: reason,
			Metadata: map[string]any{"scopes": scopes, "host_scopes": keys},
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting cleared limits: %w", err)
	}
	return nil
}
