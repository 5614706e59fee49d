package jwtverifier

import (
	"encoding/json"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// encodeSet is a set of raw JWKs.
func encodeSet(tb testing.TB, jwks ...map[string]any) []byte {
	tb.Helper()
	raw, err := json.Marshal(map[string]any{"keys": jwks})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// rocaModulus is a modulus that the faulty generator could have made: modulo
// each small prime it is a power of 65537.
func rocaModulus() *big.Int {
	m := big.NewInt(2)
	for p := int64(3); p <= 167; p += 2 {
		if big.NewInt(p).ProbablyPrime(8) {
			m.Mul(m, big.NewInt(p))
		}
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(123456789), m)
	factor := new(big.Int).Lsh(big.NewInt(1), uint(2048-m.BitLen()))
	return n.Add(n, factor.Mul(factor, m))
}

func TestKeyHygiene(t *testing.T) {
	t.Parallel()
	keys := map[string]*gatetest.Key{}
	for _, alg := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		keys[alg] = newKey(t, alg, "k1", 0)
	}
	short := func(n int) string { return gatetest.Encode(strings.Repeat("k", n)) }
	p384 := gatetest.NewKey(t, "ES384", "").JWK()
	tests := map[string]struct {
		alg    string
		change map[string]any
		want   string // in the error, "" if it verifies
	}{
		"as it is":              {"ES256", nil, ""},
		"no alg":                {"ES256", map[string]any{"alg": nil}, ""},
		"no use":                {"ES256", map[string]any{"use": nil}, ""},
		"verify":                {"ES256", map[string]any{"key_ops": []string{"verify"}}, ""},
		"sign and verify":       {"HS256", map[string]any{"key_ops": []string{"sign", "verify"}}, ""},
		"private parts":         {"ES256", map[string]any{"d": "AAAA", "x5c": []string{"AAAA"}, "ext": true}, ""},
		"for encryption":        {"ES256", map[string]any{"use": "enc"}, "use is not sig"},
		"spelled use":           {"ES256", map[string]any{"use": "SIG"}, "use is not sig"},
		"number use":            {"ES256", map[string]any{"use": 1}, "use is not sig"},
		"to encrypt":            {"RS256", map[string]any{"use": nil, "key_ops": []string{"encrypt"}}, "no verify"},
		"no operation":          {"RS256", map[string]any{"key_ops": []string{}}, "no verify"},
		"only sign":             {"HS256", map[string]any{"key_ops": []string{"sign"}}, "no verify"},
		"joined operations":     {"HS256", map[string]any{"key_ops": []string{"sign, verify"}}, "no verify"},
		"operation twice":       {"HS256", map[string]any{"key_ops": []string{"verify", "verify"}}, "twice"},
		"operation as text":     {"HS256", map[string]any{"key_ops": "verify"}, "not an array"},
		"operation as number":   {"HS256", map[string]any{"key_ops": []any{"verify", 1}}, "more than strings"},
		"other alg":             {"RS256", map[string]any{"alg": "RS384"}, "not meant for RS256"},
		"alg for encryption":    {"RS256", map[string]any{"alg": "RSA-OAEP"}, "alg is not supported"},
		"AES":                   {"HS256", map[string]any{"alg": "A256GCM"}, "alg is not supported"},
		"number alg":            {"HS256", map[string]any{"alg": 256}, "alg is not supported"},
		"alg of another curve":  {"ES256", map[string]any{"alg": "ES512"}, "kind that ES512 needs"},
		"alg of another family": {"ES256", map[string]any{"alg": "RS256"}, "kind that RS256 needs"},
		"curve of another size": {"ES256", map[string]any{"crv": "P-384"}, "48 bytes of P-384"},
		"key of another curve":  {"ES256", map[string]any{"alg": nil, "crv": "P-384", "x": p384["x"], "y": p384["y"]}, "kind that ES256 needs"},
		"secp256k1":             {"ES256", map[string]any{"crv": "secp256k1"}, "curve is not supported"},
		"no curve":              {"ES256", map[string]any{"crv": nil}, "curve is not supported"},
		"no y":                  {"ES256", map[string]any{"y": nil}, "no y"},
		"off the curve":         {"ES256", map[string]any{"y": short(32)}, "point"},
		"infinity":              {"ES256", map[string]any{"x": gatetest.Encode(strings.Repeat("\x00", 32)), "y": gatetest.Encode(strings.Repeat("\x00", 32))}, "point"},
		"short x":               {"ES256", map[string]any{"x": short(31)}, "32 bytes of P-256"},
		"padded x":              {"ES256", map[string]any{"x": short(32) + "="}, "base64url"},
		"another kty":           {"ES256", map[string]any{"kty": "RSA"}, "no n"},
		"unknown kty":           {"ES256", map[string]any{"kty": "AKP"}, "kty is not supported"},
		"spelled kty":           {"ES256", map[string]any{"kty": "ec"}, "kty is not supported"},
		"X25519":                {"EdDSA", map[string]any{"crv": "X25519"}, "curve is not supported"},
		"Ed448":                 {"EdDSA", map[string]any{"crv": "Ed448"}, "curve is not supported"},
		"short Ed25519":         {"EdDSA", map[string]any{"x": short(31)}, "32 bytes of Ed25519"},
		"no Ed25519":            {"EdDSA", map[string]any{"x": nil}, "no x"},
		"empty secret":          {"HS256", map[string]any{"k": ""}, "no k"},
		"short secret":          {"HS256", map[string]any{"k": short(31)}, "shorter than the 32 bytes"},
		"secret with line end":  {"HS256", map[string]any{"k": short(32) + "\n"}, "line break"},
		"short for its alg":     {"HS256", map[string]any{"k": short(63), "alg": "HS512"}, "shorter than the 64 bytes"},
		"1024 bits":             {"RS256", map[string]any{"n": short(128)}, "fewer than 2048"},
		"2047 bits":             {"RS256", map[string]any{"n": gatetest.Encode("\x7f" + strings.Repeat("k", 255))}, "2047 bits"},
		"16384 bits":            {"RS256", map[string]any{"n": short(2048)}, "more than 8192"},
		"even modulus":          {"RS256", map[string]any{"n": gatetest.Encode("\xff" + strings.Repeat("j", 255))}, "even"},
		"ROCA":                  {"RS256", map[string]any{"n": gatetest.Encode(string(rocaModulus().Bytes()))}, "ROCA"},
		"exponent 1":            {"RS256", map[string]any{"e": "AQ"}, "exponent"},
		"exponent 3":            {"RS256", map[string]any{"e": "Aw"}, "exponent"},
		"exponent 65536":        {"RS256", map[string]any{"e": "AQAA"}, "exponent"},
		"exponent 0":            {"RS256", map[string]any{"e": "AA"}, "exponent"},
		"huge exponent":         {"RS256", map[string]any{"e": short(8)}, "exponent"},
		"no exponent":           {"RS256", map[string]any{"e": nil}, "no e"},
		"number exponent":       {"RS256", map[string]any{"e": 65537}, "no e"},
		"number kid":            {"RS256", map[string]any{"kid": 1}, "kid of a key is not a string"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keys[tt.alg]
			token := k.SignRaw(`{"alg":"`+tt.alg+`","kid":"k1"}`, "foo")
			jwk := gatetest.With(k.JWK(), tt.change)
			for name, value := range tt.change {
				if value == nil {
					delete(jwk, name)
				}
			}
			_, err := VerifyCompact(token, encodeSet(t, jwk), []string{tt.alg})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			// An unfit key does not spoil the others.
			delete(jwk, "kid")
			other := gatetest.With(k.JWK(), map[string]any{"kid": "k1"})
			if _, ok := jwk["kty"].(string); ok && (jwk["kty"] == "oct") == (other["kty"] == "oct") {
				if _, err := VerifyCompact(token, encodeSet(t, jwk, other), []string{tt.alg}); err != nil {
					t.Errorf("beside a good key: %v", err)
				}
			}
		})
	}
}

