package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// GoesOn reports whether a subscription of that status, in Stripe's words, is
// neither over nor was never begun: somebody pays for it, or is asked to.
func GoesOn(status string) bool {
	return status != "canceled" && !strings.HasPrefix(status, "incomplete")
}

// findUnfinished finds what is to be ended at the provider.
func (b *billing) findUnfinished(ctx context.Context, found []BilledSubscription) (err error) {
	r := b.result
	if r.Deleted, err = isDeleted(ctx, b.q, b.account); err != nil {
		return err
	}
	pays := slices.ContainsFunc(found, func(f BilledSubscription) bool { return GoesOn(f.Status) })
	if !pays && !r.Deleted {
		return nil
	}
	page, err := first(b.q.LastCheckout(ctx, b.account.ID()))
	if err != nil {
		return fmt.Errorf("loading checkout_sessions: %w", err)
	}
	if page != nil && page.ClosedAt.IsZero() {
		r.Page = page.ID
	}
	r.Unfinished = r.Page != "" || r.Deleted && pays
	return nil
}

// isDeleted reports whether the account is a user who was deleted.
func isDeleted(ctx context.Context, q *sqlgen.Queries, account quota.Subject) (bool, error) {
	if account.Kind() != kindUser {
		return false, nil
	}
	control, err := first(q.GetControl(ctx, account.ID()))
	if err != nil {
		return false, fmt.Errorf("loading user_controls: %w", err)
	}
	return control != nil && control.State == controlDeleted, nil
}
