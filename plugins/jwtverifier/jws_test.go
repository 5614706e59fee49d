package jwtverifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

var allAlgorithms = strings.Split(algorithmNames, ", ")

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	for _, alg := range allAlgorithms {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			k, other := newKey(t, alg, "k1", 0), newKey(t, alg, "k2", 1)
			const payload = "any \x00\xff bytes"
			token := k.SignRaw(`{"alg":"`+alg+`","kid":"k1"}`, payload)
			set := []byte(gatetest.JWKS(other, k))
			got, err := VerifyCompact(token, set, []string{alg})
			if err != nil || string(got) != payload {
				t.Fatalf("payload = %q, %v", got, err)
			}
			if _, err := VerifyCompact(token, []byte(gatetest.JWKS(other)), []string{alg}); err == nil {
				t.Error("verified without its key")
			}
			// Without kid, each key that fits is tried.
			if _, err := VerifyCompact(k.SignRaw(`{"alg":"`+alg+`"}`, payload), set, []string{alg}); err != nil {
				t.Error(err)
			}
			for _, wrong := range allAlgorithms {
				if wrong == alg {
					continue
				}
				if _, err := VerifyCompact(token, set, []string{wrong}); err == nil {
					t.Errorf("verified with %s pinned", wrong)
				}
				renamed := k.SignRaw(`{"alg":"`+wrong+`","kid":"k1"}`, payload)
				if _, err := VerifyCompact(renamed, set, allAlgorithms); err == nil {
					t.Errorf("verified though the header says %s", wrong)
				}
			}
			head := strings.LastIndexByte(token, '.') + 1
			for i := range len(token) {
				if i > head+4 && i < len(token)-4 && i%37 != 0 {
					continue
				}
				changed := token[:i] + string('A'+(token[i]+1)%26) + token[i+1:]
				if changed == token {
					continue
				}
				if _, err := VerifyCompact(changed, set, allAlgorithms); err == nil {
					t.Errorf("verified with byte %d changed", i)
				}
			}
		})
	}
}

// The examples of RFC 7520, sections 4.3 and 4.4.
func TestRFC7520(t *testing.T) {
	t.Parallel()
	const payload = "It’s a dangerous business, Frodo, going out your door. You step onto the road, " +
		"and if you don't keep your feet, there’s no knowing where you might be swept off to."
	const body = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
	tests := map[string]struct{ jwk, token, alg string }{
		"ES512": {
			`{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521",
			"x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
			"y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}`,
			"eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + body +
				".AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
			"ES512",
		},
		"HS256": {
			`{"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256",
			"k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}`,
			"eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9." + body +
				".s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
			"HS256",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := VerifyCompact(tt.token, []byte(tt.jwk), []string{tt.alg})
			if err != nil || string(got) != payload {
				t.Errorf("payload = %q, %v", got, err)
			}
		})
	}
}