func TestKeySets(t *testing.T) {
	t.Parallel()
	a, b, h := gatetest.NewKey(t, "ES256", "a"), gatetest.NewKey(t, "ES256", "b"), gatetest.NewKey(t, "HS256", "h")
	token := a.SignRaw(`{"alg":"ES256","kid":"a"}`, "foo")
	same := maps.Clone(b.JWK())
	same["kid"] = "a"
	unnamed := maps.Clone(a.JWK())
	delete(unnamed, "kid")
	single, err := json.Marshal(a.JWK())
	if err != nil {
		t.Fatal(err)
	}
	many := make([]map[string]any, maxKeys+1)
	for i := range many {
		many[i] = unnamed
	}
	tests := map[string]struct {
		set  string
		want string
	}{
		"single":            {string(single), ""},
		"set":               {gatetest.JWKS(b, a), ""},
		"unknown members":   {`{"x":1,` + gatetest.JWKS(a)[1:], ""},
		"mixed":             {gatetest.JWKS(a, h), "mixes symmetric and asymmetric"},
		"duplicate kid":     {string(encodeSet(t, a.JWK(), same)), "two keys have the kid"},
		"twice the same":    {gatetest.JWKS(a, a), "two keys have the kid"},
		"other key":         {gatetest.JWKS(b), "no key for the token"},
		"key without kid":   {string(encodeSet(t, unnamed)), "no key for the token"},
		"empty set":         {`{"keys":[]}`, "no key for the token"},
		"empty":             {``, "not a JSON object"},
		"object":            {`{}`, "neither a JWK Set nor a JWK"},
		"both":              {`{"kty":"EC","keys":[]}`, "neither a JWK Set nor a JWK"},
		"spelled keys":      {`{"Keys":[]}`, "neither a JWK Set nor a JWK"},
		"object keys":       {`{"keys":{}}`, "keys is not an array"},
		"list of text":      {`{"keys":["a"]}`, "a key is not a JSON object"},
		"no kty":            {`{"keys":[{"kid":"a"}]}`, "a key has no kty"},
		"duplicate members": {`{"keys":[{"kty":"EC","kty":"EC"}]}`, "twice"},
		"two lists":         {`{"keys":[],"keys":[]}`, "twice"},
		"too many":          {string(encodeSet(t, many...)), "more than 64 keys"},
		"too large":         {strings.Repeat(" ", maxKeySet+1), "larger than"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := VerifyCompact(token, []byte(tt.set), []string{"ES256"})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
		})
	}
}
