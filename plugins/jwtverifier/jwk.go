package jwtverifier

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
)

// Bounds of RSA keys. An exponent that is smaller than usual has no use but attacks.
const (
	minRSABits = 2048
	maxRSABits = 8192
	minRSAExp  = 65537
)

// key is one key that may verify signatures.
type key struct {
	kid      string
	hasKid   bool
	alg      string // the only algorithm, where the key names one
	family   family
	curve    string
	material any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	// print tells keys apart without holding them.
	print [sha256.Size]byte
}

// fits reports why the key must not be used with the algorithm.
func (k *key) fits(a *algorithm) error {
	if k.family != a.family || k.curve != a.curve {
		return fmt.Errorf("the key is not of the kind that %s needs", a.name)
	}
	if k.alg != "" && k.alg != a.name {
		return fmt.Errorf("the key is not meant for %s", a.name)
	}
	if secret, ok := k.material.([]byte); ok && k.family == familyOct && len(secret) < a.digest {
		return fmt.Errorf("the key is shorter than the %d bytes that %s needs", a.digest, a.name)
	}
	return nil
}

// string is the member's text, "" and false if it is absent or no string.
func (o object) string(name string) (string, bool) {
	v, ok := o.get(name)
	if !ok || v.kind != kindString {
		return "", false
	}
	return v.text, true
}

// parseKey parses a JWK (RFC 7517 section 4, RFC 7518 section 6, RFC 8037
// section 2) that may verify signatures. Private parts are not looked at.
func parseKey(jwk object) (*key, error) {
	if err := checkUse(jwk); err != nil {
		return nil, err
	}
	k := &key{}
	k.kid, k.hasKid = jwk.string("kid")
	if alg, ok := jwk.get("alg"); ok {
		a := findAlgorithm(alg.text)
		if alg.kind != kindString || a == nil {
			return nil, errors.New("its alg is not supported")
		}
		k.alg = a.name
	}
	var err error
	switch kty, _ := jwk.string("kty"); kty {
	case "oct":
		err = k.readOct(jwk)
	case "RSA":
		err = k.readRSA(jwk)
	case "EC":
		err = k.readEC(jwk)
	case "OKP":
		err = k.readOKP(jwk)
	default:
		err = errors.New("its kty is not supported")
	}
	if err != nil {
		return nil, err
	}
	if k.alg != "" {
		if err := k.fits(findAlgorithm(k.alg)); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// checkUse refuses keys that are not meant to verify signatures.
func checkUse(jwk object) error {
	if use, ok := jwk.get("use"); ok && (use.kind != kindString || use.text != "sig") {
		return errors.New("its use is not sig")
	}
	ops, ok := jwk.get("key_ops")
	if !ok {
		return nil
	}
	if ops.kind != kindArray {
		return errors.New("its key_ops is not an array")
	}
	verify := false
	seen := map[string]struct{}{}
	for _, op := range ops.list {
		if op.kind != kindString {
			return errors.New("its key_ops holds more than strings")
		}
		if _, twice := seen[op.text]; twice {
			return errors.New("its key_ops names an operation twice")
		}
		seen[op.text] = struct{}{}
		verify = verify || op.text == "verify"
	}
	if !verify {
		return errors.New("its key_ops has no verify")
	}
	return nil
}

// bytes decodes a member that is base64url.
func (o object) bytes(name string) ([]byte, error) {
	text, ok := o.string(name)
	if !ok || text == "" {
		return nil, fmt.Errorf("it has no %s", name)
	}
	raw, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return raw, nil
}

func (k *key) readOct(jwk object) error {
	secret, err := jwk.bytes("k")
	if err != nil {
		return err
	}
	if len(secret) < findAlgorithm("HS256").digest {
		return errors.New("it is shorter than the 32 bytes that HS256 needs")
	}
	k.setSecret(secret)
	return nil
}

func (k *key) setSecret(secret []byte) {
	k.family, k.material = familyOct, secret
	k.setPrint("oct", secret)
}

// setPrint fingerprints everything about the key that matters.
func (k *key) setPrint(kty string, material ...[]byte) {
	h := sha256.New()
	for _, part := range append([][]byte{[]byte(kty), []byte(k.kid), []byte(k.alg), []byte(k.curve)}, material...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Sum(k.print[:0])
}

func (k *key) readRSA(jwk object) error {
	n, err := jwk.bytes("n")
	if err != nil {
		return err
	}
	e, err := jwk.bytes("e")
	if err != nil {
		return err
	}
	exp := new(big.Int).SetBytes(e)
	if exp.BitLen() > 31 {
		return errors.New("its exponent is larger than 2^31")
	}
	return k.setRSA(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exp.Int64())})
}

func (k *key) setRSA(pub *rsa.PublicKey) error {
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits:
		return fmt.Errorf("its modulus has %d bits, fewer than %d", bits, minRSABits)
	case bits > maxRSABits:
		return fmt.Errorf("its modulus has %d bits, more than %d", bits, maxRSABits)
	case pub.N.Bit(0) == 0:
		return errors.New("its modulus is even")
	case pub.E < minRSAExp || pub.E%2 == 0:
		return fmt.Errorf("its exponent is not an odd number of at least %d", minRSAExp)
	case weakPrimes(pub.N):
		return errors.New("its modulus is of the kind that can be factored (ROCA, CVE-2017-15361)")
	}
	k.family, k.material = familyRSA, pub
	k.setPrint("RSA", pub.N.Bytes(), big.NewInt(int64(pub.E)).Bytes())
	return nil
}

