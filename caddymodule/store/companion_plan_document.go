package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store/column"
	"go.yaml.in/yaml/v3"
)

// Unlimited is the word for no limit in a plans document. An empty limit is an
// error: it must not mean one by accident.
const Unlimited = "unlimited"

// PlansDocument is what `caddy quota plans export` writes and `apply` reads, as
// YAML or JSON (which is YAML).
type PlansDocument struct {
	Plans []PlanDocument `yaml:"plans" json:"plans"`
}

// PlanDocument is one plan. What is left out has its default; the optional
// booleans default to true.
type PlanDocument struct {
	Name        string                   `yaml:"name" json:"name"`
	DisplayName string                   `yaml:"display_name,omitempty" json:"display_name,omitempty"` // default: the name
	Description string                   `yaml:"description,omitempty" json:"description,omitempty"`
	Tier        int64                    `yaml:"tier" json:"tier"`
	IsDefault   bool                     `yaml:"is_default,omitempty" json:"is_default,omitempty"`
	IsActive    *bool                    `yaml:"is_active,omitempty" json:"is_active,omitempty"`
	IsPublic    *bool                    `yaml:"is_public,omitempty" json:"is_public,omitempty"`
	TrialDays   int64                    `yaml:"trial_days,omitempty" json:"trial_days,omitempty"`
	Multiplier  Multiplier               `yaml:"rate_limit_multiplier" json:"rate_limit_multiplier"` // required
	Features    map[string]bool          `yaml:"features,omitempty" json:"features,omitempty"`
	RateLimits  map[string]RateDocument  `yaml:"rate_limits,omitempty" json:"rate_limits,omitempty"`
	Quotas      map[string]QuotaDocument `yaml:"quotas,omitempty" json:"quotas,omitempty"`
	Prices      []PriceDocument          `yaml:"prices,omitempty" json:"prices,omitempty"`
}

// RateDocument is a rate: both fields are required, the window is in seconds.
type RateDocument struct {
	Requests *int64 `yaml:"requests" json:"requests"`
	Window   *int64 `yaml:"window" json:"window"`
}

// QuotaDocument is a quota: all fields are required.
type QuotaDocument struct {
	Limit  LimitDocument `yaml:"limit" json:"limit"`
	Period string        `yaml:"period" json:"period"`
	Status int           `yaml:"exceeded_status" json:"exceeded_status"`
}

// PriceDocument is a price that can be chosen. A price that a document no longer
// names stays in the records, inactive.
type PriceDocument struct {
	Interval   string `yaml:"interval" json:"interval"`
	Currency   string `yaml:"currency" json:"currency"`
	UnitAmount *int64 `yaml:"unit_amount" json:"unit_amount"` // required, in the minor unit
	PerSeat    bool   `yaml:"per_seat,omitempty" json:"per_seat,omitempty"`
	LookupKey  string `yaml:"stripe_lookup_key,omitempty" json:"stripe_lookup_key,omitempty"`
	PriceID    string `yaml:"stripe_price_id,omitempty" json:"stripe_price_id,omitempty"`
	Livemode   bool   `yaml:"livemode,omitempty" json:"livemode,omitempty"`
}

// Multiplier is a decimal with at most two places, in hundredths; 0: not given.
type Multiplier column.Hundredths

// UnmarshalYAML reads the decimal as it is written: 1.15 is not 1.149999.
func (m *Multiplier) UnmarshalYAML(node *yaml.Node) error {
	h, err := column.ParseHundredths(node.Value)
	if err != nil || node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: rate_limit_multiplier: %q is not a decimal with at most two places", node.Line, node.Value)
	}
	*m = Multiplier(h)
	return nil
}

// MarshalYAML writes the decimal with two places.
func (m Multiplier) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: column.Hundredths(m).String()}, nil
}

// MarshalJSON writes a number with two places.
func (m Multiplier) MarshalJSON() ([]byte, error) { return []byte(column.Hundredths(m).String()), nil }

// LimitDocument is a number or the word "unlimited".
type LimitDocument struct {
	Given, Unlimited bool
	Value            int64
}

