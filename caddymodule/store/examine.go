package store

import (
	"context"
	"errors"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/doctor"
)

// Examine says how the records are set up, for an operator: the schema, the
// plans, and the host's tables. migrates says that a gateway brings the schema up
// to date by itself. It changes nothing, and an answer of the database that is in
// the way is a finding too.
func (s *Store) Examine(ctx context.Context, defaultPlan string, migrates bool) []doctor.Finding {
	schema, there := s.examineSchema(ctx, migrates)
	findings := []doctor.Finding{schema}
	if there {
		findings = append(findings, s.examinePlans(ctx, defaultPlan))
	}
	return append(findings, s.examineHost(ctx)...)
}

func (s *Store) examineSchema(ctx context.Context, migrates bool) (f doctor.Finding, usable bool) {
	const check = "schema"
	have, err := schemaVersion(ctx, s.db, s.engine)
	if err != nil {
		return doctor.Fault(check, "%v", err), false
	}
	list, err := versions(s.engine)
	if err != nil {
		return doctor.Fault(check, "%v", err), false
	}
	switch want := list[len(list)-1].number; {
	case have < want && migrates:
		return doctor.Well(check, "version %d; the gateway brings it to %d when it starts (migrate auto)", have, want), false
	case have < want:
		return doctor.Fault(check, "%v", &SchemaError{Have: have, Want: want}).Do("caddy quota migrate up"), false
	case have > want:
		return doctor.Well(check, "version %d, newer than the %d of this build, which works with it", have, want), true
	default:
		return doctor.Well(check, "version %d, the newest of this build", have), true
	}
}

func (s *Store) examinePlans(ctx context.Context, defaultPlan string) doctor.Finding {
	const check = "plans"
	plans, err := s.ListPlans(ctx, PlanFilter{})
	if err != nil {
		return doctor.Fault(check, "%v", err)
	}
	if err := s.CheckPlans(ctx); err != nil {
		return doctor.Fault(check, "%v", err).Do("caddy quota plans export, correct it, caddy quota plans apply")
	}
	var names []string
	marked := ""
	for _, p := range plans {
		names = append(names, p.Name)
		if p.IsDefault {
			marked = p.Name
		}
	}
	if defaultPlan != "" {
		_, err := s.PlanByName(ctx, defaultPlan)
		if errors.Is(err, ErrPlanNotFound) {
			return doctor.Fault(check, "default_plan %q is the name of no plan, of which there are: %s", defaultPlan, strings.Join(names, ", "))
		}
		if err != nil {
			return doctor.Fault(check, "%v", err)
		}
		marked = defaultPlan
	}
	if marked == "" {
		return doctor.Fault(check, "no plan is the default one, so that nobody without a subscription has a plan").Do("default_plan " + one(names))
	}
	return doctor.Well(check, "%s; without a subscription: %s", strings.Join(names, ", "), marked)
}

// one is an example of a plan.
func one(names []string) string {
	if len(names) == 0 {
		return "<plan>"
	}
	return names[0]
}
