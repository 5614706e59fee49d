package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// ErrPlanExists says that another plan has the name (409).
var ErrPlanExists = errors.New("plan exists")

// PlanByID is the plan with that id; ErrPlanNotFound.
func (s *Companion) PlanByID(ctx context.Context, id string) (*Plan, error) {
	var plan *Plan
	err := s.read(ctx, func(q *sqlgen.Queries) (err error) {
		plan, err = s.planByID(ctx, q, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading plan: %w", err)
	}
	return plan, nil
}

// planByID is the plan as its own row has it: whether it is the default one the
// row says, whatever the config does.
func (s *Companion) planByID(ctx context.Context, q *sqlgen.Queries, id string) (*Plan, error) {
	c, err := s.loadCatalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	row := c.byID(id)
	if row == nil {
		return nil, ErrPlanNotFound
	}
	prices, err := loadPrices(ctx, q)
	if err != nil {
		return nil, err
	}
	plan, err := c.full(row, prices)
	if err == nil {
		plan.IsDefault = row.IsDefault
	}
	return plan, err
}

// CreatePlan makes a plan, by the rules of ApplyPlans: an *InvalidError says what
// is wrong with the document. Answers also ErrPlanExists.
func (s *Companion) CreatePlan(ctx context.Context, by Actor, d PlanDocument, reason string) (*Plan, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	var plan *Plan
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		a, err := s.beginApplying(ctx, q)
		if err != nil {
			return err
		}
		if a.rows[d.Name] != nil {
			return fmt.Errorf("%w: %q", ErrPlanExists, d.Name)
		}
		if plan, err = s.putPlan(ctx, a, d); err != nil {
			return err
		}
		return log.plan("plan.created", nil, plan, reason)
	})
	if err != nil {
		return nil, fmt.Errorf("creating plan: %w", err)
	}
	return plan, nil
}

// ChangePlan lets edit change the plan's document and makes the plan what it says
// then, by the rules of ApplyPlans. Its name is for ever. Matches is asked whether the
// version is the one that the caller has read (ErrChanged); the version rises only
// if anything changes. Answers also ErrPlanNotFound, *InvalidError.
func (s *Companion) ChangePlan(ctx context.Context, by Actor, id string, matches func(version int64) bool,
	edit func(*PlanDocument), reason string) (*Plan, error) {
	var plan *Plan
	err := s.audited(ctx, by, func(q *sqlgen.Queries, log *auditor) error {
		a, err := s.beginApplying(ctx, q)
		if err != nil {
			return err
		}
		before, err := s.planByID(ctx, q, id)
		if err != nil {
			return err
		}
		if !matches(before.Version) {
			return ErrChanged
		}
		d := documentOf(before)
		edit(&d)
		d.Name = before.Name
		if before.IsDefault && !d.IsDefault {
			return invalid("is_default", "make another plan the default one instead")
		}
		if err := d.validate(); err != nil {
			return err
		}
		if plan, err = s.putPlan(ctx, a, d); err != nil || plan.Version == before.Version {
			return err
		}
		return log.plan("plan.updated", before, plan, reason)
	})
	if err != nil {
		return nil, fmt.Errorf("changing plan: %w", err)
	}
	return plan, nil
}

// validate is PlansDocument.Validate for one plan; the error is the caller's fault.
func (p *PlanDocument) validate() error {
	whole := PlansDocument{Plans: []PlanDocument{*p}}
	if err := whole.Validate(); err != nil {
		return &InvalidError{Field: "plan", Err: err}
	}
	return nil
}

// putPlan writes the document and reads what became of it.
func (s *Companion) putPlan(ctx context.Context, a *applying, d PlanDocument) (*Plan, error) {
	for _, price := range d.Prices {
		if err := a.free(d.Name, price); err != nil {
			return nil, err
		}
	}
	if d.IsDefault {
		if err := a.setDefault(ctx, &PlansDocument{Plans: []PlanDocument{d}}); err != nil {
			return nil, err
		}
	}
	if err := a.plan(ctx, &d); err != nil {
		return nil, err
	}
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	return s.planByID(ctx, a.q, a.rows[d.Name].ID)
}

