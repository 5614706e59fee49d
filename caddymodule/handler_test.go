package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// caddy.Validate changes Caddy's own state, so these cases run one by one.
func TestHandlerJSON(t *testing.T) {
	rule := func(members string) string { return `,"rules":[{"name":"r",` + members + `}]` }
	for _, tc := range []struct{ name, handler, want string }{
		{"empty", ``, ""},
		{"everything", `,"anonymous":"deny","forward_identity":true,"headers":"off","errors":"pass","cors":["*"],"rules":[
			{"name":"a","match":[{"path":["/a"]},{"method":["POST"]}],"by":"header","by_text":"X-A","limits":[{"scope":"api","requests":5,"window":"1m"}],
			 "spends":[{"metric":"jobs"},{"metric":"api_calls","amount":2}],"frees":[{"metric":"storage_bytes","amount":"request_bytes"}],
			 "idempotent":true,"invalid_token":"anonymous","refund_unless":[2,3],"requires":[{"user":true}],"on_outage":"deny","mode":"shadow"},
			{"name":"b"}]`, ""},
		{"anonymous", `,"anonymous":"no"`, "anonymous: "},
		{"headers", `,"headers":"all"`, "headers: "},
		{"errors", `,"errors":"html"`, "errors: "},
		{"cors", `,"cors":["example.com"]`, "cors: "},
		{"cors twice", `,"cors":["*","*"]`, "stands twice"},
		{"unknown member", `,"limit":1`, "limit"},
		{"unknown member of a rule", rule(`"burst":1`), "burst"},
		{"rule null", `,"rules":[null]`, "rules[0] is null"},
		{"rule without a name", `,"rules":[{}]`, `rule "": name: `},
		{"rule twice", `,"rules":[{"name":"a"},{"name":"a"}]`, "a stands twice"},
		{"matcher unknown", rule(`"match":[{"color":"red"}]`), "loading matchers"},
		{"by", rule(`"by":"session"`), "by: "},
		{"by header without a name", rule(`"by":"header"`), "not the name of a header"},
		{"by placeholder without one", rule(`"by":"placeholder","by_text":"x"`), "not a placeholder"},
		{"text without by", rule(`"by_text":"X-A"`), "by: "},
		{"by ip without a base", rule(`"by":"ip","limits":[{"scope":"login"}]`), "a limit by ip needs a base"},
		{"by ip with a base", rule(`"by":"ip","limits":[{"scope":"login","requests":10,"window":"1h"}]`), ""},
		{"limit without a window", rule(`"limits":[{"scope":"api","requests":5}]`), "window 0s"},
		{"limit without requests", rule(`"limits":[{"scope":"api","window":"1m"}]`), "give both or neither"},
		{"limit negative", rule(`"limits":[{"scope":"api","requests":-5,"window":"1m"}]`), "requests is negative"},
		{"limit too large", rule(`"limits":[{"scope":"api","requests":9007199254740994,"window":"1m"}]`), "above 2^53"},
		{"scope", rule(`"limits":[{"scope":"A"}]`), "scope "},
		{"scope twice", rule(`"limits":[{"scope":"api"},{"scope":"api"}]`), "api stands twice"},
		{"metric", rule(`"spends":[{"metric":""}]`), "spends: metric"},
		{"metric twice", rule(`"spends":[{"metric":"jobs"},{"metric":"jobs"}]`), "jobs stands twice"},
		{"amount", rule(`"spends":[{"metric":"jobs","amount":1.5}]`), "not an amount"},
		{"amount negative", rule(`"spends":[{"metric":"jobs","amount":-1}]`), "amount is negative"},
		{"amount too large", rule(`"spends":[{"metric":"jobs","amount":9007199254740994}]`), "above 2^53"},
		{"free without an amount", rule(`"frees":[{"metric":"storage_bytes"}]`), "the amount is missing"},
		{"free seconds", rule(`"frees":[{"metric":"x","amount":"response_seconds"}]`), "not freed"},
		{"refund class", rule(`"refund_unless":[200]`), "refund_unless: 200 is outside 1..5"},
		{"refund class twice", rule(`"refund_unless":[2,2]`), "2 stands twice"},
		{"requirement empty", rule(`"requires":[{}]`), "exactly one of"},
		{"requirement of two", rule(`"requires":[{"user":true,"feature":"f"}]`), "exactly one of"},
		{"requirement twice", rule(`"requires":[{"feature":"f"},{"feature":"f"}]`), "feature f stands twice"},
		{"invalid token", rule(`"invalid_token":"allow"`), "invalid_token: "},
		{"outage", rule(`"on_outage":"wait"`), "on_outage: "},
		{"mode", rule(`"mode":"dry"`), "mode: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantError(t, validateHandler(t, guests, tc.handler), tc.want)
		})
	}
}

