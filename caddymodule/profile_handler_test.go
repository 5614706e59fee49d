package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func TestSubscriptionMember(t *testing.T) {
	t.Parallel()
	plan := &quota.Plan{Name: "pro", DisplayName: "Pro Plan", Features: map[string]bool{"b": false, "a": true}}
	for _, tc := range []struct {
		name string
		e    quota.Entitlement
		want string
	}{
		{
			"no subscription", quota.Entitlement{Plan: plan},
			`{"plan":"pro","display_name":"Pro Plan","status":"active","current_period_end":null,"features":{"a":true,"b":false}}`,
		},
		{
			"past due", quota.Entitlement{
				Plan: plan, Status: quota.StatusPastDue,
				CurrentPeriodEnd: time.Date(2026, 12, 1, 1, 0, 0, 0, time.FixedZone("", 3600)),
			},
			`{"plan":"pro","display_name":"Pro Plan","status":"past_due","current_period_end":"2026-12-01T00:00:00Z","features":{"a":true,"b":false}}`,
		},
		{
			"no features", quota.Entitlement{Plan: &quota.Plan{Name: "bare"}, Status: quota.StatusTrial},
			`{"plan":"bare","display_name":"","status":"trial","current_period_end":null,"features":{}}`,
		},
	} {
		b, err := json.Marshal(subscriptionOf(&tc.e))
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, b, tc.want)
		}
	}
}

func TestProfileValidate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		p    Profile
		want string
	}{
		{Profile{Field: "subscription", MaxSize: 1}, ""},
		{Profile{Field: strings.Repeat("a", 128), MaxSize: maxProfileSize}, ""},
		{Profile{Field: strings.Repeat("a", 129), MaxSize: 1}, "field: "},
		{Profile{Field: "a b", MaxSize: 1}, "field: "},
		{Profile{Field: "a", MaxSize: -1}, "max_size: -1 bytes is outside"},
		{Profile{Field: "a", MaxSize: maxProfileSize + 1}, "max_size: "},
	} {
		wantError(t, tc.p.Validate(), tc.want)
	}
}

func FuzzProfileCaddyfile(f *testing.F) {
	for _, seed := range []string{"", "field a", "max_size 1MB", "field a\nmax_size 9EB", "max_size -1", "field", "{", "max_size 1e3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte("quota_profile {\n"+block+"\n}"), "Caddyfile")
		if err != nil {
			return // not a sequence of tokens
		}
		p := new(Profile)
		if err := p.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("the error names no line: %v", err)
			}
			return
		}
		setDefault(&p.Field, defaultProfileField)
		setDefault(&p.MaxSize, defaultProfileSize)
		if err := p.Validate(); err != nil {
			t.Errorf("accepted and invalid: %v", err)
		}
	})
}
