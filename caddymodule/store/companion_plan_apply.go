package store

import (
	"cmp"
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

// ApplyResult names the plans by what was done to them, each list sorted.
type ApplyResult struct {
	Created, Updated, Unchanged []string
	// Untouched are the plans that the document does not name: nothing deletes a plan.
	Untouched []string
}

// ApplyPlans makes the named plans what the document says, all of them or none.
// A quota or price that a named plan no longer has is removed, or made inactive.
// Nothing is written of a plan that is already so. If the document names a
// default plan, the present one ceases to be; one there must be. What was made of
// each plan stands in the audit log.
func (s *Companion) ApplyPlans(ctx context.Context, by Actor, d *PlansDocument) (*ApplyResult, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("applying plans: %w", err)
	}
	var result *ApplyResult
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		a, err := s.beginApplying(ctx, q)
		if err != nil {
			return err
		}
		before, err := s.readablePlans(ctx, q)
		if err != nil {
			return err
		}
		if err := a.setDefault(ctx, d); err != nil {
			return err
		}
		for i := range d.Plans {
			if err := a.plan(ctx, &d.Plans[i]); err != nil {
				return fmt.Errorf("plan %s: %w", d.Plans[i].Name, err)
			}
		}
		a.finish(d)
		result = a.result
		return s.logApplied(ctx, q, log, before, result)
	})
	if err != nil {
		return nil, fmt.Errorf("applying plans: %w", err)
	}
	return result, nil
}

// applying is one run of ApplyPlans, within its transaction. It compares with
// the raw rows, so that it can also mend rows that could not be loaded.
type applying struct {
	q      *sqlgen.Queries
	now    column.Time
	rows   map[string]*sqlgen.SubscriptionPlan // by name
	quotas map[string]map[string]sqlgen.PlanQuota
	prices map[string][]Price
	result *ApplyResult
}

// beginApplying keeps others from the plans to the end of the transaction.
func (s *Companion) beginApplying(ctx context.Context, q *sqlgen.Queries) (*applying, error) {
	a := &applying{q: q, now: column.At(s.now()), result: &ApplyResult{}}
	if err := q.LockName(ctx, sqlgen.LockNameParams{Name: "plans", ExpiresAt: a.now}); err != nil {
		return nil, fmt.Errorf("locking plans: %w", err)
	}
	return a, a.load(ctx)
}

func (a *applying) load(ctx context.Context) error {
	rows, err := a.q.ListPlans(ctx)
	if err != nil {
		return fmt.Errorf("loading subscription_plans: %w", err)
	}
	quotas, err := a.q.ListPlanQuotas(ctx)
	if err != nil {
		return fmt.Errorf("loading plan_quotas: %w", err)
	}
	if a.prices, err = loadPrices(ctx, a.q); err != nil {
		return err
	}
	a.rows, a.quotas = map[string]*sqlgen.SubscriptionPlan{}, map[string]map[string]sqlgen.PlanQuota{}
	for i := range rows {
		a.rows[rows[i].Name] = &rows[i]
		a.quotas[rows[i].ID] = map[string]sqlgen.PlanQuota{}
	}
	for _, r := range quotas {
		a.quotas[r.PlanID][r.Metric] = r
	}
	return nil
}

// setDefault takes is_default from the present default plan if another one is to
// have it: at no moment may two have it.
func (a *applying) setDefault(ctx context.Context, d *PlansDocument) error {
	present, next := "", ""
	for name, row := range a.rows {
		if row.IsDefault {
			present = name
		}
	}
	named := map[string]bool{}
	for i := range d.Plans {
		named[d.Plans[i].Name] = true
		if d.Plans[i].IsDefault {
			next = d.Plans[i].Name
		}
	}
	switch {
	case next == "" && (present == "" || named[present]):
		return errors.New("no plan would be left with is_default")
	case next == "" || next == present || present == "":
		return nil
	}
	if err := a.q.ClearDefaultPlan(ctx, sqlgen.ClearDefaultPlanParams{Name: next, UpdatedAt: a.now}); err != nil {
		return fmt.Errorf("clearing is_default: %w", err)
	}
	a.rows[present].IsDefault = false
	a.note(&a.result.Updated, present)
	return nil
}

