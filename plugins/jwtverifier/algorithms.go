package jwtverifier

import (
	"crypto/rsa"

	"github.com/golang-jwt/jwt/v5"
)

// family is the kind of key that an algorithm needs (RFC 7518 section 6).
type family uint8

const (
	familyOct family = iota // a shared secret, HMAC
	familyRSA
	familyEC
	familyOKP // Ed25519
)

// algorithm is one of RFC 7518 section 3.1 or RFC 8037.
type algorithm struct {
	name   string
	family family
	curve  string // of familyEC and familyOKP
	digest int    // bytes; an HMAC key is not shorter
	method jwt.SigningMethod
}

func (a *algorithm) symmetric() bool { return a.family == familyOct }

// strictPSS takes the salt to be as long as the digest and nothing else (RFC
// 7518 section 3.5); the library's own methods take any length.
func strictPSS(m *jwt.SigningMethodRSAPSS) *jwt.SigningMethodRSAPSS {
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: m.SigningMethodRSA,
		Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash},
	}
}

// algorithmTable is constant. "none" and ES256K are not in it.
var algorithmTable = [...]*algorithm{
	{"HS256", familyOct, "", 32, jwt.SigningMethodHS256},
	{"HS384", familyOct, "", 48, jwt.SigningMethodHS384},
	{"HS512", familyOct, "", 64, jwt.SigningMethodHS512},
	{"RS256", familyRSA, "", 32, jwt.SigningMethodRS256},
	{"RS384", familyRSA, "", 48, jwt.SigningMethodRS384},
	{"RS512", familyRSA, "", 64, jwt.SigningMethodRS512},
	{"PS256", familyRSA, "", 32, strictPSS(jwt.SigningMethodPS256)},
	{"PS384", familyRSA, "", 48, strictPSS(jwt.SigningMethodPS384)},
	{"PS512", familyRSA, "", 64, strictPSS(jwt.SigningMethodPS512)},
	{"ES256", familyEC, "P-256", 32, jwt.SigningMethodES256},
	{"ES384", familyEC, "P-384", 48, jwt.SigningMethodES384},
	{"ES512", familyEC, "P-521", 64, jwt.SigningMethodES512},
	{"EdDSA", familyOKP, "Ed25519", 64, jwt.SigningMethodEdDSA},
}

// algorithmNames lists what the option `algorithms` takes.
const algorithmNames = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"

// findAlgorithm finds an algorithm by its exact name, nil if there is none.
func findAlgorithm(name string) *algorithm {
	for _, a := range algorithmTable {
		if a.name == name {
			return a
		}
	}
	return nil
}

// pinned is the list of algorithms that are accepted at all (RFC 8725 section 3.1).
type pinned []*algorithm

// find answers nil for an algorithm that is not in the list.
func (p pinned) find(name string) *algorithm {
	for _, a := range p {
		if a.name == name {
			return a
		}
	}
	return nil
}
