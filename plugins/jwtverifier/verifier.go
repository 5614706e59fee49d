// Package jwtverifier is the guest `quota.verifiers.jwt`: it verifies JSON Web
// Tokens (RFC 7519) that somebody else has issued, by a shared secret, a PEM
// public key or a remote JWK Set, and says who they name. It reads strictly
// (RFC 8725): what two parties could read differently is refused, because the
// caller that is charged must be the caller that the backend serves. Verified
// tokens are cached by their full text. Plans, suspension and revoked sessions
// are left to the gate.
package jwtverifier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func init() {
	caddy.RegisterModule(&Verifier{})
}

// maxLeeway bounds the leeway: more than that is no clock skew.
const maxLeeway = time.Hour

// Verifier verifies JSON Web Tokens. Exactly one of Secret, SecretFile,
// PublicKey and JWKS is set. Strings may hold placeholders ({env.X},
// {file./path}), which are resolved when the config is loaded.
type Verifier struct {
	// Name is for people who tell several verifiers apart.
	Name string `json:"name,omitempty"`
	// Secret is the HMAC key as text; its bytes are the key.
	Secret string `json:"secret,omitempty"`
	// SecretFile is the path of a file with the HMAC key; one line end behind it is dropped.
	SecretFile string `json:"secret_file,omitempty"`
	// PublicKey is a PEM public key or certificate, or the path of one.
	PublicKey string `json:"public_key,omitempty"`
	// JWKS is the URL of a JWK Set (RFC 7517): https, or http to this machine.
	JWKS string `json:"jwks,omitempty"`
	// Algorithms are the names (RFC 7518, RFC 8037) that are accepted. Required.
	Algorithms []string `json:"algorithms,omitempty"`
	// Issuer is the iss of the tokens that the verifier claims; empty: any.
	Issuer string `json:"issuer,omitempty"`
	// Audience holds the values of which aud must have one; empty: any aud.
	Audience []string `json:"audience,omitempty"`
	// Leeway is what clocks may differ by, for exp, nbf and iat: 0 to 1h, default 30s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`
	// Scheme is the Authorization scheme, compared without case. Default: Bearer.
	Scheme string `json:"scheme,omitempty"`
	// Cookie is the name of a cookie that may hold a token; empty: none.
	Cookie string `json:"cookie,omitempty"`
	// UserClaim names the claim that is the user's id. Default: sub.
	UserClaim string `json:"user_claim,omitempty"`
	// OrgClaim names the claim that is the organization's id. Default: org_id.
	OrgClaim string `json:"org_claim,omitempty"`
	// SessionClaim names the claim that is the session's id. Default: sid.
	SessionClaim string `json:"session_claim,omitempty"`
	// Require lists claims that must have exactly a value.
	Require []Requirement `json:"require,omitempty"`

	core *core
	key  string // of the pool
}

// Requirement is a claim that must have a value: a string, or a boolean or
// number as it is written in the token.
type Requirement struct {
	Claim string `json:"claim"`
	Value string `json:"value"`
}

// cores are shared by equal configs, so that a reload keeps the keys and the
// verified tokens.
var cores = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (*Verifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "quota.verifiers.jwt",
		New: func() caddy.Module { return new(Verifier) },
	}
}