func (a *applying) note(list *[]string, name string) {
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

func (a *applying) plan(ctx context.Context, d *PlanDocument) error {
	want, err := a.wanted(d)
	if err != nil {
		return err
	}
	have := a.rows[d.Name]
	created := have == nil
	if created {
		if want.ID, err = newID(); err != nil {
			return err
		}
		if err := a.q.InsertPlan(ctx, want); err != nil {
			return fmt.Errorf("writing subscription_plans: %w", err)
		}
		have = &sqlgen.SubscriptionPlan{ID: want.ID}
	}
	quotas, err := a.putQuotas(ctx, have.ID, d)
	if err != nil {
		return err
	}
	prices, err := a.putPrices(ctx, have.ID, d)
	if err != nil {
		return err
	}
	changed := !created && (differs(have, &want) || quotas || prices)
	if changed { // its version rises with whatever of it is edited
		err = a.q.UpdatePlan(ctx, sqlgen.UpdatePlanParams{
			ID: have.ID, DisplayName: want.DisplayName, Description: want.Description, Tier: want.Tier, IsDefault: want.IsDefault,
			IsActive: want.IsActive, IsPublic: want.IsPublic, TrialDays: want.TrialDays, Features: want.Features,
			RateLimitMultiplier: want.RateLimitMultiplier, RateLimits: want.RateLimits, UpdatedAt: a.now,
		})
		if err != nil {
			return fmt.Errorf("writing subscription_plans: %w", err)
		}
	}
	switch {
	case created:
		a.note(&a.result.Created, d.Name)
	case changed:
		a.note(&a.result.Updated, d.Name)
	case !slices.Contains(a.result.Updated, d.Name):
		a.note(&a.result.Unchanged, d.Name)
	}
	return nil
}

// wanted is the plan's row as the document has it.
func (a *applying) wanted(d *PlanDocument) (sqlgen.InsertPlanParams, error) {
	p, err := d.plan()
	if err != nil {
		return sqlgen.InsertPlanParams{}, err
	}
	features := map[string]bool{}
	maps.Copy(features, d.Features)
	featureText, err := encode(features)
	if err != nil {
		return sqlgen.InsertPlanParams{}, err
	}
	rates, err := encodeRates(p.RateLimits)
	if err != nil {
		return sqlgen.InsertPlanParams{}, err
	}
	return sqlgen.InsertPlanParams{
		Name: p.Name, DisplayName: p.DisplayName, Description: d.Description, Tier: d.Tier, IsDefault: d.IsDefault,
		IsActive: d.IsActive == nil || *d.IsActive, IsPublic: d.IsPublic == nil || *d.IsPublic, TrialDays: d.TrialDays,
		Features: featureText, RateLimitMultiplier: column.Hundredths(p.MultiplierPct), RateLimits: rates, CreatedAt: a.now,
	}, nil
}

// differs compares JSON by meaning: a hand may have spaced it otherwise.
func differs(have *sqlgen.SubscriptionPlan, want *sqlgen.InsertPlanParams) bool {
	features, err := decodeFeatures(have.Features)
	if err != nil {
		return true
	}
	wantFeatures, err := decodeFeatures(want.Features)
	if err != nil {
		return true
	}
	rates, err := decodeRates(have.RateLimits)
	if err != nil {
		return true
	}
	wantRates, err := decodeRates(want.RateLimits)
	if err != nil {
		return true
	}
	return have.DisplayName != want.DisplayName || have.Description != want.Description || have.Tier != want.Tier ||
		have.IsDefault != want.IsDefault || have.IsActive != want.IsActive || have.IsPublic != want.IsPublic ||
		have.TrialDays != want.TrialDays || have.RateLimitMultiplier != want.RateLimitMultiplier ||
		!maps.Equal(features, wantFeatures) || !maps.Equal(rates, wantRates)
}

func (a *applying) putQuotas(ctx context.Context, id string, d *PlanDocument) (changed bool, err error) {
	have := a.quotas[id]
	for _, metric := range sortedKeys(d.Quotas) {
		q := d.Quotas[metric]
		want := sqlgen.PlanQuota{
			PlanID: id, Metric: metric, Period: q.Period, ExceededStatus: int64(q.Status),
			LimitValue: sql.NullInt64{Int64: q.Limit.Value, Valid: !q.Limit.Unlimited},
		}
		if have[metric] == want {
			continue
		}
		changed = true
		if err := a.q.PutPlanQuota(ctx, sqlgen.PutPlanQuotaParams(want)); err != nil {
			return false, fmt.Errorf("writing plan_quotas: %w", err)
		}
	}
	for _, metric := range sortedKeys(have) {
		if _, kept := d.Quotas[metric]; kept {
			continue
		}
		changed = true
		if err := a.q.DeletePlanQuota(ctx, sqlgen.DeletePlanQuotaParams{PlanID: id, Metric: metric}); err != nil {
			return false, fmt.Errorf("writing plan_quotas: %w", err)
		}
	}
	return changed, nil
}

// putPrices matches prices by what cannot change of one. Those that are left over
// become inactive first, so that their lookup keys are free.
func (a *applying) putPrices(ctx context.Context, id string, d *PlanDocument) (changed bool, err error) {
	have := slices.Clone(a.prices[id])
	slices.SortStableFunc(have, func(p, q Price) int { return cmp.Compare(btoi(q.IsActive), btoi(p.IsActive)) })
	match := make([]*Price, len(d.Prices))
	taken := map[string]bool{}
	for i := range d.Prices {
		if p := matchPrice(have, taken, &d.Prices[i]); p != nil {
			match[i], taken[p.ID] = p, true
		}
	}
	for _, p := range have {
		if !taken[p.ID] && p.IsActive {
			changed = true
			if err := a.q.DeactivatePlanPrice(ctx, p.ID); err != nil {
				return false, fmt.Errorf("writing plan_prices: %w", err)
			}
		}
	}
	for i, want := range d.Prices {
		wrote, err := a.putPrice(ctx, id, want, match[i])
		if err != nil {
			return false, fmt.Errorf("writing plan_prices: %w", err)
		}
		changed = changed || wrote
	}
	return changed, nil
}

// matchPrice is the first of the prices that can be the wanted one; nil: none can.
// Interval, currency and amount of a price do not change, nor does its id at the
// provider once it is known: by that id the plan is found of those who pay it.
func matchPrice(have []Price, taken map[string]bool, want *PriceDocument) (unnamed *Price) {
	for i := range have {
		p := &have[i]
		if taken[p.ID] || p.Interval != want.Interval || p.Currency != want.Currency || p.UnitAmount != *want.UnitAmount {
			continue
		}
		if p.PriceID == want.PriceID {
			return p
		}
		if p.PriceID == "" && unnamed == nil {
			unnamed = p
		}
	}
	return unnamed
}

func (a *applying) putPrice(ctx context.Context, planID string, want PriceDocument, have *Price) (bool, error) {
	if have != nil {
		same := Price{have.ID, want.Interval, want.Currency, *want.UnitAmount, want.PerSeat, want.LookupKey, want.PriceID, want.Livemode, true}
		if *have == same {
			return false, nil
		}
		return true, a.q.UpdatePlanPrice(ctx, sqlgen.UpdatePlanPriceParams{
			ID: have.ID, PerSeat: want.PerSeat, StripeLookupKey: text(want.LookupKey), StripePriceID: text(want.PriceID), Livemode: want.Livemode,
		})
	}
	id, err := newID()
	if err != nil {
		return false, err
	}
	return true, a.q.InsertPlanPrice(ctx, sqlgen.InsertPlanPriceParams{
		ID: id, PlanID: planID, Interval: want.Interval, Currency: want.Currency, UnitAmount: *want.UnitAmount, PerSeat: want.PerSeat,
		StripeLookupKey: text(want.LookupKey), StripePriceID: text(want.PriceID), Livemode: want.Livemode,
	})
}

func (a *applying) finish(d *PlansDocument) {
	for name := range a.rows {
		named := slices.ContainsFunc(d.Plans, func(p PlanDocument) bool { return p.Name == name })
		if !named && !slices.Contains(a.result.Updated, name) {
			a.note(&a.result.Untouched, name)
		}
	}
	r := a.result
	for _, list := range [][]string{r.Created, r.Updated, r.Unchanged, r.Untouched} {
		slices.SortFunc(list, cmp.Compare[string])
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func encodeRates(rates map[string]quota.Rate) (string, error) {
	raw := make(map[string]rateText, len(rates))
	for scope, r := range rates {
		requests, seconds := r.Requests, int64(r.Window/time.Second)
		raw[scope] = rateText{&requests, &seconds}
	}
	return encode(raw)
}
