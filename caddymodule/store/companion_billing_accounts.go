package store

import (
	"context"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// BillingAccount is what the payment provider knows an account as.
type BillingAccount struct {
	Account quota.Subject
	// Customer is empty before the account's first checkout.
	Customer, Email string
	SyncedAt        time.Time
	// HadTrial: the account has had a trial, of whatever plan; there is no second.
	HadTrial bool
}

// BillingAccount reads it; an account that was never seen has neither.
func (s *Companion) BillingAccount(ctx context.Context, account quota.Subject) (*BillingAccount, error) {
	if err := checkAccount(account); err != nil {
		return nil, err
	}
	b := &BillingAccount{Account: account}
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.BillingAccount(ctx, account.ID()))
		if err != nil {
			return err
		}
		if row != nil {
			b.Customer, b.Email, b.SyncedAt = row.StripeCustomerID.String, row.Email.String, row.StripeSyncedAt.Time
		}
		trials, err := q.HadTrial(ctx, account.ID())
		b.HadTrial = trials > 0
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the billing account: %w", err)
	}
	return b, nil
}

// CustomerAccount is the account that is the provider's customer; empty: none of ours.
func (s *Companion) CustomerAccount(ctx context.Context, customer string) (quota.Subject, error) {
	var account quota.Subject
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		row, err := first(q.AccountByCustomer(ctx, text(customer)))
		if err == nil && row != nil {
			account = subjectOf(row.Kind, row.ID)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("looking for a customer's account: %w", err)
	}
	return account, nil
}

// SetCustomer makes the account the provider's customer and answers whose
// customer it is: the one that was there first, if there was one.
func (s *Companion) SetCustomer(ctx context.Context, account quota.Subject, customer string) (string, error) {
	if err := checkAccount(account); err != nil {
		return "", err
	}
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		err := q.PutCustomer(ctx, sqlgen.PutCustomerParams{
			ID: account.ID(), Kind: account.Kind(), StripeCustomerID: text(customer), FirstSeenAt: column.At(s.now()),
		})
		if err != nil {
			return err
		}
		row, err := first(q.BillingAccount(ctx, account.ID()))
		if err == nil && row != nil {
			customer = row.StripeCustomerID.String
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("writing the billing account: %w", err)
	}
	return customer, nil
}

// ReplaceCustomer makes another customer the account's, in the place of one that
// was deleted at the provider, and answers whose customer it is then: somebody
// else may have been quicker.
func (s *Companion) ReplaceCustomer(ctx context.Context, account quota.Subject, deleted, customer string) (string, error) {
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		n, err := q.ReplaceCustomer(ctx, sqlgen.ReplaceCustomerParams{
			ID: account.ID(), StripeCustomerID: text(deleted), StripeCustomerID_2: text(customer),
		})
		if err != nil || n > 0 {
			return err
		}
		row, err := first(q.BillingAccount(ctx, account.ID()))
		if err == nil && row != nil {
			customer = row.StripeCustomerID.String
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("writing the billing account: %w", err)
	}
	return customer, nil
}

// Invoices are the account's invoices, the newest first, and how many there are.
func (s *Companion) Invoices(ctx context.Context, account quota.Subject, skip, limit int) (list []BilledInvoice, total int64, err error) {
	err = s.read(ctx, func(q *sqlgen.Queries) (err error) {
		if total, err = q.CountInvoices(ctx, account.ID()); err != nil {
			return err
		}
		rows, err := q.ListInvoices(ctx, sqlgen.ListInvoicesParams{
			AccountID: account.ID(), Limit: int32(limit), Offset: int32(skip), // bounded by the API
		})
		for _, r := range rows {
			list = append(list, BilledInvoice{
				ID: r.ID, Subscription: r.StripeSubscriptionID.String, Number: r.Number, Status: r.Status, Currency: r.Currency,
				AmountDue: r.AmountDue, AmountPaid: r.AmountPaid, AmountRemaining: r.AmountRemaining, Attempts: r.Attempts,
				PeriodStart: r.PeriodStart.Time, PeriodEnd: r.PeriodEnd.Time, CreatedAt: r.CreatedAt.Time, PaidAt: r.PaidAt.Time,
				HostedURL: r.HostedUrl, PDFURL: r.PdfUrl,
			})
		}
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("listing invoices: %w", err)
	}
	return list, total, nil
}