// Provision sets the defaults and reads the key. It dials nothing: a remote key
// set is fetched in the background from the first request on.
func (v *Verifier) Provision(caddy.Context) error {
	setDefault(&v.Scheme, defaultScheme)
	setDefault(&v.UserClaim, defaultUserClaim)
	setDefault(&v.OrgClaim, defaultOrgClaim)
	setDefault(&v.SessionClaim, defaultSessionClaim)
	if v.Leeway == nil {
		leeway := caddy.Duration(defaultLeeway)
		v.Leeway = &leeway
	}
	// Only a valid config has a key that can be read.
	if err := v.Validate(); err != nil {
		return err
	}
	s, err := v.resolve()
	if err != nil {
		return v.named(err)
	}
	key := s.fingerprint()
	shared, _, err := cores.LoadOrNew(key, func() (caddy.Destructor, error) { return newCore(s) })
	if err != nil {
		return v.named(fmt.Errorf("making the verifier: %w", err))
	}
	v.core, v.key = shared.(*core), key
	return nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// Validate checks the options against each other. It reads no file and no
// environment.
func (v *Verifier) Validate() error {
	for _, rule := range [...]func() error{v.checkAlgorithms, v.checkSource, v.checkPlaces, v.checkClaims} {
		if err := rule(); err != nil {
			return v.named(err)
		}
	}
	return nil
}

// named says which verifier an error is about.
func (v *Verifier) named(err error) error {
	if v.Name == "" {
		return fmt.Errorf("verify jwt: %w", err)
	}
	return fmt.Errorf("verify jwt %s: %w", v.Name, err)
}

func (v *Verifier) checkAlgorithms() error {
	if len(v.Algorithms) == 0 {
		return errors.New("algorithms is required: name those that the issuer signs with, for example algorithms HS256")
	}
	for i, name := range v.Algorithms {
		if findAlgorithm(name) == nil {
			return fmt.Errorf("the algorithm %q is not supported: %s", name, algorithmNames)
		}
		if slices.Contains(v.Algorithms[:i], name) {
			return fmt.Errorf("algorithms names %s twice", name)
		}
	}
	return nil
}

// checkSource wants one key source, of the kind that the algorithms need: a
// public key that could be taken for an HMAC secret would let anybody sign.
func (v *Verifier) checkSource() error {
	sources := 0
	for _, s := range [...]string{v.Secret, v.SecretFile, v.PublicKey, v.JWKS} {
		if s != "" {
			sources++
		}
	}
	if sources != 1 {
		return errKeySource
	}
	var hmac, other []string
	for _, name := range v.Algorithms {
		if findAlgorithm(name).symmetric() {
			hmac = append(hmac, name)
		} else {
			other = append(other, name)
		}
	}
	switch {
	case v.PublicKey != "" && hmac != nil:
		return fmt.Errorf("public_key cannot verify %s: HMAC needs secret or secret_file", strings.Join(hmac, ", "))
	case (v.Secret != "" || v.SecretFile != "") && other != nil:
		return fmt.Errorf("a secret cannot verify %s: that needs public_key or jwks", strings.Join(other, ", "))
	case hmac != nil && other != nil:
		return fmt.Errorf("algorithms mixes HMAC (%s) with public keys (%s): use two verifiers",
			strings.Join(hmac, ", "), strings.Join(other, ", "))
	case v.JWKS != "" && !strings.Contains(v.JWKS, "{"):
		if err := checkURL(v.JWKS); err != nil {
			return fmt.Errorf("jwks %q: %w", v.JWKS, err)
		}
	}
	return nil
}

func (v *Verifier) checkPlaces() error {
	if v.Scheme != "" && !isToken(v.Scheme) {
		return fmt.Errorf("scheme %q is no Authorization scheme", v.Scheme)
	}
	if v.Cookie != "" && !isToken(v.Cookie) {
		return fmt.Errorf("cookie %q is no name of a cookie", v.Cookie)
	}
	if v.Leeway != nil && (*v.Leeway < 0 || time.Duration(*v.Leeway) > maxLeeway) {
		return fmt.Errorf("leeway %s is not between 0 and %s", time.Duration(*v.Leeway), maxLeeway)
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !isTokenByte(c) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func (v *Verifier) checkClaims() error {
	for i, r := range v.Require {
		if r.Claim == "" || r.Value == "" {
			return errors.New("require needs a claim and a value")
		}
		for _, before := range v.Require[:i] {
			if before.Claim == r.Claim {
				return fmt.Errorf("require names the claim %q twice", r.Claim)
			}
		}
	}
	for i, aud := range v.Audience {
		if aud == "" {
			return errors.New("an audience is empty")
		}
		if slices.Contains(v.Audience[:i], aud) {
			return fmt.Errorf("audience names %q twice; keep one of them", aud)
		}
	}
	return nil
}

// Cleanup lets go of what equal configs share.
func (v *Verifier) Cleanup() error {
	if v.key == "" {
		return nil
	}
	key := v.key
	v.key = "" // the core stays: a request may outlast its config
	_, err := cores.Delete(key)
	return err
}

// Verify says who the request's token names. The answer is shared between
// requests. It implements gate.Verifier.
func (v *Verifier) Verify(ctx context.Context, r *http.Request) (*quota.Principal, error) {
	return v.core.request(ctx, r.Header)
}

// Interface guards.
var (
	_ caddy.Provisioner     = (*Verifier)(nil)
	_ caddy.Validator       = (*Verifier)(nil)
	_ caddy.CleanerUpper    = (*Verifier)(nil)
	_ caddyfile.Unmarshaler = (*Verifier)(nil)
	_ gate.Verifier         = (*Verifier)(nil)
)
