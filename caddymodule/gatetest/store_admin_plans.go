package gatetest

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/store"
)

// team is a plan that is right as it stands.
func (t *storeTest) team() store.PlanDocument {
	t.Helper()
	return t.parse(teamPlan).Plans[0]
}

func always(int64) bool { return true }

func testCreatePlan(t *storeTest) {
	p, err := t.store.CreatePlan(t.Context(), root, t.team(), "asked for")
	t.ok(err)
	if p.Version != 1 || p.MultiplierPct != 725 || len(p.Prices) != 1 || p.Quotas["jobs"].Limit != 50 {
		t.Errorf("%+v", p)
	}
	action, changes := t.noted()
	if action != "plan.created" || changes["name"].To != "team" || changes["name"].From != nil || changes["tier"].To != 15.0 {
		t.Errorf("%s %v", action, changes)
	}
	if _, err := t.store.CreatePlan(t.Context(), root, t.team(), ""); !isErr(err, store.ErrPlanExists) {
		t.Errorf("once more: %v", err)
	}
	for name, edit := range map[string]func(*store.PlanDocument){
		"name":            func(d *store.PlanDocument) { d.Name = "Team Plan" },
		"multiplier":      func(d *store.PlanDocument) { d.Multiplier = 0 },
		"another's key":   func(d *store.PlanDocument) { d.Prices[0].LookupKey = "pro_monthly" },
		"same key twice":  func(d *store.PlanDocument) { d.Prices = append(d.Prices, d.Prices[0]) },
		"limit":           func(d *store.PlanDocument) { d.Quotas["jobs"] = store.QuotaDocument{Period: "month", Status: 402} },
		"default, hidden": func(d *store.PlanDocument) { d.IsDefault, d.IsActive = true, new(bool) },
	} {
		d := t.team()
		d.Name = "other"
		edit(&d)
		if _, err := t.store.CreatePlan(t.Context(), root, d, ""); asErr[*store.InvalidError](err) == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := t.number("SELECT COUNT(*) FROM subscription_plans") + 10*t.number("SELECT COUNT(*) FROM audit_events"); n != 4+10 {
		t.Errorf("something was left behind: %d", n)
	}
	d := t.team()
	d.Name, d.IsDefault, d.Prices = "base", true, nil
	p, err = t.store.CreatePlan(t.Context(), root, d, "")
	if err != nil || !p.IsDefault || t.plan(alice) != "base " {
		t.Errorf("another default: %+v, %v", p, err)
	}
}

func testChangePlan(t *storeTest) {
	team, err := t.store.CreatePlan(t.Context(), root, t.team(), "")
	t.ok(err)
	version := team.Version
	change := func(edit func(*store.PlanDocument)) *store.Plan {
		t.Helper()
		seq := t.number("SELECT MAX(seq) FROM changes")
		p, err := t.store.ChangePlan(t.Context(), root, team.ID, func(v int64) bool { return v == version }, edit, "")
		t.ok(err)
		if p.Version != version+1 {
			t.Errorf("version %d, want %d", p.Version, version+1)
		}
		version = p.Version
		if n := t.number("SELECT COUNT(*) FROM changes WHERE seq > $1 AND subject IN ('*', $2)", seq, "plan:"+team.ID); n == 0 {
			t.Error("the gateways are not told")
		}
		return p
	}
	if p := change(func(d *store.PlanDocument) { d.DisplayName = "The Team" }); p.DisplayName != "The Team" || p.Name != "team" {
		t.Errorf("%+v", p)
	}
	t.wantNoted("plan.updated", map[string]store.AuditChange{"display_name": {From: "Team", To: "The Team"}})
	// Of whatever is edited the version rises.
	jobs := func(n int64) func(*store.PlanDocument) {
		return func(d *store.PlanDocument) {
			q := d.Quotas["jobs"]
			q.Limit.Value = n
			d.Quotas["jobs"] = q
		}
	}
	if p := change(jobs(60)); p.Quotas["jobs"].Limit != 60 || p.Quotas["renders"].Period.String() != "day" {
		t.Errorf("%+v", p.Quotas)
	}
	change(func(d *store.PlanDocument) { delete(d.Quotas, "renders") })
	change(func(d *store.PlanDocument) { d.Prices = nil })
	t.applied(team.ID, jobs(60))
	for name, c := range map[string]struct {
		id      string
		matches func(int64) bool
		edit    func(*store.PlanDocument)
		want    error
	}{
		"changed meanwhile": {team.ID, func(v int64) bool { return v == version-1 }, jobs(1), store.ErrChanged},
		"no such plan":      {"x' OR '1'='1", always, jobs(1), store.ErrPlanNotFound},
	} {
		if _, err := t.store.ChangePlan(t.Context(), root, c.id, c.matches, c.edit, ""); !isErr(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := t.store.ChangePlan(t.Context(), root, team.ID, always, jobs(-1), ""); asErr[*store.InvalidError](err) == nil {
		t.Errorf("wrong: %v", err)
	}
	free, err := t.store.PlanByName(t.Context(), "free")
	t.ok(err)
	if _, err := t.store.ChangePlan(t.Context(), root, free.ID, always, func(d *store.PlanDocument) { d.IsDefault = false }, ""); asErr[*store.InvalidError](err) == nil {
		t.Errorf("no default is left: %v", err)
	}
	change(func(d *store.PlanDocument) { d.IsDefault = true })
	t.wantPlan(alice, "team ")
	t.store.SetDefaultPlan("pro") // by the config: the rows stay as they are
	change(func(d *store.PlanDocument) { d.Description = "x" })
	if n := t.number("SELECT COUNT(*) FROM subscription_plans WHERE is_default AND name = 'team'"); n != 1 {
		t.Error("the config's default plan became the records'")
	}
}

// applied fails unless the edit, which changes nothing, leaves no trace.
func (t *storeTest) applied(id string, edit func(*store.PlanDocument)) {
	t.Helper()
	before, err := t.store.PlanByID(t.Context(), id)
	t.ok(err)
	state := func() int64 {
		return t.number("SELECT MAX(seq) FROM changes") + t.number("SELECT COUNT(*) FROM audit_events")
	}
	was := state()
	p, err := t.store.ChangePlan(t.Context(), root, id, always, edit, "")
	t.ok(err)
	if diff := cmp.Diff(before, p); diff != "" || state() != was {
		t.Errorf("an edit of nothing left a trace:\n%s", diff)
	}
}

// Of those who have read one version one may write, and nothing is lost.
func testChangePlanConcurrently(t *storeTest) {
	team, err := t.store.CreatePlan(t.Context(), root, t.team(), "")
	t.ok(err)
	const n = 8
	errs := concurrently(t.Context(), n, func(ctx context.Context, i int) error {
		_, err := t.store.ChangePlan(ctx, root, team.ID, func(v int64) bool { return v == team.Version }, func(d *store.PlanDocument) {
			d.Description = fmt.Sprint("by ", i)
		}, "")
		return err
	})
	done := ""
	for i, err := range errs {
		switch {
		case err == nil:
			done += fmt.Sprint("by ", i)
		case !isErr(err, store.ErrChanged):
			t.Error(err)
		}
	}
	p, err := t.store.PlanByID(t.Context(), team.ID)
	if err != nil || p.Version != team.Version+1 || p.Description != done || strings.Count(done, "by") != 1 {
		t.Errorf("version %d, %q, %q, %v", p.Version, p.Description, done, err)
	}
}
