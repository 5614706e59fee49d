package jwtverifier

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// maxToken bounds a token in bytes; servers take no larger header anyway.
const maxToken = 16 << 10

// jws is a token in compact serialization (RFC 7515 section 7.1), not verified yet.
type jws struct {
	alg    string
	kid    string
	hasKid bool
	// faulty says why the header refuses the token though it can be read.
	faulty error

	signed    string // what the signature covers
	payload   string // decoded
	signature []byte
	// bodyErr says why payload or signature could not be decoded.
	bodyErr error
}

// b64 refuses padding and bits that are not zero at the end. It skips line
// breaks, so decode looks for them.
var b64 = base64.RawURLEncoding.Strict()

// decode decodes canonical base64url without padding (RFC 7515 section 2).
func decode(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("a line break stands in base64url")
	}
	out, err := b64.DecodeString(part)
	if err != nil {
		return nil, fmt.Errorf("decoding base64url: %w", err)
	}
	return out, nil
}

// parseJWS takes a token apart. It fails for what is no compact JWS with a
// header that names an algorithm; anything else that is wrong is kept in the
// result, because a token that names its algorithm can be claimed.
func parseJWS(token string) (*jws, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("the token is larger than %d bytes", maxToken)
	}
	head, rest, ok := strings.Cut(token, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(sig, ".") {
		return nil, errors.New("the token has not three parts")
	}
	raw, err := decode(head)
	if err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	t := &jws{signed: token[:len(head)+1+len(body)]}
	if err := t.readHeader(string(raw)); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	payload, err := decode(body)
	switch {
	case err != nil:
		t.bodyErr = fmt.Errorf("reading the payload: %w", err)
	case len(payload) == 0:
		t.bodyErr = errors.New("the payload is detached or empty")
	default:
		t.payload = string(payload)
	}
	t.signature, err = decode(sig)
	switch {
	case t.bodyErr != nil:
	case err != nil:
		t.bodyErr = fmt.Errorf("reading the signature: %w", err)
	case len(t.signature) == 0:
		t.bodyErr = errors.New("the signature is empty")
	}
	return t, nil
}

func (t *jws) readHeader(text string) error {
	header, err := parseObject(text)
	if err != nil {
		return err
	}
	for i := range header {
		if err := t.readMember(&header[i]); err != nil {
			return err
		}
	}
	if t.alg == "" {
		return errors.New("it names no algorithm")
	}
	return nil
}

// readMember looks at one member of the header. jwk, jku, x5c and x5u are not
// looked at: a token does not choose its own key (RFC 8725 section 3.10).
func (t *jws) readMember(m *member) error {
	switch m.name {
	case "alg":
		if m.kind != kindString {
			return errors.New("alg is not a string")
		}
		t.alg = m.text
	case "kid":
		if m.kind != kindString {
			t.faulty = errors.New("kid is not a string")
		}
		t.kid, t.hasKid = m.text, true
	case "typ", "cty":
		if m.kind != kindString {
			t.faulty = fmt.Errorf("%s is not a string", m.name)
		}
	case "crit":
		// No extension is understood, so whatever it names must be refused; an
		// empty or malformed list too (RFC 7515 section 4.1.11).
		t.faulty = errors.New("crit names an extension that is not understood")
	case "b64":
		t.faulty = errors.New("an unencoded payload (RFC 7797) is not supported")
	}
	return nil
}

// errSignature says nothing about which key was tried.
var errSignature = errors.New("the signature does not verify")

// verify checks the signature with each of the keys that the token may mean.
func (t *jws) verify(a *algorithm, keys *keySet) error {
	if t.faulty != nil {
		return t.faulty
	}
	if t.bodyErr != nil {
		return t.bodyErr
	}
	tried := false
	for i := range keys.keys {
		k := &keys.keys[i]
		if !keys.means(t, k) {
			continue
		}
		if err := k.fits(a); err != nil {
			if t.hasKid && keys.named {
				return err
			}
			continue
		}
		tried = true
		if a.method.Verify(t.signed, t.signature, k.material) == nil {
			return nil
		}
	}
	if tried {
		return errSignature
	}
	return errUnknownKey
}

// errUnknownKey is the answer where no key of the set was meant: a refresh of
// the set may bring it.
var errUnknownKey = errors.New("no key for the token is known")

// VerifyCompact verifies a JWS in compact serialization (RFC 7515) against a
// JWK Set, or a single JWK (RFC 7517), and returns its payload, whatever it
// is: claims are not looked at. algorithms pins the names that are accepted; a
// name that is not supported (none, ES256K) matches nothing. The set is
// refused as a whole if it is malformed, has a duplicate kid, or mixes
// symmetric and asymmetric keys; keys that are unfit for signatures or too
// weak are left out. A token with a kid is verified by that key only, one
// without by any key that fits its algorithm.
func VerifyCompact(token string, jwks []byte, algorithms []string) (payload []byte, err error) {
	var pins pinned
	for _, name := range algorithms {
		if a := findAlgorithm(name); a != nil {
			pins = append(pins, a)
		}
	}
	if len(pins) == 0 {
		return nil, fmt.Errorf("none of the algorithms %q is supported: %s", algorithms, algorithmNames)
	}
	keys, err := parseKeySet(string(jwks))
	if err != nil {
		return nil, fmt.Errorf("reading the key set: %w", err)
	}
	t, err := parseJWS(token)
	if err != nil {
		return nil, fmt.Errorf("reading the token: %w", err)
	}
	a := pins.find(t.alg)
	if a == nil {
		return nil, fmt.Errorf("verifying the token: its algorithm is not among %q", algorithms)
	}
	if err := t.verify(a, keys); err != nil {
		return nil, fmt.Errorf("verifying the token: %w", keys.explain(t, err))
	}
	return []byte(t.payload), nil
}
