package jwtverifier

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func TestMintIsAccepted(t *testing.T) {
	t.Parallel()
	for _, options := range []string{
		"", "require type access", "issuer https://auth.example", "audience a b",
		"user_claim uid", "scheme Token", "leeway 0s",
	} {
		v := hmac(t, options)
		token, err := v.Mint(map[string]any{"sub": "42", "role": "x"}, time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", options, err)
		}
		scheme := "Bearer"
		if strings.HasPrefix(options, "scheme") {
			scheme = "Token"
		}
		p, err := v.Verify(t.Context(), request(t, "Authorization", scheme+" "+token))
		if err != nil {
			t.Fatalf("%s: the token is refused: %v", options, err)
		}
		if got, want := string(p.Subject), "user:42"; got != want {
			t.Errorf("%s: subject %s, want %s", options, got, want)
		}
		if left := time.Until(p.Expires); left <= 0 || left > time.Minute {
			t.Errorf("%s: it expires in %s, want within a minute", options, left)
		}
	}
}

// Whoever only verifies cannot sign, and is told what can.
func TestMintNeedsASecret(t *testing.T) {
	t.Parallel()
	v, err := parse("jwks http://127.0.0.1:1/keys\nalgorithms RS256")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Cleanup(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	if _, err := v.Mint(map[string]any{"sub": "42"}, time.Minute); err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("Mint = %v, want an error that says what it takes", err)
	}
}
