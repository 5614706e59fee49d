package gate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

type verifierFunc func(r *http.Request) (*quota.Principal, error)

func (f verifierFunc) Verify(_ context.Context, r *http.Request) (*quota.Principal, error) {
	return f(r)
}

// says is a verifier that always answers so.
func says(p *quota.Principal, err error) Verifier {
	return verifierFunc(func(*http.Request) (*quota.Principal, error) { return p, err })
}

func TestIdentifyAsksInOrder(t *testing.T) {
	t.Parallel()
	var (
		a, b      = &quota.Principal{Subject: "user:a"}, &quota.Principal{Subject: "user:b"}
		none      = says(nil, ErrNoCredential)
		unclaimed = says(nil, fmt.Errorf("jwt: %w", ErrUnclaimed))
		invalid   = says(nil, fmt.Errorf("jwt: %w", &InvalidError{Reason: "expired"}))
	)
	for name, tt := range map[string]struct {
		verifiers []Verifier
		subject   quota.Subject
		reason    string
	}{
		"no verifier":             {nil, "", ""},
		"nothing sent":            {[]Verifier{none, none}, "", ""},
		"first decides":           {[]Verifier{says(a, nil), says(b, nil)}, "user:a", ""},
		"passes on":               {[]Verifier{none, unclaimed, says(b, nil)}, "user:b", ""},
		"claimed and refused":     {[]Verifier{invalid, says(b, nil)}, "", "expired"},
		"valid before refused":    {[]Verifier{says(a, nil), invalid}, "user:a", ""},
		"nobody claims":           {[]Verifier{unclaimed, none}, "", "no verifier claims it"},
		"a fault is no admission": {[]Verifier{says(nil, errors.New("key set: timeout")), says(b, nil)}, "", "key set: timeout"},
		"names nobody":            {[]Verifier{says(&quota.Principal{}, nil), says(b, nil)}, "", "it names nobody"},
		"no principal":            {[]Verifier{says(nil, nil)}, "", "it names nobody"},
		"empty id":                {[]Verifier{says(&quota.Principal{Subject: "user:"}, nil)}, "", "it names nobody"},
		"id too long":             {[]Verifier{says(&quota.Principal{Subject: quota.UserSubject(strings.Repeat("x", 256))}, nil)}, "", "it names nobody"},
		"id with a zero byte":     {[]Verifier{says(&quota.Principal{Subject: "user:a\x00"}, nil)}, "", "it names nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := New(Config{Verifiers: tt.verifiers, Prefix4: 32, Prefix6: 64})
			id, err := g.Identify(httptest.NewRequest("GET", "/", nil), "192.0.2.1")
			if err != nil {
				t.Fatal(err)
			}
			reason := ""
			if id.Invalid != nil {
				reason = id.Invalid.Reason
			}
			if id.Principal == nil || id.Principal.Subject != tt.subject || reason != tt.reason {
				t.Errorf("got %+v, %q; want %q, %q", id.Principal, reason, tt.subject, tt.reason)
			}
		})
	}
}

