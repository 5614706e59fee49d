package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// Plan is a plan with what only people look at.
type Plan struct {
	quota.Plan
	Description string
	Tier        int64 // higher is more
	IsDefault   bool
	IsActive    bool // may be chosen anew
	IsPublic    bool // shown to users
	TrialDays   int64
	Version     int64 // rises with each edit
	Prices      []Price
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Price is one way to pay for a plan. Old prices stay, inactive, and still map to their plan.
type Price struct {
	ID         string
	Interval   string // "month" or "year"
	Currency   string // ISO 4217, lower case
	UnitAmount int64  // in the currency's minor unit
	PerSeat    bool
	LookupKey  string // of Stripe, may be empty
	PriceID    string // of Stripe, may be empty
	Livemode   bool
	IsActive   bool
}

// PlanFilter narrows ListPlans.
type PlanFilter struct {
	// Public leaves out plans that are not shown to users or cannot be chosen anew,
	// and those whose rows cannot be read: one bad plan must not hide the others.
	// CheckPlans reports it.
	Public bool
}

// ListPlans are the plans by tier, then name, with their prices.
func (s *Store) ListPlans(ctx context.Context, f PlanFilter) ([]*Plan, error) {
	var plans []*Plan
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		prices, err := loadPrices(ctx, q)
		if err != nil {
			return err
		}
		for i := range c.rows {
			row := &c.rows[i]
			if f.Public && !(row.IsPublic && row.IsActive) {
				continue
			}
			p, err := c.full(row, prices)
			if bad := (*RowError)(nil); f.Public && errors.As(err, &bad) {
				continue
			}
			if err != nil {
				return err
			}
			plans = append(plans, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing plans: %w", err)
	}
	return plans, nil
}

// CheckPlans reports every plan that cannot be enforced as its rows are written,
// each by a *RowError: those who are on it have the default plan meanwhile.
func (s *Store) CheckPlans(ctx context.Context) error {
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		var bad []error
		for i := range c.rows {
			if _, err := c.decode(&c.rows[i]); err != nil {
				bad = append(bad, err)
			}
		}
		return errors.Join(bad...)
	})
	if err != nil {
		return fmt.Errorf("checking plans: %w", err)
	}
	return nil
}

// PlanByName is the named plan; ErrPlanNotFound.
func (s *Store) PlanByName(ctx context.Context, name string) (*Plan, error) {
	var plan *Plan
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		c, err := s.loadCatalogue(ctx, q)
		if err != nil {
			return err
		}
		row := c.byName(name)
		if row == nil {
			return fmt.Errorf("%w: %q", ErrPlanNotFound, name)
		}
		prices, err := loadPrices(ctx, q)
		if err != nil {
			return err
		}
		plan, err = c.full(row, prices)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading plan: %w", err)
	}
	return plan, nil
}

// Metrics are the metrics that plans name, sorted.
func (s *Store) Metrics(ctx context.Context) ([]string, error) {
	var metrics []string
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		c, err := s.loadCatalogue(ctx, q)
		if err == nil {
			metrics = sortedKeys(c.counted)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing metrics: %w", err)
	}
	return metrics, nil
}

func loadPrices(ctx context.Context, q *sqlgen.Queries) (map[string][]Price, error) {
	rows, err := q.ListPlanPrices(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading plan_prices: %w", err)
	}
	prices := map[string][]Price{}
	for _, r := range rows {
		prices[r.PlanID] = append(prices[r.PlanID], Price{
			ID: r.ID, Interval: r.Interval, Currency: r.Currency, UnitAmount: r.UnitAmount, PerSeat: r.PerSeat,
			LookupKey: r.StripeLookupKey.String, PriceID: r.StripePriceID.String, Livemode: r.Livemode, IsActive: r.IsActive,
		})
	}
	return prices, nil
}

// full is the plan of a row with everything.
func (c *catalogue) full(row *sqlgen.SubscriptionPlan, prices map[string][]Price) (*Plan, error) {
	p, err := c.decode(row)
	if err != nil {
		return nil, err
	}
	return &Plan{
		Plan: *p, Description: row.Description, Tier: row.Tier,
		IsDefault: c.defaultRow != nil && c.defaultRow.ID == row.ID, IsActive: row.IsActive, IsPublic: row.IsPublic,
		TrialDays: row.TrialDays, Version: row.Version, Prices: prices[row.ID],
		CreatedAt: row.CreatedAt.Time, UpdatedAt: row.UpdatedAt.Time,
	}, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