// free refuses a price whose name at Stripe another one has.
func (a *applying) free(plan string, want PriceDocument) error {
	for name, row := range a.rows {
		for _, p := range a.prices[row.ID] {
			same := name == plan && p.Interval == want.Interval && p.Currency == want.Currency && p.UnitAmount == *want.UnitAmount
			switch {
			case want.LookupKey != "" && name != plan && p.IsActive && p.LookupKey == want.LookupKey:
				return invalid("prices", "stripe_lookup_key %q is the plan %s's", want.LookupKey, name)
			case want.PriceID != "" && !same && p.PriceID == want.PriceID:
				return invalid("prices", "stripe_price_id %q is that of another price, of the plan %s", want.PriceID, name)
			}
		}
	}
	return nil
}

// plan notes what has changed of a plan; before is nil for a new one.
func (a *auditor) plan(action string, before, after *Plan, reason string) error {
	e := AuditEvent{Action: action, ResourceType: "plan", ResourceID: after.ID, Reason: reason, Metadata: map[string]any{"plan": after.Name}}
	var old any
	if before != nil {
		old = documentOf(before)
	}
	var err error
	if e.Changes, err = differences(old, documentOf(after)); err != nil {
		return err
	}
	a.add(e)
	return nil
}

// readablePlans are the plans by name, without those whose rows cannot be read:
// applying a document may be what mends them.
func (s *Companion) readablePlans(ctx context.Context, q *sqlgen.Queries) (map[string]*Plan, error) {
	c, err := s.loadCatalogue(ctx, q)
	if err != nil {
		return nil, err
	}
	plans := map[string]*Plan{}
	for i := range c.rows {
		p, err := s.planByID(ctx, q, c.rows[i].ID)
		if bad := (*RowError)(nil); errors.As(err, &bad) {
			continue
		}
		if err != nil {
			return nil, err
		}
		plans[p.Name] = p
	}
	return plans, nil
}

// logApplied notes what has become of the plans that a document has changed.
func (s *Companion) logApplied(ctx context.Context, q *sqlgen.Queries, log *auditor, before map[string]*Plan, r *ApplyResult) error {
	after, err := s.readablePlans(ctx, q)
	if err != nil {
		return err
	}
	for _, done := range []struct {
		action string
		names  []string
	}{{"plan.created", r.Created}, {"plan.updated", r.Updated}} {
		for _, name := range done.names {
			if after[name] == nil {
				continue
			}
			if err := log.plan(done.action, before[name], after[name], ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// differences are the members in which two objects differ as JSON; nil has none.
func differences(before, after any) (map[string]AuditChange, error) {
	old, err := members(before)
	if err != nil {
		return nil, err
	}
	now, err := members(after)
	if err != nil {
		return nil, err
	}
	changes := map[string]AuditChange{}
	for name, value := range now {
		if !bytes.Equal(old[name], value) {
			changes[name] = AuditChange{From: old[name], To: value}
		}
	}
	for name, value := range old {
		if _, kept := now[name]; !kept {
			changes[name] = AuditChange{From: value}
		}
	}
	return changes, nil
}

func members(v any) (map[string]json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if v == nil {
		return m, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding what changed: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("encoding what changed: %w", err)
	}
	return m, nil
}

// DisplayPrice is what a plan costs by month, else by year: in the minor unit
// and as "monthly", "yearly", or "" for a plan that has no price.
func DisplayPrice(p *Plan) (cents int64, period string) {
	for _, interval := range []string{"month", "year"} {
		for _, price := range p.Prices {
			if price.IsActive && price.Interval == interval {
				return price.UnitAmount, interval + "ly"
			}
		}
	}
	return 0, ""
}
