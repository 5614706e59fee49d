package gatetest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s", 32)
	r, e, d := NewKey(t, "RS256", ""), NewKey(t, "ES256", ""), NewKey(t, "EdDSA", "")
	c := With(Claims("u1", time.Hour), map[string]any{"sid": "s1", "type": nil})
	tests := map[string]struct {
		token string
		key   any
	}{
		"HS256": {HS256(secret, c), []byte(secret)},
		"RS256": {RS256(r.Private.(*rsa.PrivateKey), "k", c), r.Private.(*rsa.PrivateKey).Public()},
		"ES256": {ES256(e.Private.(*ecdsa.PrivateKey), "k", c), e.Private.(*ecdsa.PrivateKey).Public()},
		"EdDSA": {EdDSA(d.Private.(ed25519.PrivateKey), "k", c), d.Private.(ed25519.PrivateKey).Public()},
	}
	for alg, tt := range tests {
		token, err := jwt.Parse(tt.token, func(*jwt.Token) (any, error) { return tt.key, nil }, jwt.WithValidMethods([]string{alg}))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		got := token.Claims.(jwt.MapClaims)
		if _, typed := got["type"]; got["sub"] != "u1" || got["sid"] != "s1" || typed {
			t.Errorf("%s: %v", alg, got)
		}
	}
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	k := NewKey(t, "ES384", "a")
	i := NewIssuer(t, k)
	get := func() (int, map[string]any) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.URL, nil)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		defer func() {
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		}()
		var set map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
			t.Error(err)
		}
		return resp.StatusCode, set
	}
	if status, set := get(); status != 200 || len(set["keys"].([]any)) != 1 {
		t.Errorf("%d %v", status, set)
	}
	i.Answer(http.StatusServiceUnavailable)
	i.Publish()
	if status, set := get(); status != 503 || len(set["keys"].([]any)) != 0 {
		t.Errorf("%d %v", status, set)
	}
	i.Hold()
	done := make(chan struct{})
	go func() { defer close(done); get() }()
	i.Release()
	<-done
	if i.Fetches() != 3 {
		t.Errorf("%d fetches", i.Fetches())
	}
	if !strings.HasPrefix(k.PEM(), "-----BEGIN PUBLIC KEY-----") {
		t.Error(k.PEM())
	}
}
