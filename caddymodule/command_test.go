package caddymodule

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

func TestParseClaims(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		texts []string
		want  map[string]any
		fault string
	}{
		{nil, map[string]any{}, ""},
		{[]string{"a=b", "c:=3", `d:={"e":[true]}`, "f=", "g=h=i", "j=:k"}, map[string]any{
			"a": "b", "c": 3.0, "d": map[string]any{"e": []any{true}}, "f": "", "g": "h=i", "j": ":k",
		}, ""},
		{[]string{"a"}, nil, "write <name>=<text>"},
		{[]string{"=a"}, nil, "write <name>=<text>"},
		{[]string{":=1"}, nil, "write <name>=<text>"},
		{[]string{"a:=b"}, nil, "not JSON"},
		{[]string{"a=1", "a=2"}, nil, "stands twice"},
	} {
		got, err := parseClaims(tc.texts)
		wantError(t, err, tc.fault)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.texts, diff)
		}
	}
}

// minter signs nothing.
type minter struct {
	gate.Verifier
	fails bool
}

func (m minter) Mint(claims map[string]any, ttl time.Duration) (string, error) {
	if m.fails {
		return "", errors.New("a public key")
	}
	return claims["sub"].(string) + "/" + ttl.String(), nil
}

// schemer is a minter whose tokens stand behind a scheme of their own.
type schemer struct{ minter }

func (schemer) AuthScheme() string { return "Token" }

func TestMintTakesTheFirstThatCan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		verifiers   []gate.Verifier
		want, fault string
	}{
		{[]gate.Verifier{&configVerifier{}, minter{fails: true}, minter{}}, "Bearer 42/1m0s", ""},
		{[]gate.Verifier{schemer{}, minter{}}, "Token 42/1m0s", ""},
		{[]gate.Verifier{schemer{minter{fails: true}}, minter{}, schemer{}}, "Bearer 42/1m0s", ""},
		{[]gate.Verifier{minter{fails: true}}, "", "a public key"},
		{[]gate.Verifier{&configVerifier{}}, "", "no verifier of the config holds"},
		{nil, "", "no verifier of the config holds"},
	} {
		token, scheme, err := (&App{verifiers: tc.verifiers}).mint("42", nil, time.Minute)
		wantError(t, err, tc.fault)
		if got := strings.TrimSpace(scheme + " " + token); got != tc.want {
			t.Errorf("minted %q, want %q", got, tc.want)
		}
	}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]string{
		"": {"Bearer", ""}, " \n": {"Bearer", ""}, "a.b.c\n": {"Bearer", "a.b.c"}, "bearer a.b.c": {"bearer", "a.b.c"}, " Token  a.b.c ": {"Token", "a.b.c"},
	} {
		if scheme, token := credential(text); scheme != want[0] || token != want[1] {
			t.Errorf("%q: scheme %q and token %q, want %q", text, scheme, token, want)
		}
	}
}

func TestWriteExplained(t *testing.T) {
	t.Parallel()
	limit, left, reset, never := int64(10), int64(0), 3600.0, (*float64)(nil)
	a := &Explained{
		Judged: true,
		Denial: &ExplainedDenial{Status: 402, Error: "quota_exceeded", Message: "No more jobs", Rule: "jobs", RetryAfterSeconds: 90},
		Caller: &ExplainedCaller{
			Subject: "user:42", Verifier: "quota.verifiers.jwt", Account: "org:acme", Plan: "pro", SubscriptionStatus: "past_due", IP: "ip:::/64",
		},
		Rules: []string{"jobs", "trial"},
		Counters: []ExplainedCounter{
			{Policy: "jobs/month", Rule: "jobs", Limit: &limit, LimitFrom: fromOverride, Cost: 1, Used: 10, Remaining: &left, ResetSeconds: &reset, Exceeded: true},
			{Policy: "trial", Rule: "trial", WindowSeconds: 90, Limit: &limit, LimitFrom: fromBase, Cost: 1, Remaining: &limit, ResetSeconds: never, Exceeded: true, Shadow: true},
			{Policy: "jobs/day", Rule: "jobs", LimitFrom: fromNone, Cost: 1, Used: 3, ResetSeconds: &reset},
		},
	}
	want := `denied: 402 quota_exceeded by the rule jobs, again in 1m30s
        No more jobs
caller: user:42 by quota.verifiers.jwt, for org:acme, plan pro (past_due)
rules:  jobs, trial

COUNTER     RULE   LIMIT     FROM      COST  USED  LEFT  RESETS IN  
jobs/month  jobs   10        override  1     10    0     1h         exceeded
trial       trial  10/1m30s  base      1     0     10    -          exceeded (shadow)
jobs/day    jobs   -         none      1     3     -     1h         
`
	var got strings.Builder
	if err := writeExplained(&got, a); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for s, want := range map[float64]string{
		0: "0s", 0.0105: "11ms", 12: "12s", 60: "1m", 90.4: "1m30s", 3600: "1h", 5400: "1h30m", 36001: "10h0m1s", 864000: "10d",
	} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %s, want %s", s, got, want)
		}
	}
}

// A gateway is asked for its health at port 9090 of its own host, which may be an
// IPv6 address.
func TestSmokeFindsHealth(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ url, health, want string }{
		{"http://localhost:8080", "", "http://localhost:9090"},
		{"https://api.example.com", "", "http://api.example.com:9090"},
		{"http://[::1]:8080", "", "http://[::1]:9090"},
		{"http://[::1]:8080", "http://[::1]:7070", "http://[::1]:7070"},
	} {
		cmd := smokeCommand()
		for name, value := range map[string]string{"token": "x", "health": tc.health} {
			if err := cmd.Flags().Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		target, err := smokeTarget(cmd, tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if target.Health != tc.want {
			t.Errorf("%s: health is asked for at %s, want %s", tc.url, target.Health, tc.want)
		}
	}
}