// UnmarshalYAML refuses everything but a whole number and the word.
func (l *LimitDocument) UnmarshalYAML(node *yaml.Node) error {
	if node.Value == Unlimited {
		*l = LimitDocument{Given: true, Unlimited: true}
		return nil
	}
	n, err := strconv.ParseInt(node.Value, 10, 64)
	if err != nil || node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: limit: %q is neither a whole number nor %q", node.Line, node.Value, Unlimited)
	}
	*l = LimitDocument{Given: true, Value: n}
	return nil
}

func (l LimitDocument) value() any {
	if l.Unlimited {
		return Unlimited
	}
	return l.Value
}

// MarshalYAML writes what UnmarshalYAML reads.
func (l LimitDocument) MarshalYAML() (any, error) { return l.value(), nil }

// MarshalJSON writes what UnmarshalYAML reads.
func (l LimitDocument) MarshalJSON() ([]byte, error) {
	if l.Unlimited {
		return []byte(strconv.Quote(Unlimited)), nil
	}
	return strconv.AppendInt(nil, l.Value, 10), nil
}

// maxDocument bounds what ParsePlans reads.
const maxDocument = 4 << 20

// ParsePlans reads a document and validates it: unknown and repeated fields, and
// everything that could not be enforced as written, are errors with their place.
func ParsePlans(data []byte) (*PlansDocument, error) {
	if len(data) > maxDocument {
		return nil, fmt.Errorf("reading plans: more than %d bytes", maxDocument)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var d PlansDocument
	if err := dec.Decode(&d); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the document is empty")
		}
		return nil, fmt.Errorf("reading plans: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading plans: more than one document")
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("reading plans: %w", err)
	}
	return &d, nil
}

// YAML is the document as text.
func (d *PlansDocument) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("writing plans: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing plans: %w", err)
	}
	return b.Bytes(), nil
}

// Validate reports everything that is wrong with the document, each with its place.
func (d *PlansDocument) Validate() error {
	var errs []error
	names, keys, ids := map[string]bool{}, map[string]bool{}, map[string]bool{}
	defaults := 0
	if len(d.Plans) == 0 {
		errs = append(errs, errors.New("plans: none"))
	}
	for i := range d.Plans {
		p := &d.Plans[i]
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("plan %s: named twice", p.Name))
		}
		names[p.Name] = true
		if p.IsDefault {
			defaults++
		}
		if _, err := p.plan(); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, p.validateRest()...)
		for _, price := range p.Prices {
			for _, u := range []struct {
				field, value string
				seen         map[string]bool
			}{{"stripe_lookup_key", price.LookupKey, keys}, {"stripe_price_id", price.PriceID, ids}} {
				if u.value != "" && u.seen[u.value] {
					errs = append(errs, fmt.Errorf("plan %s: prices: %s %q is used twice", p.Name, u.field, u.value))
				}
				u.seen[u.value] = true
			}
		}
	}
	if defaults > 1 {
		errs = append(errs, fmt.Errorf("plans: %d have is_default, only one can", defaults))
	}
	return errors.Join(errs...)
}

// plan is the part that the gate enforces, validated.
func (p *PlanDocument) plan() (*quota.Plan, error) {
	var errs []error
	plan := &quota.Plan{
		Name: p.Name, DisplayName: p.DisplayName, MultiplierPct: int64(p.Multiplier), Features: p.Features,
		RateLimits: map[string]quota.Rate{}, Quotas: map[string]quota.Quota{},
	}
	if plan.DisplayName == "" {
		plan.DisplayName = p.Name
	}
	for _, scope := range sortedKeys(p.RateLimits) {
		r := p.RateLimits[scope]
		if r.Requests == nil || r.Window == nil {
			errs = append(errs, fmt.Errorf("plan %s: rate_limits.%s: want requests and window", p.Name, scope))
			continue
		}
		rate, err := rateOf(*r.Requests, *r.Window)
		if err != nil {
			errs = append(errs, fmt.Errorf("plan %s: rate_limits.%s: %w", p.Name, scope, err))
			continue
		}
		plan.RateLimits[scope] = rate
	}
	for _, metric := range sortedKeys(p.Quotas) {
		q := p.Quotas[metric]
		period, err := quota.ParsePeriod(q.Period)
		if err != nil {
			errs = append(errs, fmt.Errorf("plan %s: quotas.%s: %w", p.Name, metric, err))
			continue
		}
		if !q.Limit.Given {
			errs = append(errs, fmt.Errorf("plan %s: quotas.%s: limit is missing: want a number or %q", p.Name, metric, Unlimited))
			continue
		}
		plan.Quotas[metric] = quota.Quota{Limit: q.Limit.Value, Unlimited: q.Limit.Unlimited, Period: period, Status: q.Status}
	}
	if err := plan.Validate(); err != nil {
		errs = append(errs, err)
	}
	return plan, errors.Join(errs...)
}

