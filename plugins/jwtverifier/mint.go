package jwtverifier

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/quotagate/quotagate/caddymodule"
)

// Mint makes a token that the verifier accepts, with the first of its
// algorithms. It implements caddymodule.Minter, and fails for keys that can
// only verify.
func (v *Verifier) Mint(claims map[string]any, ttl time.Duration) (string, error) {
	if v.core.keys == nil || len(v.core.keys.keys) == 0 {
		return "", v.named(errNoSecret)
	}
	a := v.core.algorithms[0]
	secret, ok := v.core.keys.keys[0].material.([]byte)
	if !ok || !a.symmetric() {
		return "", v.named(errNoSecret)
	}
	now := time.Now()
	all := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(ttl).Unix()}
	if v.core.issuer != "" {
		all["iss"] = v.core.issuer
	}
	if len(v.core.audience) > 0 {
		all["aud"] = v.core.audience[0]
	}
	for _, r := range v.core.require {
		all[r.Claim] = r.Value
	}
	maps.Copy(all, claims)
	if user, ok := all["sub"]; ok && v.core.userClaim != "sub" {
		delete(all, "sub")
		all[v.core.userClaim] = user
	}
	token, err := jwt.NewWithClaims(a.method, all).SignedString(secret)
	if err != nil {
		return "", v.named(fmt.Errorf("signing a token: %w", err))
	}
	return token, nil
}

// AuthScheme implements caddymodule.Schemer.
func (v *Verifier) AuthScheme() string { return v.Scheme }

var errNoSecret = errors.New("tokens can be made with secret or secret_file only: a public key or a JWK Set verifies, it does not sign")

// Interface guards.
var (
	_ caddymodule.Minter  = (*Verifier)(nil)
	_ caddymodule.Schemer = (*Verifier)(nil)
)
