package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Stats count users and what they pay, from one snapshot. No count is negative.
type Stats struct {
	TotalUsers, ActiveUsers, SuspendedUsers, DeletedUsers int64
	// ByPlan are the active users by the name of the plan in effect; every plan
	// is there, and the sum is ActiveUsers.
	ByPlan map[string]int64
	// DefaultPlan is the name of the plan of those who have no subscription.
	DefaultPlan string
	// Trialing and PastDue are running subscriptions in that state, of whomever.
	Trialing, PastDue int64
	// Monthly is what running subscriptions that are not trials bring in a month
	// by their prices, by currency in its minor unit; a year's price is a twelfth.
	Monthly map[string]int64
}

// Stats are the statistics now. The directory is the accounts that were seen.
func (s *Store) Stats(ctx context.Context) (*Stats, error) {
	var st *Stats
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		st, err = s.stats(ctx, q, s.now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("counting users: %w", err)
	}
	return st, nil
}

func (s *Store) stats(ctx context.Context, q *sqlgen.Queries, now time.Time) (*Stats, error) {
	c, err := s.loadCatalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	st := &Stats{ByPlan: map[string]int64{}, Monthly: map[string]int64{}}
	for i := range c.rows {
		st.ByPlan[c.rows[i].Name] = 0
	}
	users, err := q.CountUsers(ctx, column.At(now))
	if err != nil {
		return nil, fmt.Errorf("counting accounts: %w", err)
	}
	for _, u := range users {
		st.TotalUsers += u.Users
		switch u.State {
		case controlSuspended:
			st.SuspendedUsers += u.Users
		case controlDeleted:
			st.DeletedUsers += u.Users
		default:
			st.ActiveUsers += u.Users
		}
	}
	if err := s.addStandings(ctx, q, c, st, now); err != nil {
		return nil, err
	}
	if c.defaultRow != nil {
		st.DefaultPlan = c.defaultRow.Name
		rest := st.ActiveUsers
		for _, n := range st.ByPlan {
			rest -= n
		}
		st.ByPlan[st.DefaultPlan] += rest
	}
	return st, nil
}

// addStandings judges one subscription of each group as if it were the only one:
// its moments are the group's, past or to come.
func (s *Store) addStandings(ctx context.Context, q *sqlgen.Queries, c *catalogue, st *Stats, now time.Time) error {
	groups, err := q.CountStandings(ctx, sqlgen.CountStandingsParams{Now: column.At(now), GraceBegan: column.At(now.Add(-s.grace))})
	if err != nil {
		return fmt.Errorf("counting subscriptions: %w", err)
	}
	prices, err := q.ListPlanPrices(ctx)
	if err != nil {
		return fmt.Errorf("loading plan_prices: %w", err)
	}
	byID := map[string]*sqlgen.PlanPrice{}
	for i := range prices {
		byID[prices[i].ID] = &prices[i]
	}
	yearly := map[string]int64{} // of all prices, in a year
	for i := range groups {
		g := &groups[i]
		standing := judge(s.representative(g, now), now, s.grace)
		if !standing.running {
			continue
		}
		if row, err := c.rowOf(standing.planID); err == nil && standing.planID != "" && g.ActiveUser == 1 {
			st.ByPlan[row.Name] += g.Subscriptions
		}
		switch standing.status {
		case quota.StatusTrial:
			st.Trialing += g.Subscriptions
			continue
		case quota.StatusPastDue:
			st.PastDue += g.Subscriptions
		}
		if p := byID[g.PlanPriceID.String]; p != nil {
			yearly[p.Currency] = min(quota.MaxAmount, yearly[p.Currency]+perYear(p, g))
		}
	}
	for _, currency := range slices.Sorted(maps.Keys(yearly)) {
		st.Monthly[currency] = yearly[currency] / 12
	}
	return nil
}

// perYear never overflows: no book is that large.
func perYear(p *sqlgen.PlanPrice, g *sqlgen.CountStandingsRow) int64 {
	n := g.Subscriptions
	if p.PerSeat {
		n = g.Seats
	}
	n = bounded(p.UnitAmount, n)
	if p.Interval == "month" {
		n = bounded(n, 12)
	}
	return n
}

// bounded is the product of two numbers that are not negative, quota.MaxAmount if it is larger.
func bounded(a, b int64) int64 {
	if a != 0 && b > quota.MaxAmount/a {
		return quota.MaxAmount
	}
	return a * b
}

// representative is a subscription of the group.
func (s *Store) representative(g *sqlgen.CountStandingsRow, now time.Time) *sqlgen.Subscription {
	at := func(state int64) column.Time {
		switch state {
		case 1:
			return column.At(now.Add(-time.Hour))
		case 2:
			return column.At(now.Add(time.Hour))
		}
		return column.Time{}
	}
	row := &sqlgen.Subscription{
		PlanID: g.PlanID, PendingPlanID: g.PendingPlanID, Source: g.Source, Status: g.Status, CancelAtPeriodEnd: g.CancelAtPeriodEnd,
		EndedAt: at(g.Ended), TrialEnd: at(g.Trial), PastDueSince: at(g.Grace), CurrentPeriodEnd: at(g.Period),
		PendingEffectiveAt: at(g.Pending), PendingPeriodEnd: at(g.PendingPeriod),
	}
	if !row.PastDueSince.IsZero() { // what is past or to come is the end of its grace
		row.PastDueSince = column.At(row.PastDueSince.Add(-s.grace))
	}
	if g.Cancelled == 1 {
		row.CancelledAt = column.At(now)
	}
	return row
}
