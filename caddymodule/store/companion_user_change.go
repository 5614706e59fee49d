package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// UserResult is what became of an admin's decision about a user.
type UserResult struct {
	// UserID is the id as the directory writes it.
	UserID string
	// Changed: it was not so before.
	Changed bool
	// Host is what became of the host's own row, nil if it was not to be written:
	// that it refuses is no error.
	Host *HostWrite
	// Sessions is how many of the host's sessions were revoked.
	Sessions int64
	// Email says what became of the e-mail address, nil if nothing was to be done.
	Email *HostWrite
	// Subscription is the new one where the plan was changed.
	Subscription *Subscription
}

// Precondition says when a change is not made.
type Precondition struct {
	// Matches is asked for the version of what is there, see UserDetail; nil: any.
	Matches func(version string) bool
	// DryRun makes the change and takes it back: the result says what would become of it.
	DryRun bool
}

// errDryRun takes back what was only tried.
var errDryRun = errors.New("dry run")

// lockAdmins is held by whatever may leave nobody to administer.
const lockAdmins = "admins"

// userChange is one change within its transaction.
type userChange struct {
	s       *Companion
	q       *sqlgen.Queries
	host    *hostTx
	audit   *auditor
	by      Actor
	now     column.Time
	user    *DirectoryUser
	control sqlgen.UserControl
	result  UserResult
}

