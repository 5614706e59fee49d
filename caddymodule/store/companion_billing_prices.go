package store

import (
	"context"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// priceBook says which plan a price of the provider's means. Nothing else ever
// does: what a client or an object's metadata says of a plan is not looked at.
type priceBook struct {
	byID       map[string]pricedPlan
	byKey      map[string]pricedPlan
	configured map[string]string // price id -> plan id
	learned    map[string]string // price id -> plan id
}

// pricedPlan is a plan, and the row of plan_prices if there is one.
type pricedPlan struct{ planID, rowID string }

// loadPriceBook reads what is known of prices. configured names plans by price id.
func (s *Companion) loadPriceBook(ctx context.Context, q *sqlgen.Queries, c *catalogue, configured map[string]string) (*priceBook, error) {
	rows, err := q.ListPlanPrices(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading plan_prices: %w", err)
	}
	learned, err := q.ListLearnedPrices(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading stripe_prices: %w", err)
	}
	b := &priceBook{
		byID: map[string]pricedPlan{}, byKey: map[string]pricedPlan{},
		configured: map[string]string{}, learned: make(map[string]string, len(learned)),
	}
	active := map[string]bool{}
	for _, r := range rows {
		p := pricedPlan{r.PlanID, r.ID}
		if id := r.StripePriceID.String; id != "" {
			b.byID[id] = p
		}
		// Of a key that an old price had as well the one that is sold counts.
		if key := r.StripeLookupKey.String; key != "" && !active[key] {
			b.byKey[key], active[key] = p, r.IsActive
		}
	}
	for id, name := range configured {
		if plan := c.byName(name); plan != nil {
			b.configured[id] = plan.ID
		}
	}
	for _, r := range learned {
		b.learned[r.PriceID] = r.PlanID
	}
	return b, nil
}

// plan is what the price means; ok is false for a price that no plan knows.
func (b *priceBook) plan(priceID, lookupKey string) (p pricedPlan, ok bool) {
	if p, ok = b.byID[priceID]; ok {
		return p, true
	}
	keyed, hasKey := b.byKey[lookupKey]
	for _, plans := range []map[string]string{b.configured, b.learned} {
		if id, ok := plans[priceID]; ok {
			if keyed.planID == id {
				return keyed, true
			}
			return pricedPlan{planID: id}, true
		}
	}
	return keyed, hasKey
}

// learn keeps what a price was seen to mean: its lookup key may move on to the
// plan's next price, and the config to another one.
func (b *priceBook) learn(ctx context.Context, q *sqlgen.Queries, priceID string, p pricedPlan, now column.Time) error {
	if _, known := b.byID[priceID]; known || priceID == "" {
		return nil
	}
	if _, known := b.learned[priceID]; known {
		return nil
	}
	if err := q.LearnPrice(ctx, sqlgen.LearnPriceParams{PriceID: priceID, PlanID: p.planID, LearnedAt: now}); err != nil {
		return fmt.Errorf("writing stripe_prices: %w", err)
	}
	b.learned[priceID] = p.planID
	return nil
}
