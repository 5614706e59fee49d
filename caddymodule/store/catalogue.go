package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// catalogue is all plans as one snapshot saw them. Rows are decoded when they
// are asked for: a bad row concerns only those who are on its plan. Snapshots that
// saw the same rows share a catalogue, so that a hundred thousand accounts on a
// plan hold it once.
type catalogue struct {
	rows      []sqlgen.SubscriptionPlan // by tier
	quotaRows []sqlgen.PlanQuota
	quotas    map[string][]sqlgen.PlanQuota
	counted   map[string]quota.Periods
	// defaultName is the plan that the config names; defaultRow is nil where there
	// is no default plan.
	defaultName string
	defaultRow  *sqlgen.SubscriptionPlan

	decoding sync.Mutex
	plans    map[string]*quota.Plan // decoded, by id
}

func (s *Store) loadCatalogue(ctx context.Context, q *sqlgen.Queries) (*catalogue, error) {
	rows, err := q.ListPlans(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading subscription_plans: %w", err)
	}
	quotas, err := q.ListPlanQuotas(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading plan_quotas: %w", err)
	}
	name := ""
	if p := s.defaultPlan.Load(); p != nil {
		name = *p
	}
	if c := s.latest.Load(); c != nil && c.defaultName == name && slices.Equal(c.rows, rows) && slices.Equal(c.quotaRows, quotas) {
		return c, nil
	}
	c := newCatalogue(rows, quotas, name)
	s.latest.Store(c)
	return c, nil
}

func newCatalogue(rows []sqlgen.SubscriptionPlan, quotas []sqlgen.PlanQuota, defaultName string) *catalogue {
	c := &catalogue{
		rows: rows, quotaRows: quotas, defaultName: defaultName,
		quotas: map[string][]sqlgen.PlanQuota{}, counted: map[string]quota.Periods{}, plans: map[string]*quota.Plan{},
	}
	for _, row := range quotas {
		c.quotas[row.PlanID] = append(c.quotas[row.PlanID], row)
		// Nobody is counted in a period that does not exist; decode names the row.
		if period, err := quota.ParsePeriod(row.Period); err == nil {
			c.counted[row.Metric] = c.counted[row.Metric].With(period)
		}
	}
	if c.defaultRow = c.byName(defaultName); c.defaultRow != nil {
		return c
	}
	for i := range rows {
		if rows[i].IsDefault {
			c.defaultRow = &rows[i]
		}
	}
	return c
}

func (c *catalogue) byID(id string) *sqlgen.SubscriptionPlan {
	for i := range c.rows {
		if c.rows[i].ID == id {
			return &c.rows[i]
		}
	}
	return nil
}

func (c *catalogue) byName(name string) *sqlgen.SubscriptionPlan {
	for i := range c.rows {
		if c.rows[i].Name == name {
			return &c.rows[i]
		}
	}
	return nil
}

// rowOf is the row of the plan with that id, of the default plan for an empty one.
func (c *catalogue) rowOf(id string) (*sqlgen.SubscriptionPlan, error) {
	if id != "" {
		if row := c.byID(id); row != nil {
			return row, nil
		}
		return nil, &RowError{"subscriptions", id, "plan_id", ErrPlanNotFound}
	}
	if c.defaultRow == nil {
		return nil, ErrNoDefaultPlan
	}
	return c.defaultRow, nil
}

// decode is the plan of a row: decoded once, and shared from then on.
func (c *catalogue) decode(row *sqlgen.SubscriptionPlan) (*quota.Plan, error) {
	c.decoding.Lock()
	defer c.decoding.Unlock()
	if p := c.plans[row.ID]; p != nil {
		return p, nil
	}
	p, err := c.decodeRow(row)
	if err == nil {
		c.plans[row.ID] = p
	}
	return p, err
}

// decodeRow makes a plan of its rows.
func (c *catalogue) decodeRow(row *sqlgen.SubscriptionPlan) (*quota.Plan, error) {
	fail := func(field string, err error) (*quota.Plan, error) {
		return nil, &RowError{"subscription_plans", row.Name, field, err}
	}
	features, err := decodeFeatures(row.Features)
	if err != nil {
		return fail("features", err)
	}
	rates, err := decodeRates(row.RateLimits)
	if err != nil {
		return fail("rate_limits", err)
	}
	p := &quota.Plan{
		ID: row.ID, Name: row.Name, DisplayName: row.DisplayName, MultiplierPct: int64(row.RateLimitMultiplier),
		RateLimits: rates, Features: features, Quotas: make(map[string]quota.Quota, len(c.quotas[row.ID])),
	}
	for _, r := range c.quotas[row.ID] {
		period, err := quota.ParsePeriod(r.Period)
		if err != nil {
			return nil, &RowError{"plan_quotas", row.Name + "/" + r.Metric, "period", err}
		}
		q := quota.Quota{Limit: r.LimitValue.Int64, Unlimited: !r.LimitValue.Valid, Period: period, Status: int(r.ExceededStatus)}
		if err := q.Validate(); err != nil {
			return nil, &RowError{"plan_quotas", row.Name + "/" + r.Metric, quotaField(q), err}
		}
		p.Quotas[r.Metric] = q
	}
	if err := p.Validate(); err != nil {
		field := "name"
		if p.MultiplierPct < 1 || p.MultiplierPct > quota.MaxMultiplierPct {
			field = "rate_limit_multiplier"
		}
		return fail(field, err)
	}
	return p, nil
}

func quotaField(q quota.Quota) string {
	if quota.CheckAmount("", q.Limit) != nil {
		return "limit_value"
	}
	return "exceeded_status"
}

func decodeFeatures(text string) (map[string]bool, error) {
	var features map[string]bool
	if err := json.Unmarshal([]byte(text), &features); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if features == nil {
		return nil, errors.New("decoding: not an object")
	}
	return features, nil
}

// rateText is one entry of the column rate_limits.
type rateText struct {
	Requests *int64 `json:"requests"`
	Window   *int64 `json:"window"` // seconds
}

func decodeRates(text string) (map[string]quota.Rate, error) {
	var raw map[string]rateText
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if raw == nil {
		return nil, errors.New("decoding: not an object")
	}
	rates := make(map[string]quota.Rate, len(raw))
	for scope, r := range raw {
		if r.Requests == nil || r.Window == nil {
			return nil, fmt.Errorf("%s: want requests and window", scope)
		}
		rate, err := rateOf(*r.Requests, *r.Window)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", scope, err)
		}
		if !quota.ValidName(scope) {
			return nil, fmt.Errorf("scope %q is not a name", scope)
		}
		rates[scope] = rate
	}
	return rates, nil
}

// rateOf refuses windows whose length in nanoseconds would overflow before it looks further.
func rateOf(requests, seconds int64) (quota.Rate, error) {
	if seconds < 1 || seconds > int64(quota.MaxWindow/time.Second) {
		return quota.Rate{}, fmt.Errorf("window of %d seconds is outside 1..%d", seconds, int64(quota.MaxWindow/time.Second))
	}
	r := quota.Rate{Requests: requests, Window: time.Duration(seconds) * time.Second}
	return r, r.Validate()
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v) // sorts keys
	if err != nil {
		return "", fmt.Errorf("encoding: %w", err)
	}
	return string(b), nil
}
