package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// CheckoutSession is a page of the provider's on which an account pays.
type CheckoutSession struct {
	ID, URL string
	Account quota.Subject
	// Customer is whom the provider asks to pay. It need not be the account's any more.
	Customer string
	PlanID   string
	// Price is the provider's price, by id or lookup key.
	Price                string
	Quantity, TrialDays  int64
	CreatedBy            string
	CreatedAt, ExpiresAt time.Time
	// Open: nobody has closed it, and nothing says that it was paid. Whether its
	// time is over is ExpiresAt's to say.
	Open bool
}

// ErrCheckoutRaced says that another session was opened for the account meanwhile.
var ErrCheckoutRaced = errors.New("another checkout session was opened meanwhile")

// SaveCheckout keeps a session that was opened for the account after the one that
// was its last, empty for none. Of several that were opened at once one is kept:
// the others get ErrCheckoutRaced and must be closed, or the account could pay on
// each of them. So must one that gets ErrUserDeleted: whoever has deleted the user
// did not see it. A session that is there already is left as it is.
func (s *Companion) SaveCheckout(ctx context.Context, c CheckoutSession, after string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		now, err := s.clock(ctx, q)
		if err != nil {
			return err
		}
		p := sqlgen.LockAccountParams{ID: c.Account.ID(), Kind: c.Account.Kind(), FirstSeenAt: now}
		if err := q.LockAccount(ctx, p); err != nil {
			return err
		}
		deleted, err := isDeleted(ctx, q, c.Account)
		if err != nil {
			return err
		}
		last, err := first(q.LastCheckout(ctx, c.Account.ID()))
		switch {
		case err != nil:
			return err
		case deleted:
			return ErrUserDeleted
		case last != nil && last.ID == c.ID:
			return nil // asked for twice at once: the provider has answered both alike
		case last == nil && after != "", last != nil && last.ID != after:
			return ErrCheckoutRaced
		}
		if last != nil && !now.After(last.CreatedAt.Time) {
			now = column.At(last.CreatedAt.Add(time.Microsecond)) // which is the last must not be a matter of luck
		}
		if err := q.CloseCheckouts(ctx, sqlgen.CloseCheckoutsParams{AccountID: c.Account.ID(), ClosedAt: now}); err != nil {
			return err
		}
		return q.InsertCheckout(ctx, sqlgen.InsertCheckoutParams{
			ID: c.ID, AccountID: c.Account.ID(), CustomerID: text(c.Customer), PlanID: c.PlanID, Price: c.Price, Quantity: c.Quantity,
			TrialDays: c.TrialDays, Url: c.URL, CreatedBy: c.CreatedBy, CreatedAt: now, ExpiresAt: column.At(c.ExpiresAt),
		})
	})
	if err != nil {
		return fmt.Errorf("writing the checkout session: %w", err)
	}
	return nil
}

// LastCheckout is the session of the account that is open, else the one that was
// opened last; nil: none was.
func (s *Companion) LastCheckout(ctx context.Context, account quota.Subject) (*CheckoutSession, error) {
	var c *CheckoutSession
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.LastCheckout(ctx, account.ID()))
		if err == nil && row != nil {
			c = &CheckoutSession{
				ID: row.ID, URL: row.Url, Account: account, Customer: row.CustomerID.String, PlanID: row.PlanID, Price: row.Price,
				Quantity: row.Quantity, TrialDays: row.TrialDays, CreatedBy: row.CreatedBy, CreatedAt: row.CreatedAt.Time, ExpiresAt: row.ExpiresAt.Time,
				Open: row.ClosedAt.IsZero(),
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the checkout session: %w", err)
	}
	return c, nil
}

// HasCheckout reports whether the session was opened for the account.
func (s *Companion) HasCheckout(ctx context.Context, account quota.Subject, id string) (bool, error) {
	var n int64
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		n, err = q.CountCheckouts(ctx, sqlgen.CountCheckoutsParams{ID: id, AccountID: account.ID()})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking for the checkout session: %w", err)
	}
	return n > 0, nil
}

// CloseCheckout closes a session that was paid or expired.
func (s *Companion) CloseCheckout(ctx context.Context, id string) error {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		return q.CloseCheckout(ctx, sqlgen.CloseCheckoutParams{ID: id, ClosedAt: column.At(s.now())})
	})
	if err != nil {
		return fmt.Errorf("closing the checkout session: %w", err)
	}
	return nil
}