// validateRest is what the gate does not look at.
func (p *PlanDocument) validateRest() (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("plan %s: "+format, append([]any{p.Name}, args...)...))
	}
	if p.TrialDays < 0 || p.TrialDays > 3650 {
		bad("trial_days %d is outside 0..3650", p.TrialDays)
	}
	if err := quota.CheckAmount("tier", max(p.Tier, -p.Tier)); err != nil {
		bad("%w", err)
	}
	if p.IsDefault && p.IsActive != nil && !*p.IsActive {
		bad("is_default: the default plan must be active")
	}
	texts := map[string]string{"display_name": p.DisplayName, "description": p.Description}
	for name := range p.Features {
		texts[fmt.Sprintf("features: the name %q", name)] = name
	}
	for i, price := range p.Prices {
		texts[fmt.Sprintf("prices[%d]: stripe_lookup_key", i)] = price.LookupKey
		texts[fmt.Sprintf("prices[%d]: stripe_price_id", i)] = price.PriceID
	}
	for _, what := range sortedKeys(texts) {
		if !isText(texts[what]) {
			bad("%s contains a zero byte, or is not UTF-8", what)
		}
	}
	for i, price := range p.Prices {
		if price.Interval != "month" && price.Interval != "year" {
			bad("prices[%d]: interval %q is neither month nor year", i, price.Interval)
		}
		if !validCurrency(price.Currency) {
			bad("prices[%d]: currency %q is not three lower-case letters", i, price.Currency)
		}
		if price.UnitAmount == nil {
			bad("prices[%d]: unit_amount is missing", i)
		} else if err := quota.CheckAmount("unit_amount", *price.UnitAmount); err != nil {
			bad("prices[%d]: %w", i, err)
		}
	}
	return errs
}

func validCurrency(s string) bool {
	if len(s) != 3 {
		return false
	}
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return true
}

// ExportPlans is the document of all plans, by tier.
func (s *Companion) ExportPlans(ctx context.Context) (*PlansDocument, error) {
	plans, err := s.ListPlans(ctx, PlanFilter{})
	if err != nil {
		return nil, fmt.Errorf("exporting plans: %w", err)
	}
	d := &PlansDocument{}
	for _, p := range plans {
		d.Plans = append(d.Plans, documentOf(p))
	}
	return d, nil
}

func documentOf(p *Plan) PlanDocument {
	d := PlanDocument{
		Name: p.Name, DisplayName: p.DisplayName, Description: p.Description, Tier: p.Tier, IsDefault: p.IsDefault,
		IsActive: &p.IsActive, IsPublic: &p.IsPublic, TrialDays: p.TrialDays, Multiplier: Multiplier(p.MultiplierPct),
		Features: p.Features, RateLimits: map[string]RateDocument{}, Quotas: map[string]QuotaDocument{},
	}
	for scope, r := range p.RateLimits {
		requests, seconds := r.Requests, int64(r.Window/time.Second)
		d.RateLimits[scope] = RateDocument{&requests, &seconds}
	}
	for metric, q := range p.Quotas {
		d.Quotas[metric] = QuotaDocument{
			Limit: LimitDocument{Given: true, Unlimited: q.Unlimited, Value: q.Limit}, Period: q.Period.String(), Status: q.Status,
		}
	}
	for _, price := range p.Prices {
		if price.IsActive {
			amount := price.UnitAmount
			d.Prices = append(d.Prices, PriceDocument{
				price.Interval, price.Currency, &amount, price.PerSeat, price.LookupKey, price.PriceID, price.Livemode,
			})
		}
	}
	return d
}