// Without the app's own config the handler makes a default one. This test's
// build has no sqlite, which is what it then says.
func TestHandlerMakesTheDefaultApp(t *testing.T) {
	wantError(t, validateHandler(t, `"counters":{"engine":"configtest"}`, ""), "quota.records.sqlite")
}

func TestRuleTakesTheOutagePolicyOfTheApp(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		rule, app string
		want      bool
	}{{"", "allow", false}, {"", "deny", true}, {"allow", "deny", false}, {"deny", "allow", true}} {
		r := &Rule{Name: "r", OnOutage: tc.rule}
		setDefault(&r.OnOutage, tc.app)
		r.compile()
		if r.rule.DenyOnOutage != tc.want {
			t.Errorf("rule %q under app %q: deny %v, want %v", tc.rule, tc.app, r.rule.DenyOnOutage, tc.want)
		}
	}
}

func TestAppLearnsMetrics(t *testing.T) {
	t.Parallel()
	a := new(App)
	a.noteMetrics(&Rule{Name: "r", Spends: []Metered{{Metric: "jobs"}, {Metric: "tokens", At: "Caddyfile:7"}}, Frees: []Metered{{Metric: "seats"}}})
	want := []meteredUse{{"jobs", "r", ""}, {"tokens", "r", "Caddyfile:7"}, {"seats", "r", ""}}
	if diff := cmp.Diff(want, a.metered); diff != "" {
		t.Errorf("metered (-want +got):\n%s", diff)
	}
}

// Whatever text stands in a block: no panic, every error names the line, and
// what is accepted is valid and survives the way through JSON.
func FuzzHandlerCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"rule a {\n match {\n  path /x\n  not method GET\n }\n by ip\n limit login 10/1h\n}",
		"rule a {\n by header X-Y\n limit api\n spend jobs {x}\n free s 5\n require user\n refund_unless 2xx\n}",
		"rule a {\n match path /x\n idempotent\n invalid_token anonymous\n on_outage deny\n mode shadow\n}",
		"anonymous deny\nforward_identity on\nheaders off\nerrors pass\ncors https://a.example *",
		"rule a\nrule a", "rule", "rule {", "{", "}", "rule a {\n match {", "rule a {\n limit a 1/", "limit\n\n\n", "rule a {\n spend m \"\"\n}",
		"rule a {\n match `x`\n}", "rule a {\n match @x\n}", "rule a {\n match {\n {\n }\n }\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte("quota {\n"+block+"\n}"), "Caddyfile")
		if err != nil {
			return // not a sequence of tokens
		}
		h := new(Handler)
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") && !strings.Contains(err.Error(), "match: ") {
				t.Errorf("the error names no line: %v", err)
			}
			return
		}
		if err := h.Validate(); err != nil {
			t.Errorf("accepted and invalid: %v", err)
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("encoding: %v", err)
		}
		again := new(Handler)
		if err := json.Unmarshal(b, again); err != nil {
			t.Fatalf("decoding %s: %v", b, err)
		}
		for _, r := range append(h.Rules, again.Rules...) {
			r.MatcherSetsRaw = nil // Caddy's own
			r.compile()
		}
		if diff := cmp.Diff(compiled(h), compiled(again), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("changed by JSON (-before +after):\n%s", diff)
		}
	})
}

func compiled(h *Handler) []any {
	all := []any{h.Anonymous, h.ForwardIdentity, h.Headers, h.Errors, h.CORS}
	for _, r := range h.Rules {
		all = append(all, r.rule, r.byText)
	}
	return all
}

func FuzzGlobalOption(f *testing.F) {
	for _, seed := range []string{
		"records configtest a b\ncounters configtest\nverify configtest x {\n y\n}\nverify configtest",
		"entitlements {\n ttl 60s\n stale 10m\n size 5\n}\ndefault_plan free\nip_prefix 32 64",
		"host {\n users t {\n  id a\n }\n sessions s.t\n}\nhost_redis redis://x\nlog_subjects off",
		"upgrade_url /x\non_outage deny", "host {\n users", "verify", "records {", "{", "}", "ip_prefix 1", "entitlements\n{\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte("quota {\n"+block+"\n}"), "Caddyfile")
		if err != nil {
			return // not a sequence of tokens
		}
		a := new(App)
		if err := a.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("the error names no line: %v", err)
			}
			return
		}
		a.setDefaults()
		if strings.Contains(a.DefaultPlan+a.UpgradeURL+a.HostRedis, "{") {
			return // known when the config is loaded
		}
		if err := a.Validate(); err != nil {
			t.Errorf("accepted and invalid: %v", err)
		}
	})
}
