package store_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func TestParsePlansErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range gatetest.PlanDocumentErrors(t) {
		_, err := store.ParsePlans([]byte(tt.Text))
		if err == nil || !strings.Contains(err.Error(), tt.Want) {
			t.Errorf("%s: %v, want %q", name, err, tt.Want)
		}
	}
	if _, err := store.ParsePlans(make([]byte, 5<<20)); err == nil {
		t.Error("a document of 5 MiB was accepted")
	}
}

// All that is wrong is said at once.
func TestParsePlansReportsEverything(t *testing.T) {
	t.Parallel()
	_, err := store.ParsePlans([]byte("plans:\n- {name: A, tier: 0, rate_limit_multiplier: 0, quotas: {x: {period: week}, y: {limit: -1, period: day, exceeded_status: 1}}}"))
	for _, want := range []string{`"A"`, "rate_limit_multiplier", "quotas.x", "quotas.y"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}

func TestPlansAsJSON(t *testing.T) {
	t.Parallel()
	const text = `{"plans":[{"name":"team","tier":1,"rate_limit_multiplier":1.15,"is_default":true,
		"quotas":{"jobs":{"limit":"unlimited","period":"month","exceeded_status":402},"api_calls":{"limit":5,"period":"day","exceeded_status":429}}}]}`
	d, err := store.ParsePlans([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := store.ParsePlans(encoded)
	if err != nil {
		t.Fatalf("%v: %s", err, encoded)
	}
	if diff := cmp.Diff(d, again); diff != "" || !strings.Contains(string(encoded), "1.15") {
		t.Errorf("%s\n%s", encoded, diff)
	}
}

func FuzzParsePlans(f *testing.F) {
	f.Add("plans:\n- {name: a, tier: 0, rate_limit_multiplier: 1}")
	f.Add(`{"plans":[{"name":"a","tier":1,"rate_limit_multiplier":1.5,"quotas":{"j":{"limit":1,"period":"day","exceeded_status":402}}}]}`)
	f.Add("plans: &a [*a]")
	f.Add("plans: [{<<: {name: b}}]")
	f.Add("plans:\n- {name: a, tier: .inf, rate_limit_multiplier: [1]}")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := store.ParsePlans([]byte(text))
		if err != nil {
			return
		}
		out, err := d.YAML()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := store.ParsePlans(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, out, err)
		}
		second, err := again.YAML()
		if err != nil || string(second) != string(out) {
			t.Errorf("%q became %q, then %q: %v", text, out, second, err)
		}
	})
}
