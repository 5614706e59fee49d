package caddymodule

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/quota"
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
		{cookie, "", "Cookie: tenant=a b", ""},
		{cookie, "", `Cookie: tenant="a"`, ""},
		{cookie, "", "Cookie: Tenant=a; tenant=b", "cookie tenant"},
		{cookie, "", "Cookie: Tenant=a", "cookie tenant"},
		{cookie, "", "Cookie: tenant=a; \xa0tenant=b", "cookie tenant"},
		{cookie, "", "Cookie: tenant\x85=b", "cookie tenant"},
		{cookie, "", `Cookie: tenant="a"b"`, "cookie tenant"},
		{cookie, "", "Cookie: tenant=\xe9", "cookie tenant"},
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

// Values that a client chooses cannot make up those of another: each has its bounds.
func TestValueKeys(t *testing.T) {
	t.Parallel()
	const two = "{http.request.header.X-A}-{http.request.header.X-B}"
	key := func(by, a, b string) quota.Subject {
		rule := parseRuleText(t, "by "+by)
		rule.compile()
		req := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		req.Header.Set("X-A", a)
		req.Header.Set("X-B", b)
		repl := caddy.NewReplacer()
		caddyhttp.PrepareRequest(req, repl, httptest.NewRecorder(), &caddyhttp.Server{})
		return rule.key(req, repl)
	}
	seen := map[quota.Subject]string{}
	for _, values := range [][2]string{{"1", "23"}, {"12", "3"}, {"1-2", "3"}, {"1", "2-3"}, {"", "123"}, {"123", ""}, {"1:2", "3"}, {"1", "1:23"}} {
		k := key(two, values[0], values[1])
		if other, dup := seen[k]; dup || k == "" {
			t.Errorf("%q has the key of %s: %q", values, other, k)
		}
		seen[k] = strings.Join(values[:], ", ")
	}
	if k := key(two, "", ""); k != "" {
		t.Errorf("without values: %q, want none", k)
	}
	if k := key("{http.request.header.X-A}", "x", ""); k != "value:{http.request.header.X-A}=x" {
		t.Errorf("of one placeholder: %q", k)
	}
}