func TestRefusedStructure(t *testing.T) {
	t.Parallel()
	k := gatetest.NewKey(t, "HS256", "k1")
	set := []byte(gatetest.JWKS(k))
	good := k.SignRaw(`{"alg":"HS256","kid":"k1"}`, "foo")
	parts := strings.Split(good, ".")
	tests := map[string]string{
		"empty":                 "",
		"one part":              parts[0],
		"two parts":             parts[0] + "." + parts[1],
		"four parts":            good + ".",
		"five parts":            good + ".a.b",
		"no signature":          parts[0] + "." + parts[1] + ".",
		"detached":              parts[0] + ".." + parts[2],
		"signed empty payload":  k.SignRaw(`{"alg":"HS256","kid":"k1"}`, ""),
		"no header":             "." + parts[1] + "." + parts[2],
		"dots":                  "..",
		"padding":               good + "=",
		"padded payload":        parts[0] + "." + parts[1] + "=." + parts[2],
		"line feed":             parts[0] + "." + parts[1] + "\n." + parts[2],
		"carriage return":       good + "\r\n",
		"space":                 " " + good,
		"inner space":           parts[0] + "." + parts[1] + ". " + parts[2],
		"question mark":         parts[0] + "." + parts[1] + "?." + parts[2],
		"standard alphabet":     strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
		"unused bits":           good[:len(good)-1] + string(nextInQuad(good[len(good)-1])),
		"JSON serialization":    `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"not UTF-8":             "\xff" + good,
		"header is no JSON":     k.SignRaw("hello", "foo"),
		"header is a list":      k.SignRaw(`["HS256"]`, "foo"),
		"no alg":                k.SignRaw(`{"kid":"k1"}`, "foo"),
		"null alg":              k.SignRaw(`{"alg":null,"kid":"k1"}`, "foo"),
		"list alg":              k.SignRaw(`{"alg":["HS256"],"kid":"k1"}`, "foo"),
		"spelled alg":           k.SignRaw(`{"alg":"hs256","kid":"k1"}`, "foo"),
		"spelled alg name":      k.SignRaw(`{"Alg":"HS256","kid":"k1"}`, "foo"),
		"two algs":              k.SignRaw(`{"alg":"HS256","alg":"HS256","kid":"k1"}`, "foo"),
		"two algs, escaped":     k.SignRaw(`{"alg":"HS256","\u0061lg":"none","kid":"k1"}`, "foo"),
		"nested duplicate":      k.SignRaw(`{"alg":"HS256","kid":"k1","x":{"a":1,"a":2}}`, "foo"),
		"trailing bytes":        k.SignRaw(`{"alg":"HS256","kid":"k1"} x`, "foo"),
		"unknown kid":           k.SignRaw(`{"alg":"HS256","kid":"K1"}`, "foo"),
		"empty kid":             k.SignRaw(`{"alg":"HS256","kid":""}`, "foo"),
		"number kid":            k.SignRaw(`{"alg":"HS256","kid":1}`, "foo"),
		"null kid":              k.SignRaw(`{"alg":"HS256","kid":null}`, "foo"),
		"number typ":            k.SignRaw(`{"alg":"HS256","kid":"k1","typ":1}`, "foo"),
		"object cty":            k.SignRaw(`{"alg":"HS256","kid":"k1","cty":{}}`, "foo"),
		"unknown crit":          k.SignRaw(`{"alg":"HS256","kid":"k1","crit":["x"],"x":1}`, "foo"),
		"empty crit":            k.SignRaw(`{"alg":"HS256","kid":"k1","crit":[]}`, "foo"),
		"null crit":             k.SignRaw(`{"alg":"HS256","kid":"k1","crit":null}`, "foo"),
		"crit of a known name":  k.SignRaw(`{"alg":"HS256","kid":"k1","crit":["alg"]}`, "foo"),
		"crit of exp":           k.SignRaw(`{"alg":"HS256","kid":"k1","crit":["exp"],"exp":1}`, "foo"),
		"unencoded payload":     k.SignRaw(`{"alg":"HS256","kid":"k1","b64":false,"crit":["b64"]}`, "foo"),
		"b64 without crit":      k.SignRaw(`{"alg":"HS256","kid":"k1","b64":false}`, "foo"),
		"none":                  gatetest.Encode(`{"alg":"none"}`) + "." + parts[1] + ".",
		"none with signature":   gatetest.Encode(`{"alg":"none","kid":"k1"}`) + "." + parts[1] + "." + parts[2],
		"NONE":                  gatetest.Encode(`{"alg":"NONE","kid":"k1"}`) + "." + parts[1] + ".",
		"signature of another":  parts[0] + "." + parts[1] + "." + gatetest.Encode(strings.Repeat("x", 32)),
		"short signature":       parts[0] + "." + parts[1] + "." + gatetest.Encode("x"),
		"long signature":        parts[0] + "." + parts[1] + "." + parts[2] + "AA",
		"larger than the bound": k.SignRaw(`{"alg":"HS256","kid":"k1"}`, strings.Repeat("x", maxToken)),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if payload, err := VerifyCompact(token, set, append(allAlgorithms, "none")); err == nil {
				t.Errorf("verified: %q", payload)
			}
		})
	}
	for name, header := range map[string]string{
		"white space":    "{ \"alg\" :\r\n\t\"HS256\" , \"kid\":\"k1\" }",
		"unknown member": `{"alg":"HS256","kid":"k1","x":[1,{"a":null}]}`,
		"escaped":        `{"\u0061lg":"\u0048S256","kid":"k1"}`,
		"no kid":         `{"alg":"HS256"}`,
		"typ and cty":    `{"alg":"HS256","typ":"at+jwt","cty":"x"}`,
	} {
		if _, err := VerifyCompact(k.SignRaw(header, "foo"), set, []string{"HS256"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, algorithms := range [][]string{nil, {"none"}, {"ES256K", ""}} {
		if _, err := VerifyCompact(good, set, algorithms); err == nil {
			t.Errorf("verified with %q", algorithms)
		}
	}
}

// nextInQuad is a digit of base64url that differs in bits that 32 bytes leave unused.
func nextInQuad(c byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)^1]
}

// A public key is no HMAC secret, in whatever encoding.
func TestAlgorithmConfusion(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		k := newKey(t, alg, "k1", 0)
		set := gatetest.JWKS(k)
		jwk := k.JWK()
		secrets := []string{k.PEM(), strings.TrimSpace(k.PEM()), set, fmt.Sprint(jwk["x"]), fmt.Sprint(jwk["n"])}
		if raw, err := base64.RawURLEncoding.DecodeString(fmt.Sprint(jwk["x"])); err == nil {
			secrets = append(secrets, string(raw))
		}
		pemVerifier := provision(t, "public_key "+writeFile(t, k.PEM())+"\nalgorithms "+alg)
		for _, secret := range secrets {
			token := gatetest.SignRaw("HS256", []byte(secret), `{"alg":"HS256","kid":"k1"}`, `{"sub":"u1","exp":9999999999}`)
			if _, err := VerifyCompact(token, []byte(set), allAlgorithms); err == nil {
				t.Errorf("%s: verified with the public key as secret", alg)
			}
			if _, err := bearer(t, pemVerifier, token); err == nil {
				t.Errorf("%s: verified with the PEM as secret", alg)
			}
		}
	}
}

// A key that the token brings along is not used.
func TestEmbeddedKeys(t *testing.T) {
	t.Parallel()
	k, evil := gatetest.NewKey(t, "ES256", "k1"), gatetest.NewKey(t, "ES256", "k1")
	jwk := evil.JWK()
	for _, header := range []string{
		fmt.Sprintf(`{"alg":"ES256","kid":"k1","jwk":{"kty":"EC","crv":"P-256","x":%q,"y":%q}}`, jwk["x"], jwk["y"]),
		`{"alg":"ES256","jku":"https://evil.example.com/keys"}`,
		`{"alg":"ES256","x5u":"https://evil.example.com/cert"}`,
		`{"alg":"ES256","x5c":["AAAA"]}`,
	} {
		if _, err := VerifyCompact(evil.SignRaw(header, "foo"), []byte(gatetest.JWKS(k)), []string{"ES256"}); err == nil {
			t.Errorf("verified %s", header)
		}
	}
}

func TestECDSASignatures(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		k := gatetest.NewKey(t, alg, "")
		set := []byte(gatetest.JWKS(k))
		token := k.SignRaw(`{"alg":"`+alg+`"}`, "foo")
		cut := strings.LastIndexByte(token, '.') + 1
		raw, err := base64.RawURLEncoding.DecodeString(token[cut:])
		if err != nil {
			t.Fatal(err)
		}
		size := len(raw) / 2
		n := k.Private.(*ecdsa.PrivateKey).Params().N
		fill := func(x *big.Int) string { return string(x.FillBytes(make([]byte, size))) }
		r, s := new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])
		zero, one, last := new(big.Int), big.NewInt(1), new(big.Int).Sub(n, big.NewInt(1))
		bad := map[string]string{
			"longer": string(raw) + "\x00", "shorter": string(raw[:len(raw)-1]), "r only": string(raw[:size]),
			"padded": "\x00" + string(raw[:size]) + "\x00" + string(raw[size:]),
		}
		for i, a := range []*big.Int{zero, one, last, n, r} {
			for j, b := range []*big.Int{zero, one, last, n, s} {
				if a != r || b != s {
					bad[fmt.Sprint("edge ", i, j)] = fill(a) + fill(b)
				}
			}
		}
		if sum := new(big.Int).Add(r, n); sum.BitLen() <= 8*size {
			bad["r plus n"] = fill(sum) + fill(s)
		}
		digest := sha256.Sum256([]byte(token[:cut-1]))
		der, err := k.Private.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		bad["ASN.1"] = string(der)
		for name, sig := range bad {
			if _, err := VerifyCompact(token[:cut]+gatetest.Encode(sig), set, []string{alg}); err == nil {
				t.Errorf("%s: verified a signature: %s", alg, name)
			}
		}
	}
}

// RFC 7518 section 3.5: the salt is as long as the digest.
func TestPSSSalt(t *testing.T) {
	t.Parallel()
	k := newKey(t, "PS256", "", 0)
	private := k.Private.(*rsa.PrivateKey)
	signed := gatetest.Encode(`{"alg":"PS256"}`) + "." + gatetest.Encode("foo")
	digest := sha256.Sum256([]byte(signed))
	for salt, ok := range map[int]bool{rsa.PSSSaltLengthAuto: false, 1: false, 20: false, 31: false, 32: true, 33: false} {
		sig, err := rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		_, err = VerifyCompact(signed+"."+gatetest.Encode(string(sig)), []byte(gatetest.JWKS(k)), []string{"PS256"})
		if (err == nil) != ok {
			t.Errorf("salt of %d bytes: %v", salt, err)
		}
	}
}