func TestIdentifyRefusesAmbiguity(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(r *http.Request)
		bad    bool
	}{
		"plain":              {func(*http.Request) {}, false},
		"one authorization":  {func(r *http.Request) { r.Header.Add("Authorization", "a, b") }, false},
		"two authorizations": {func(r *http.Request) { r.Header["Authorization"] = []string{"a", "a"} }, true},
		"keep-alive":         {func(r *http.Request) { r.Header.Set("Connection", "keep-alive, Upgrade") }, false},
		"drops authorization": {func(r *http.Request) {
			r.Header["Connection"] = []string{"close", "x,\tAUTHORIZATION "}
		}, true},
		"drops cookie":           {func(r *http.Request) { r.Header.Set("Connection", "Cookie") }, true},
		"drops key":              {func(r *http.Request) { r.Header.Set("Connection", "x_api-key") }, true},
		"drops organization":     {func(r *http.Request) { r.Header.Set("Connection", "X-Org-Id") }, true},
		"drops ours":             {func(r *http.Request) { r.Header.Set("Connection", "x-quota-owner") }, true},
		"drops idempotency":      {func(r *http.Request) { r.Header.Set("Connection", "close, idempotency-Key") }, true},
		"drops another":          {func(r *http.Request) { r.Header.Set("Connection", "X-Quot, X-Org-Ids") }, false},
		"trailer":                {func(r *http.Request) { r.Trailer = http.Header{"Digest": nil} }, false},
		"trailer authorization":  {func(r *http.Request) { r.Trailer = http.Header{"Authorization": nil} }, true},
		"trailer ours":           {func(r *http.Request) { r.Trailer = http.Header{"X_quota_user": nil} }, true},
		"newline in path":        {func(r *http.Request) { r.URL.Path = "/jobs\n" }, true},
		"zero in path":           {func(r *http.Request) { r.URL.Path = "/\x00jobs" }, true},
		"delete in path":         {func(r *http.Request) { r.URL.Path = "/jobs\x7f" }, true},
		"odd but clean path":     {func(r *http.Request) { r.URL.Path = "//a/../b c\u00e9%2F" }, false},
		"control byte, in query": {func(r *http.Request) { r.URL.RawQuery = "a=%0A" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			tt.change(r)
			g := New(Config{Verifiers: []Verifier{says(&quota.Principal{Subject: alice}, nil)}, Prefix4: 32, Prefix6: 64})
			id, err := g.Identify(r, "192.0.2.1")
			if !tt.bad {
				if err != nil || id.Principal.Subject != alice {
					t.Errorf("got %v", err)
				}
				return
			}
			if d := asDenial(t, err); d.Status != 400 || d.Code != quota.CodeBadRequest || !id.Principal.Anonymous() {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestIsIdentityHeader(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"X-Quota-User": true, "x-quota-user": true, "X_Quota_User": true, "X-QUOTA_Owner": true, "x-quota-": true,
		"X-Quota": false, "X-Quotas-User": false, "XX-Quota-User": false, "": false, "Authorization": false,
	} {
		if got := IsIdentityHeader(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
		if want && !identifies(name) {
			t.Errorf("%q does not identify", name)
		}
	}
}

func TestIdentifyGroupsAddresses(t *testing.T) {
	t.Parallel()
	g := New(Config{Prefix4: 24, Prefix6: 64})
	for address, want := range map[string]quota.Subject{
		"192.0.2.77":                 "ip:192.0.2.0/24",
		"192.0.2.77:1234":            "ip:192.0.2.0/24",
		"::ffff:192.0.2.77":          "ip:192.0.2.0/24",
		"[::ffff:192.0.2.77]:80":     "ip:192.0.2.0/24",
		"2001:db8:1:2:3:4:5:6":       "ip:2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:443":      "ip:2001:db8:1:2::/64",
		"fe80::1%eth0":               "ip:fe80::/64",
		"[fe80::1:2%eth1]:80":        "ip:fe80::/64",
		"1111:2222:3333:4444:5555::": "ip:1111:2222:3333:4444::/64",
		"@":                          "ip:unknown",
		"":                           "ip:unknown",
		"/run/gateway.sock":          "ip:unknown",
		"300.1.1.1":                  "ip:unknown",
	} {
		id, err := g.Identify(httptest.NewRequest("GET", "/", nil), address)
		if err != nil || id.IP != want {
			t.Errorf("%q: %q, %v; want %q", address, id.IP, err, want)
		}
	}
	full := New(Config{Prefix4: 32, Prefix6: 128})
	if id, err := full.Identify(httptest.NewRequest("GET", "/", nil), "1111:2222:3333:4444:5555:6666:7777:8888"); err != nil ||
		id.IP != "ip:1111:2222:3333:4444:5555:6666:7777:8888/128" {
		t.Errorf("got %q, %v", id.IP, err)
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("192.0.2.1", "/jobs", "Connection", "close, Authorization")
	f.Add("fe80::1%eth0", "/\x00", "X-Org-Id", "7")
	f.Fuzz(func(t *testing.T, address, path, name, value string) {
		g := New(Config{Verifiers: []Verifier{says(nil, ErrNoCredential)}, Prefix4: 32, Prefix6: 64})
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		r.Header[name] = []string{value, value}
		id, err := g.Identify(r, address)
		if !strings.HasPrefix(string(id.IP), "ip:") || id.Principal == nil {
			t.Errorf("got %+v", id)
		}
		if err != nil && asDenial(t, err).Status != 400 {
			t.Errorf("got %v", err)
		}
	})
}

func TestResolve(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	at := func(s string) (p quota.Principal) {
		p.IssuedAt = instant(t, s)
		return p
	}
	rows := map[quota.Subject]func(*quota.Entitlement){
		"user:suspended": func(e *quota.Entitlement) { e.Control = quota.ControlSuspended },
		"user:deleted":   func(e *quota.Entitlement) { e.Control = quota.ControlDeleted },
		"user:revoked":   func(e *quota.Entitlement) { e.TokensValidAfter = instant(t, "2026-01-01T10:00:00.5Z") },
		"user:session":   func(e *quota.Entitlement) { e.RevokedSessions = map[string]struct{}{"s1": {}} },
	}
	for s, write := range rows {
		h.records.change(s, write)
	}
	for name, tt := range map[string]struct {
		subject   quota.Subject
		principal quota.Principal
		header    http.Header
		code      string // of the denial
		invalid   bool
	}{
		"anonymous":                  {},
		"anonymous, organization":    {header: http.Header{"X-Org-Id": {"7"}}},
		"known":                      {subject: alice},
		"suspended":                  {subject: "user:suspended", code: quota.CodeSuspended},
		"deleted":                    {subject: "user:deleted", code: quota.CodeDeleted},
		"issued before":              {subject: "user:revoked", principal: at("2026-01-01T09:59:59Z"), invalid: true},
		"issued in the same second":  {subject: "user:revoked", principal: at("2026-01-01T10:00:00Z"), invalid: true},
		"issued late in that second": {subject: "user:revoked", principal: at("2026-01-01T10:00:00.9Z"), invalid: true},
		"issued after":               {subject: "user:revoked", principal: at("2026-01-01T10:00:01Z")},
		"issued nobody knows when":   {subject: "user:revoked", invalid: true},
		"revoked session":            {subject: "user:session", principal: quota.Principal{Session: "s1"}, invalid: true},
		"another session":            {subject: "user:session", principal: quota.Principal{Session: "s2"}},
		"no session":                 {subject: "user:session"},
		"organization":               {subject: alice, header: http.Header{"X-Org-Id": {"7"}}, code: quota.CodeNotOrgMember},
		"second organization":        {subject: alice, header: http.Header{"X-Org-Id": {"", "7"}}, code: quota.CodeNotOrgMember},
		"spelled organization":       {subject: alice, header: http.Header{http.CanonicalHeaderKey("x_org-id"): {"7"}}, code: quota.CodeNotOrgMember},
		"empty organization":         {subject: alice, header: http.Header{"X-Org-Id": {""}}},
		"organization of the token":  {subject: alice, principal: quota.Principal{Org: "7"}, code: quota.CodeNotOrgMember},
		"suspended before revoked":   {subject: "user:suspended", principal: quota.Principal{Session: "s1"}, header: http.Header{"X-Org-Id": {"7"}}, code: quota.CodeSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			for k, v := range tt.header {
				r.Header[k] = v
			}
			p := tt.principal
			p.Subject = tt.subject
			c, err := h.gate.Resolve(t.Context(), Identity{Principal: &p, IP: "ip:unknown"}, r)
			if tt.code != "" {
				if d := asDenial(t, err); d.Code != tt.code || d.Status != 403 || c.Entitlement != nil {
					t.Errorf("got %+v", d)
				}
				return
			}
			if err != nil || (c.Invalid != nil) != tt.invalid {
				t.Fatalf("got %+v, %v", c.Invalid, err)
			}
			known := tt.subject != "" && !tt.invalid
			if c.Principal.Anonymous() == known || (c.Entitlement != nil) != known {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	known, plain := h.caller(t, alice), Caller{Identity: Identity{Principal: anonymous, IP: "ip:unknown"}}
	bad := plain
	bad.Invalid = &InvalidError{Reason: "expired"}
	key := known
	key.Principal = &quota.Principal{Subject: alice, KeyID: "k", Scopes: []string{"read"}}
	rule := func(change func(*quota.Rule)) []quota.Applied {
		r := quota.Rule{Name: "r"}
		change(&r)
		return []quota.Applied{applied(quota.Rule{Name: "other"}), applied(r)}
	}
	none := rule(func(*quota.Rule) {})
	lenient := rule(func(r *quota.Rule) { r.InvalidTokenAnonymous = true })
	need := func(n quota.Requirement) []quota.Applied {
		return rule(func(r *quota.Rule) { r.Require = []quota.Requirement{n} })
	}
	shadowed := need(quota.Requirement{User: true})
	shadowed[1].Shadow = true
	for name, tt := range map[string]struct {
		caller Caller
		rules  []quota.Applied
		deny   bool // anonymous callers
		code   string
		rule   string
	}{
		"known":                       {known, none, true, "", ""},
		"anonymous":                   {plain, none, false, "", ""},
		"anonymous denied":            {plain, none, true, quota.CodeUnauthenticated, ""},
		"invalid":                     {bad, none, false, quota.CodeInvalidToken, ""},
		"invalid, no rule":            {bad, nil, false, quota.CodeInvalidToken, ""},
		"invalid passes as anonymous": {bad, lenient, false, "", ""},
		"and no further":              {bad, lenient, true, quota.CodeUnauthenticated, ""},
		"require user":                {plain, need(quota.Requirement{User: true}), false, quota.CodeUnauthenticated, "r"},
		"require user, known":         {known, need(quota.Requirement{User: true}), false, "", ""},
		"require user, shadow":        {plain, shadowed, false, "", ""},
		"require feature":             {known, need(quota.Requirement{Feature: "custom_models"}), false, quota.CodeFeature, "r"},
		"require feature, anonymous":  {plain, need(quota.Requirement{Feature: "api_access"}), false, quota.CodeUnauthenticated, "r"},
		"has feature":                 {known, need(quota.Requirement{Feature: "api_access"}), false, "", ""},
		"require scope of a key":      {key, need(quota.Requirement{Scope: "write"}), false, quota.CodeScope, "r"},
		"has scope":                   {key, need(quota.Requirement{Scope: "read"}), false, "", ""},
		"scopes are for keys":         {known, need(quota.Requirement{Scope: "write"}), false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ticket, err := h.gate.Admit(t.Context(), tt.caller, tt.rules, Policy{DenyAnonymous: tt.deny})
			if tt.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				ticket.Settle(t.Context(), Result{Status: 200, Fate: Answered})
				return
			}
			d := asDenial(t, err)
			if diff := cmp.Diff([]string{tt.code, tt.rule}, []string{d.Code, d.Rule}); diff != "" || ticket != nil {
				t.Error(diff)
			}
			if tt.code == quota.CodeFeature && (d.Feature != "custom_models" || d.Plan != "free") {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestEquivocal(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		header http.Header
		want   bool
	}{
		"absent":                {http.Header{"X-Other": {"a", "b"}}, false},
		"once":                  {http.Header{"X-Tenant": {"a, b"}}, false},
		"twice":                 {http.Header{"X-Tenant": {"a", "b"}}, true},
		"the same twice":        {http.Header{"X-Tenant": {"a", "a"}}, true},
		"in another spelling":   {http.Header{"X_tenant": {"a"}}, false},
		"in two spellings":      {http.Header{"X-Tenant": {"a"}, "X_tenant": {"b"}}, true},
		"dropped on the way":    {http.Header{"X-Tenant": {"a"}, "Connection": {"close, x-tenant"}}, true},
		"dropped though absent": {http.Header{"Connection": {"X_Tenant"}}, true},
	} {
		if got := Equivocal(tt.header, "X-Tenant"); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
