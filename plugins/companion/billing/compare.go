package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// The kinds of drift.
const (
	// DriftMissing: the provider has a subscription that is not here.
	DriftMissing = "missing"
	// DriftUnknown: here is one that the provider does not have.
	DriftUnknown = "unknown"
	// DriftDiffers: both have it, and it differs.
	DriftDiffers = "differs"
)

func driftKinds() []string { return []string{DriftMissing, DriftUnknown, DriftDiffers} }

// Drift is one subscription in which the records and the provider differ.
type Drift struct {
	Kind         string   `json:"kind" enum:"missing,unknown,differs" doc:"missing: only the provider has it; unknown: only we have it; differs: see fields."`
	Subscription string   `json:"stripe_subscription_id"`
	Customer     string   `json:"stripe_customer_id"`
	Account      string   `json:"account_id"`
	Fields       []string `json:"fields,omitempty" nullable:"false" doc:"What differs."`
}

// Comparison is what a full comparison found.
type Comparison struct {
	// Compared counts the provider's subscriptions, without those of customers
	// that no account is; Drifts is the first hundred of Drifted.
	Compared int `json:"compared"`
	Drifted  int `json:"drifted"`
	Foreign  int `json:"foreign" doc:"Subscriptions of customers that no account is."`
	// ByKind has every kind.
	ByKind map[string]int `json:"by_kind" nullable:"false" doc:"How many of each kind."`
	Drifts []Drift        `json:"drifts" nullable:"false" doc:"At most 100."`
}

func newComparison() *Comparison {
	c := &Comparison{ByKind: map[string]int{}, Drifts: []Drift{}}
	for _, kind := range driftKinds() {
		c.ByKind[kind] = 0
	}
	return c
}

func (c *Comparison) add(d Drift) {
	c.Drifted++
	c.ByKind[d.Kind]++
	if len(c.Drifts) < driftsInReport {
		c.Drifts = append(c.Drifts, d)
	}
}

// compareAll compares everything, and has what differs read again.
func (d *desk) compareAll(ctx context.Context, st *store.Companion, _ *store.BillingMark, _ time.Time) (any, error) {
	c, err := d.compare(ctx, st, func(x Drift) error { return st.RequestSync(ctx, x.Customer, "drift") })
	if err != nil {
		return nil, err
	}
	if c.Drifted > 0 {
		d.log.Error("the records differed from the payment provider: what differs is read again", zap.Int("subscriptions", c.Drifted))
		d.nudge()
	}
	return c, nil
}

// compare looks at every subscription here and there, and calls each for what
// differs. What was read meanwhile, or waits to be, differs for a good reason.
func (d *desk) compare(ctx context.Context, st *store.Companion, each func(Drift) error) (*Comparison, error) {
	begun, err := st.Clock(ctx)
	if err != nil {
		return nil, err
	}
	cmp := &comparing{Comparison: newComparison(), here: map[string]store.StoredSubscription{}, accounts: map[string]string{}}
	if cmp.planOf, err = st.PlanOfPrice(ctx, d.plansByPrice()); err != nil {
		return nil, err
	}
	err = st.StoredSubscriptions(ctx, func(s store.StoredSubscription) error {
		cmp.here[s.StripeID] = s
		cmp.accounts[s.Customer] = s.Account.ID()
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := func(x *Drift) error {
		if x == nil {
			return nil
		}
		if known, err := st.ReadSince(ctx, x.Customer, begun); err != nil || known {
			return err
		}
		cmp.add(*x)
		return each(*x)
	}
	err = d.provider.AllSubscriptions(ctx, func(s Subscription) error {
		if err := cmp.know(ctx, st, s.Customer); err != nil {
			return err
		}
		return found(cmp.there(s))
	})
	if err != nil {
		return nil, fmt.Errorf("listing subscriptions: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(cmp.here)) {
		if err := found(cmp.only(id)); err != nil {
			return nil, err
		}
	}
	return cmp.Comparison, nil
}

// comparing is a comparison under way.
type comparing struct {
	*Comparison
	planOf func(priceID, lookupKey string) store.PricedPlan
	// here are our subscriptions that the provider has not yet named.
	here     map[string]store.StoredSubscription
	accounts map[string]string // by customer; empty: none of ours
}

// know finds out whose customer it is.
func (c *comparing) know(ctx context.Context, st *store.Companion, customer string) error {
	if _, known := c.accounts[customer]; known {
		return nil
	}
	account, err := st.CustomerAccount(ctx, customer)
	if err != nil {
		return err
	}
	c.accounts[customer] = ""
	if account != "" {
		c.accounts[customer] = account.ID()
	}
	return nil
}

// there compares one that the provider has; nil: there is nothing to tell.
func (c *comparing) there(s Subscription) *Drift {
	s.choose(c.planOf)
	ours, known := c.here[s.ID]
	delete(c.here, s.ID)
	account := c.accounts[s.Customer]
	if account == "" {
		c.Foreign++
		return nil
	}
	c.Compared++
	x := &Drift{Kind: DriftDiffers, Subscription: s.ID, Customer: s.Customer, Account: account}
	if !known {
		x.Kind = DriftMissing
		return x
	}
	if x.Fields = differing(&s, &ours, c.planOf); len(x.Fields) == 0 {
		return nil
	}
	return x
}

// only is one that the provider has not named; nil: it is known to be gone.
func (c *comparing) only(id string) *Drift {
	ours := c.here[id]
	if ours.StripeStatus == "missing" || ours.Customer == "" {
		return nil
	}
	return &Drift{Kind: DriftUnknown, Subscription: id, Customer: ours.Customer, Account: ours.Account.ID()}
}

// differing are the fields in which a subscription differs.
func differing(there *Subscription, here *store.StoredSubscription, planOf func(string, string) store.PricedPlan) []string {
	want := stored(there, nil)
	var fields []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"status", there.Status == here.StripeStatus},
		{"plan", planOf(there.PriceID, there.LookupKey).Name == here.Plan},
		{"quantity", max(there.Quantity, 1) == here.Quantity},
		{"current_period_end", there.PeriodEnd.Equal(here.PeriodEnd)},
		{"cancel_at_period_end", want.CancelAtPeriodEnd == here.CancelAtPeriodEnd},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// LastComparison is what the last full comparison found; at is zero if there was none.
func LastComparison(ctx context.Context, st *store.Companion) (at time.Time, c Comparison, err error) {
	c = *newComparison()
	mark, err := st.BillingMark(ctx, markCompared)
	if err != nil || mark == nil {
		return time.Time{}, c, err
	}
	if err := json.Unmarshal(mark.Details, &c); err != nil {
		return time.Time{}, c, fmt.Errorf("reading the last comparison: %w", err)
	}
	return mark.At, c, nil
}
