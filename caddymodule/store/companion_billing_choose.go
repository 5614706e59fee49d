package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// statusOf is Stripe's word in ours.
func statusOf(stripe string) quota.Status {
	switch stripe {
	case "active":
		return quota.StatusActive
	case "trialing":
		return quota.StatusTrial
	case "past_due":
		return quota.StatusPastDue
	case "canceled":
		return quota.StatusCancelled
	}
	// unpaid, paused, incomplete, incomplete_expired, and what Stripe may yet invent.
	return quota.StatusExpired
}

// isRunning reports whether a stored status can give its plan.
func isRunning(status string) bool { return rankOf(status) > 0 }

func rankOf(status string) int {
	switch quota.Status(status) {
	case quota.StatusActive:
		return 3
	case quota.StatusTrial:
		return 2
	case quota.StatusPastDue:
		return 1
	}
	return 0
}

// candidate is a subscription that may become the current one.
type candidate struct {
	row     *sqlgen.Subscription
	running bool
	tier    int64
}

// choose makes the best of the account's subscriptions the current one.
func (b *billing) choose(ctx context.Context) error {
	best := b.best()
	current := slices.IndexFunc(b.have, func(r sqlgen.Subscription) bool { return r.IsCurrent })
	if best == nil && current < 0 || best != nil && best.row.IsCurrent {
		return nil
	}
	if current >= 0 {
		p := sqlgen.UnsetCurrentParams{AccountID: b.account.ID(), UpdatedAt: b.now}
		if err := b.q.UnsetCurrent(ctx, p); err != nil {
			return fmt.Errorf("writing subscriptions: %w", err)
		}
		b.have[current].IsCurrent = false
	}
	if best == nil {
		b.noteCurrent(&b.have[current], nil)
		return nil
	}
	if err := b.q.SetCurrent(ctx, sqlgen.SetCurrentParams{ID: best.row.ID, UpdatedAt: b.now}); err != nil {
		return fmt.Errorf("writing subscriptions: %w", err)
	}
	best.row.IsCurrent = true
	var from *sqlgen.Subscription
	if current >= 0 {
		from = &b.have[current]
	}
	b.noteCurrent(from, best.row)
	return nil
}

// candidate leaves out what was never a subscription: a price that no plan
// knows, a first payment that never came.
func (b *billing) candidate(row *sqlgen.Subscription) (candidate, bool) {
	if !row.PlanID.Valid || strings.HasPrefix(row.StripeStatus.String, "incomplete") {
		return candidate{}, false
	}
	// Of what was paid the status that the provider gave it counts, not what it
	// means at this moment: the choice must not depend on when it is made.
	c := candidate{row: row, running: isRunning(row.Status)}
	if row.Source != sourceStripe {
		c.running = judge(row, b.now.Time, b.s.grace).running
	}
	if plan := b.plans.byID(row.PlanID.String); plan != nil {
		c.tier = plan.Tier
	}
	return c, true
}

// best is what gives the plan: the best of what was paid or the best of what was
// given. What a running grant was forced over is no choice: an admin has said so,
// and a read must not take it back. Of nothing else a grant takes precedence, so
// that it does not matter whether it or the news of a payment came first.
func (b *billing) best() *candidate {
	given := b.bestOf(func(r *sqlgen.Subscription) bool { return r.Source != sourceStripe })
	paid := b.bestOf(func(r *sqlgen.Subscription) bool {
		return r.Source == sourceStripe && !(given != nil && given.running && given.row.GrantedOver.String == r.ID)
	})
	if paid == nil || given != nil && better(*given, *paid) {
		return given
	}
	return paid
}

func (b *billing) bestOf(ofKind func(*sqlgen.Subscription) bool) (best *candidate) {
	for i := range b.have {
		c, ok := b.candidate(&b.have[i])
		if ok && ofKind(c.row) && (best == nil || better(c, *best)) {
			best = &c
		}
	}
	return best
}

// better orders candidates: what runs before what does not; active, trial, past
// due; the higher tier; what is paid; the later; and at last, so that there
// always is one answer, the id.
func better(x, y candidate) bool {
	if x.running != y.running {
		return x.running
	}
	if x.running {
		if n := cmp.Or(cmp.Compare(rankOf(x.row.Status), rankOf(y.row.Status)), cmp.Compare(x.tier, y.tier)); n != 0 {
			return n > 0
		}
	}
	return cmp.Or(
		cmp.Compare(btoi(x.row.Source == sourceStripe), btoi(y.row.Source == sourceStripe)),
		x.row.StartedAt.Compare(y.row.StartedAt.Time),
		strings.Compare(x.row.StripeSubscriptionID.String+x.row.ID, y.row.StripeSubscriptionID.String+y.row.ID),
	) > 0
}

// firstMoment is the first of the moments that is one.
func firstMoment(ts ...time.Time) time.Time {
	for _, t := range ts {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}
