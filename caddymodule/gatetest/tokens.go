package gatetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Claims are what an access token of the demo backend says: sub, type, iat and
// an exp that is ttl away (negative: it has expired). The caller may add to them.
func Claims(user string, ttl time.Duration) map[string]any {
	now := time.Now()
	return map[string]any{"sub": user, "type": "access", "iat": now.Unix(), "exp": now.Add(ttl).Unix()}
}

// With is a copy of the claims with more set; a nil value takes a claim away.
func With(claims, more map[string]any) map[string]any {
	out := maps.Clone(claims)
	for name, v := range more {
		if v == nil {
			delete(out, name)
			continue
		}
		out[name] = v
	}
	return out
}

// HS256 signs claims with a secret. The header has no kid.
func HS256(secret string, claims map[string]any) string {
	return mint("HS256", "", []byte(secret), claims)
}

// RS256 signs claims with an RSA key; kid may be empty.
func RS256(key *rsa.PrivateKey, kid string, claims map[string]any) string {
	return mint("RS256", kid, key, claims)
}

// ES256 signs claims with a key on P-256; kid may be empty.
func ES256(key *ecdsa.PrivateKey, kid string, claims map[string]any) string {
	return mint("ES256", kid, key, claims)
}

// EdDSA signs claims with an Ed25519 key; kid may be empty.
func EdDSA(key ed25519.PrivateKey, kid string, claims map[string]any) string {
	return mint("EdDSA", kid, key, claims)
}

func mint(alg, kid string, key any, claims map[string]any) string {
	header := map[string]any{"alg": alg, "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	return SignRaw(alg, key, marshal(header), marshal(claims))
}

// SignRaw signs a header and a payload as they are, however malformed, with the
// method of alg, whatever the header says. It panics if the key is not of the
// method's kind: that is a mistake of the test.
func SignRaw(alg string, key any, header, payload string) string {
	signed := Encode(header) + "." + Encode(payload)
	sig, err := jwt.GetSigningMethod(alg).Sign(signed, key)
	if err != nil {
		panic(fmt.Errorf("signing a test token with %s: %w", alg, err))
	}
	return signed + "." + Encode(string(sig))
}

// Encode is base64url without padding (RFC 7515 section 2).
func Encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func marshal(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("encoding a test token: %w", err))
	}
	return string(raw)
}

// Key is a key made for a test, with the algorithm and kid that it is meant for.
type Key struct {
	Alg, Kid string
	// Private is a []byte, *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey.
	Private any
}

// NewKey makes a key for an algorithm of RFC 7518 or EdDSA; kid may be empty.
func NewKey(tb testing.TB, alg, kid string) *Key {
	tb.Helper()
	var private any
	var err error
	switch alg {
	case "HS256", "HS384", "HS512":
		secret := make([]byte, 64)
		_, err = rand.Read(secret)
		private = secret
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatalf("making a key for %s: %v", alg, err)
	}
	return &Key{Alg: alg, Kid: kid, Private: private}
}

// Sign signs claims.
func (k *Key) Sign(claims map[string]any) string { return mint(k.Alg, k.Kid, k.Private, claims) }

// SignRaw signs a header and a payload as they are.
func (k *Key) SignRaw(header, payload string) string {
	return SignRaw(k.Alg, k.Private, header, payload)
}

// JWK is the public key (of HMAC: the secret) as RFC 7517 has it.
func (k *Key) JWK() map[string]any {
	jwk := map[string]any{"use": "sig", "alg": k.Alg}
	if k.Kid != "" {
		jwk["kid"] = k.Kid
	}
	switch private := k.Private.(type) {
	case []byte:
		jwk["kty"], jwk["k"] = "oct", Encode(string(private))
	case *rsa.PrivateKey:
		jwk["kty"], jwk["n"] = "RSA", Encode(string(private.N.Bytes()))
		jwk["e"] = Encode(string(big.NewInt(int64(private.E)).Bytes()))
	case *ecdsa.PrivateKey:
		point, err := private.PublicKey.Bytes()
		if err != nil {
			panic(fmt.Errorf("encoding a test key: %w", err))
		}
		size := (len(point) - 1) / 2
		jwk["kty"], jwk["crv"] = "EC", private.Curve.Params().Name
		jwk["x"], jwk["y"] = Encode(string(point[1:1+size])), Encode(string(point[1+size:]))
	case ed25519.PrivateKey:
		jwk["kty"], jwk["crv"] = "OKP", "Ed25519"
		jwk["x"] = Encode(string(private.Public().(ed25519.PublicKey)))
	}
	return jwk
}

// PEM is the public key as SubjectPublicKeyInfo.
func (k *Key) PEM() string {
	der, err := x509.MarshalPKIXPublicKey(k.Private.(crypto.Signer).Public())
	if err != nil {
		panic(fmt.Errorf("encoding a test key: %w", err))
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// JWKS is the JWK Set of keys.
func JWKS(keys ...*Key) string {
	list := make([]any, len(keys))
	for i, k := range keys {
		list[i] = k.JWK()
	}
	return marshal(map[string]any{"keys": list})
}
