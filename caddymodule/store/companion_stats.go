package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Stats count users and what they pay. No count is negative.
type Stats struct {
	// TotalUsers are all of the directory, whatever their status; ActiveUsers are
	// those who are neither suspended nor deleted, nor anything else to the host.
	TotalUsers, ActiveUsers int64
	// ByPlan are the active users by the name of the plan in effect; every plan
	// is there, and the sum is ActiveUsers.
	ByPlan map[string]int64
	// DefaultPlan is the name of the plan of those who have no subscription; empty
	// where there is none, which stands in ByPlan then.
	DefaultPlan string
	// Trialing and PastDue are running subscriptions in that state, of whomever.
	Trialing, PastDue int64
	// Monthly is what running subscriptions that are not trials bring in a month
	// by their prices, by currency in its minor unit; a year's price is a twelfth.
	Monthly map[string]int64
}

// Stats are the statistics now, from one snapshot. The directory is ListUsers'.
func (s *Companion) Stats(ctx context.Context) (*Stats, error) {
	var st *Stats
	err := s.directory(ctx, func(tx sqlgen.DBTX, q *sqlgen.Queries, t *hostTable) error {
		st = &Stats{ByPlan: map[string]int64{}, Monthly: map[string]int64{}}
		plans, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		query := s.newDirectoryQuery(t, plans)
		if err := query.addUsers(ctx, tx, st); err != nil {
			return err
		}
		return s.addStandings(ctx, q, st, query.now)
	})
	if err != nil {
		return nil, fmt.Errorf("counting users: %w", err)
	}
	return st, nil
}

func (q *directoryQuery) addUsers(ctx context.Context, tx sqlgen.DBTX, st *Stats) (err error) {
	names := map[string]string{}
	for i := range q.plans.rows {
		names[q.plans.rows[i].ID] = q.plans.rows[i].Name
		st.ByPlan[q.plans.rows[i].Name] = 0
	}
	if q.plans.defaultRow != nil {
		st.DefaultPlan = q.plans.defaultRow.Name
	}
	rows, err := tx.QueryContext(ctx, q.byStatusAndPlan(), q.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var status string
		var plan sql.NullString
		var users int64
		if err := rows.Scan(&status, &plan, &users); err != nil {
			return err
		}
		st.TotalUsers += users
		if status != controlActive {
			continue
		}
		st.ActiveUsers += users
		name := names[plan.String]
		if name == "" {
			name = st.DefaultPlan
		}
		st.ByPlan[name] += users
	}
	return rows.Err()
}

// addStandings judges one subscription of each group as if it were the only one:
// its moments are the group's, past or to come.
func (s *Companion) addStandings(ctx context.Context, q *sqlgen.Queries, st *Stats, now time.Time) error {
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
func (s *Companion) representative(g *sqlgen.CountStandingsRow, now time.Time) *sqlgen.Subscription {
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