// weakPrimes recognizes moduli made by the faulty generator of CVE-2017-15361:
// modulo each small prime they are a power of 65537.
func weakPrimes(n *big.Int) bool {
	var mod big.Int
	for _, p := range [...]int64{
		3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
		97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	} {
		rest := mod.Mod(n, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			found = found || power == rest
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

func (k *key) readEC(jwk object) error {
	crv, _ := jwk.string("crv")
	curve := findCurve(crv)
	if curve == nil {
		return errors.New("its curve is not supported")
	}
	x, err := jwk.bytes("x")
	if err != nil {
		return err
	}
	y, err := jwk.bytes("y")
	if err != nil {
		return err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return fmt.Errorf("its coordinates have not the %d bytes of %s", size, crv)
	}
	point := append(append([]byte{4}, x...), y...)
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return fmt.Errorf("reading its point: %w", err)
	}
	return k.setEC(pub)
}

func findCurve(name string) elliptic.Curve {
	switch name {
	case "P-256":
		return elliptic.P256()
	case "P-384":
		return elliptic.P384()
	case "P-521":
		return elliptic.P521()
	default:
		return nil
	}
}

func (k *key) setEC(pub *ecdsa.PublicKey) error {
	name := pub.Curve.Params().Name
	if findCurve(name) != pub.Curve {
		return errors.New("its curve is not supported")
	}
	point, err := pub.Bytes()
	if err != nil {
		return fmt.Errorf("reading its point: %w", err)
	}
	k.family, k.curve, k.material = familyEC, name, pub
	k.setPrint("EC", point)
	return nil
}

func (k *key) readOKP(jwk object) error {
	if crv, _ := jwk.string("crv"); crv != "Ed25519" {
		return errors.New("its curve is not supported")
	}
	x, err := jwk.bytes("x")
	if err != nil {
		return err
	}
	if len(x) != ed25519.PublicKeySize {
		return fmt.Errorf("it has not the %d bytes of Ed25519", ed25519.PublicKeySize)
	}
	k.setEd25519(x)
	return nil
}

func (k *key) setEd25519(pub ed25519.PublicKey) {
	k.family, k.curve, k.material = familyOKP, "Ed25519", pub
	k.setPrint("OKP", pub)
}
