package caddymodule

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRuleRefusesEquivocalKeys(t *testing.T) {
	t.Parallel()
	const (
		twoHeaders = "{http.request.header.X-Tenant}{http.request.header.x-region}"
		query      = "{http.request.uri.query.tenant}"
		cookie     = "{http.request.cookie.tenant}"
	)
	for _, tc := range []struct {
		by, query, headers string
		want               string // of the message, empty: not refused
	}{
		{"header X-Tenant", "", "X-Tenant: a", ""},
		{"header X-Tenant", "", "X-Tenant: a, X-Tenant: b", "header X-Tenant"},
		{twoHeaders, "", "X-Tenant: a, X-Region: b", ""},
		{twoHeaders, "", "X-Tenant: a, X-Tenant: b", "header X-Tenant"},
		{twoHeaders, "", "X-Region: a, X_region: b", "header X-Region"},
		{twoHeaders, "", "Connection: x-region, X-Region: a", "header X-Region"},
		{twoHeaders, "", "X-Other: a, X-Other: b", ""},
		{"{http.request.host}" + query, "x=1&tenant=a", "", ""},
		{query, "", "", ""},
		{query, "tenant=a%20b+c&x=1&x=2", "", ""},
		{query, "Tenant=a&tenant=b", "", ""},
		{query, "a;b&tenant=c", "", ""},
		{query, "tenant=a&tenant=b", "", "query parameter tenant"},
		{query, "tenant&tenant=b", "", "query parameter tenant"},
		{query, "tenant=a&%74enant=b", "", "query parameter tenant"},
		{query, "tenant=a;x=1", "", "query parameter tenant"},
		{query, "x=1;tenant=a", "", "query parameter tenant"},
		{query, "tenant=%zz", "", "query parameter tenant"},
		{cookie, "", "Cookie: x=1; tenant=a", ""},
		{cookie, "", "Cookie: tenant=a; tenant=b", "cookie tenant"},
		{cookie, "", "Cookie: tenant=a, Cookie: tenant=b", "cookie tenant"},
		{"account", "tenant=a&tenant=b", "X-Tenant: a, X-Tenant: b", ""},
	} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", "/?"+tc.query, nil)
		for line := range strings.SplitSeq(tc.headers, ", ") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				req.Header[name] = append(req.Header[name], value)
			}
		}
		for _, mode := range []string{modeEnforce, modeShadow} {
			rule := parseRuleText(t, "by "+tc.by+"\nmode "+mode)
			rule.compile()
			want := ""
			if tc.want != "" && mode == modeEnforce {
				want = "The " + tc.want + " can be read in two ways"
			}
			got := ""
			if err := rule.equivocal(req); err != nil {
				got = err.Error()
			}
			if want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("by %s, %s, query %q, headers %q: %q, want %q", tc.by, mode, tc.query, tc.headers, got, want)
			}
		}
	}
}

func TestEquivocalKeysCostNothing(t *testing.T) {
	rule := parseRuleText(t, "by {http.request.header.X-Tenant}{http.request.uri.query.tenant}{http.request.cookie.tenant}")
	rule.compile()
	req := httptest.NewRequestWithContext(t.Context(), "GET", "/?x=1&tenant=a", nil)
	req.Header.Set("X-Tenant", "a")
	req.Header.Set("Cookie", "x=1; tenant=a")
	if n := testing.AllocsPerRun(100, func() { _ = rule.equivocal(req) }); n > 1 { // a copy of the header's name
		t.Errorf("%v allocations where nothing is refused", n)
	}
}
