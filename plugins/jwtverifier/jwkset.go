package jwtverifier

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

// Bounds of key sets.
const (
	maxKeys   = 64      // a token without kid may try all of them
	maxKeySet = 1 << 20 // bytes
)

// keySet is a set of keys that never changes.
type keySet struct {
	keys []key
	// named says that kid chooses among the keys; the one key of a secret or a
	// PEM has no name, and a kid in a token says nothing about it.
	named bool
	// left names the keys that were left out, by kid, with the reason.
	left map[string]error
	// epoch grows whenever a key went away or changed: what was verified before
	// is not trusted any more.
	epoch uint64
}

// means reports whether the token may mean the key.
func (s *keySet) means(t *jws, k *key) bool {
	return !s.named || !t.hasKid || k.hasKid && k.kid == t.kid
}

// explain says why a key that the token names is unknown: it may have been left out.
func (s *keySet) explain(t *jws, err error) error {
	if errors.Is(err, errUnknownKey) && t.hasKid && s.left[t.kid] != nil {
		return fmt.Errorf("%w: it was left out: %w", err, s.left[t.kid])
	}
	return err
}

// keeps reports whether every key of s is in next, unchanged.
func (s *keySet) keeps(next *keySet) bool {
	in := make(map[[sha256.Size]byte]struct{}, len(next.keys))
	for i := range next.keys {
		in[next.keys[i].print] = struct{}{}
	}
	for i := range s.keys {
		if _, ok := in[s.keys[i].print]; !ok {
			return false
		}
	}
	return true
}

// parseKeySet parses a JWK Set or a single JWK.
func parseKeySet(text string) (*keySet, error) {
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("it is larger than %d bytes", maxKeySet)
	}
	doc, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	set := &keySet{named: true, left: map[string]error{}}
	list, isSet := doc.get("keys")
	_, isKey := doc.get("kty")
	switch {
	case isSet == isKey:
		return nil, errors.New("it is neither a JWK Set nor a JWK")
	case isKey:
		list = &value{kind: kindArray, list: []value{{kind: kindObject, members: doc}}}
	case list.kind != kindArray:
		return nil, errors.New("keys is not an array")
	}
	if len(list.list) > maxKeys {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	if err := checkSet(list.list); err != nil {
		return nil, err
	}
	for i := range list.list {
		jwk := list.list[i].members
		k, err := parseKey(jwk)
		if err == nil {
			set.keys = append(set.keys, *k)
		} else {
			kid, _ := jwk.string("kid")
			set.left[kid] = err
		}
	}
	return set, nil
}

// checkSet refuses sets that are ambiguous as a whole.
func checkSet(jwks []value) error {
	kids := map[string]struct{}{}
	symmetric, asymmetric := false, false
	for i := range jwks {
		if jwks[i].kind != kindObject {
			return errors.New("a key is not a JSON object")
		}
		jwk := jwks[i].members
		kty, ok := jwk.string("kty")
		if !ok {
			return errors.New("a key has no kty")
		}
		if kty == "oct" {
			symmetric = true
		} else {
			asymmetric = true
		}
		kid, ok := jwk.get("kid")
		if !ok {
			continue
		}
		if kid.kind != kindString {
			return errors.New("the kid of a key is not a string")
		}
		if _, twice := kids[kid.text]; twice {
			return fmt.Errorf("two keys have the kid %.80q", kid.text)
		}
		kids[kid.text] = struct{}{}
	}
	if symmetric && asymmetric {
		return errors.New("it mixes symmetric and asymmetric keys")
	}
	return nil
}