// changeUser finds the user, makes changes of it queue, and calls f.
func (s *Companion) changeUser(ctx context.Context, by Actor, id string, p Precondition, f func(context.Context, *userChange) error) (*UserResult, error) {
	if err := checkID(id); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUserNotFound, err)
	}
	var c *userChange
	err := s.auditedHost(ctx, by, func(q *sqlgen.Queries, host *hostTx, a *auditor) error {
		c = &userChange{s: s, q: q, host: host, audit: a, by: by, now: column.At(s.now())}
		if err := c.lock(ctx, id); err != nil {
			return err
		}
		if p.Matches != nil {
			version, err := s.userVersion(ctx, q, c.user, &c.control)
			if err != nil {
				return err
			}
			if !p.Matches(version) {
				return ErrChanged
			}
		}
		if err := f(ctx, c); err != nil {
			return err
		}
		if p.DryRun {
			return errDryRun
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return &c.result, nil
}

// lock reads the user as the change before left it.
func (c *userChange) lock(ctx context.Context, id string) (err error) {
	directory := c.host.h.users
	if directory == nil {
		directory = learnedUsers()
	}
	// The host compares ids in its own type: what counts is how it writes this one.
	if c.user, err = c.s.userIn(ctx, c.host.tx, c.q, directory, id); err != nil {
		return err
	}
	id = c.user.ID
	if err = c.q.LockAccount(ctx, sqlgen.LockAccountParams{ID: id, Kind: kindUser, FirstSeenAt: c.now}); err != nil {
		return fmt.Errorf("locking account: %w", err)
	}
	if c.user, err = c.s.userIn(ctx, c.host.tx, c.q, directory, id); err != nil {
		return err
	}
	row, err := first(c.q.GetWholeControl(ctx, id))
	if err != nil {
		return fmt.Errorf("loading user_controls: %w", err)
	}
	c.control = sqlgen.UserControl{UserID: id, State: controlActive}
	if row != nil {
		c.control = *row
	}
	c.result.UserID = id
	return nil
}

// suspended reports whether our own records keep the user out as suspended now.
func (c *userChange) suspended() bool {
	return c.control.State == controlSuspended && (c.control.Until.IsZero() || c.now.Before(c.control.Until.Time))
}

// keepAdmins refuses what would leave nobody to administer: an admin who locks
// himself out, the last superadmin, two who lock out each other.
func (c *userChange) keepAdmins(ctx context.Context) error {
	if c.by.Type == ActorUser && c.by.ID == c.user.ID {
		return ErrSelf
	}
	if err := c.q.LockName(ctx, sqlgen.LockNameParams{Name: lockAdmins, ExpiresAt: c.now}); err != nil {
		return fmt.Errorf("locking the admins: %w", err)
	}
	active, err := c.q.ActiveAdmins(ctx, c.now)
	if err != nil {
		return fmt.Errorf("listing admins: %w", err)
	}
	switch {
	case c.by.Bootstrap:
		return c.keepBootstrap(ctx)
	case c.by.Type == ActorUser && !slices.Contains(active, c.by.ID):
		return ErrNotAdmin
	case len(active) == 1 && active[0] == c.user.ID:
		return ErrLastSuperadmin
	}
	return nil
}

// keepBootstrap refuses an admin of the config who was locked out meanwhile: of two
// who do it to each other one remains.
func (c *userChange) keepBootstrap(ctx context.Context) error {
	row, err := first(c.q.GetWholeControl(ctx, c.by.ID))
	if err != nil {
		return fmt.Errorf("loading user_controls: %w", err)
	}
	by := &userChange{now: c.now}
	if row != nil {
		by.control = *row
	}
	if by.control.State == controlDeleted || by.suspended() {
		return ErrNotAdmin
	}
	return nil
}

// setState writes our own decision, which the gateways enforce.
func (c *userChange) setState(ctx context.Context, state, reason string) error {
	if c.control.State == controlActive && state != controlActive {
		c.control.PreviousStatus = text("")
		if s := c.user.HostStatus; s != nil && !KeptOut(*s) {
			c.control.PreviousStatus = text(*s)
		}
	}
	c.control.State, c.control.Reason, c.control.Until = state, said(reason), column.Time{}
	c.result.Changed = true
	return c.putControl(ctx)
}

// putControl writes what was decided about the user.
func (c *userChange) putControl(ctx context.Context) error {
	c.control.UpdatedBy, c.control.UpdatedAt = text(c.actorName()), c.now
	p := sqlgen.PutControlParams{
		UserID: c.user.ID, State: c.control.State, Reason: c.control.Reason, Until: c.control.Until, OriginalEmail: c.control.OriginalEmail,
		UpdatedBy: c.control.UpdatedBy, UpdatedAt: c.now,
	}
	if c.control.State != controlActive {
		p.PreviousStatus = c.control.PreviousStatus
	}
	if err := c.q.PutControl(ctx, p); err != nil {
		return fmt.Errorf("writing user_controls: %w", err)
	}
	return nil
}

// actorName is who stands in the rows that an actor writes.
func (c *userChange) actorName() string { return cmp.Or(c.by.ID, c.by.Type, ActorSystem) }

// words are what a host may call the states, the likeliest first.
func (c *userChange) words(state string) []string {
	out := []string{"suspended", "inactive", "disabled", "blocked", "banned"}
	switch state {
	case controlSuspended:
		return out
	case controlDeleted:
		return append([]string{"deleted"}, out...)
	}
	words := []string{"active", "enabled"}
	if c.control.PreviousStatus.Valid {
		words = append([]string{c.control.PreviousStatus.String}, words...)
	}
	return words
}

// writeStatus tells the host, in the first of the words that it takes.
func (c *userChange) writeStatus(ctx context.Context, words []string) {
	var first *HostWrite
	for _, word := range words {
		w := c.host.setStatus(ctx, c.user.ID, word)
		if first == nil || w.Updated {
			first = &w
		}
		if w.Updated {
			break
		}
	}
	c.result.Host = first
}

// revokeSessions refuses all tokens that were issued up to now, and tells the host.
func (c *userChange) revokeSessions(ctx context.Context) error {
	err := c.q.PutTokensValidAfter(ctx, sqlgen.PutTokensValidAfterParams{
		UserID: c.user.ID, TokensValidAfter: c.now, UpdatedBy: text(c.actorName()),
	})
	if err != nil {
		return fmt.Errorf("revoking tokens: %w", err)
	}
	var w HostWrite
	c.result.Sessions, w = c.host.revokeSessions(ctx, c.user.ID, c.now.Time)
	if c.result.Host == nil {
		c.result.Host = &w
	}
	c.result.Changed = true
	return nil
}

// record notes what was done to the user.
func (c *userChange) record(action, reason string, changes map[string]AuditChange) {
	m := map[string]any{}
	if h := c.result.Host; h != nil {
		m["host_updated"] = h.Updated
		if h.Reason != "" {
			m["host_reason"] = h.Reason
		}
	}
	c.audit.add(AuditEvent{
		Action: action, ResourceType: "user", ResourceID: c.user.ID, Account: c.user.ID, Reason: reason, Changes: changes, Metadata: m,
	})
	c.audit.tell(OutboxEvent{Type: action, Account: c.user.ID, Payload: map[string]any{"user_id": c.user.ID}})
}

// userVersion is another whenever something was changed that an admin can change.
func (s *Companion) userVersion(ctx context.Context, q *sqlgen.Queries, u *DirectoryUser, control *sqlgen.UserControl) (string, error) {
	row, err := first(q.CurrentSubscription(ctx, u.ID))
	if err != nil {
		return "", fmt.Errorf("loading subscriptions: %w", err)
	}
	of := map[string]any{"status": u.HostStatus, "email": u.Email, "username": u.Username, "control": control}
	if row != nil {
		of["subscription"] = row
	}
	encoded, err := encode(of)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(encoded))
	return hex.EncodeToString(sum[:16]), nil
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

// UserDetail is what an admin sees of a user, from one snapshot.
type UserDetail struct {
	User    DirectoryUser
	Control UserControl
	// State is the subscription, the plan and what both entitle to.
	State *AccountState
	// Version is another whenever something was changed that an admin can change.
	Version string
}

// UserDetail is one user, or ErrUserNotFound.
func (s *Companion) UserDetail(ctx context.Context, id string) (*UserDetail, error) {
	if err := checkID(id); err != nil {
		return nil, fmt.Errorf("loading user: %w: %w", ErrUserNotFound, err)
	}
	var d *UserDetail
	err := s.directory(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries, t *hostTable) error {
		u, err := s.userIn(ctx, tx, q, t, id)
		if err != nil {
			return err
		}
		d = &UserDetail{User: *u}
		if d.State, err = s.accountState(ctx, q, quota.UserSubject(u.ID)); err != nil {
			return err
		}
		row, err := first(q.GetWholeControl(ctx, u.ID))
		if err != nil {
			return fmt.Errorf("loading user_controls: %w", err)
		}
		if row == nil {
			row = &sqlgen.UserControl{UserID: u.ID, State: controlActive}
		}
		d.Control = UserControl{
			State: d.State.Entitlement.Control, Reason: row.Reason.String, Until: row.Until.Time,
			TokensValidAfter: row.TokensValidAfter.Time, UpdatedBy: row.UpdatedBy.String, UpdatedAt: row.UpdatedAt.Time,
		}
		d.Version, err = s.userVersion(ctx, q, u, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading user: %w", err)
	}
	return d, nil
}
