// Package sealed encrypts what the records must keep and nobody must read in
// them: the e-mail address of a deleted user, the secrets of webhooks.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// MinKey is the shortest key, in bytes.
const MinKey = 32

// version stands before what is sealed, so that another way to seal can follow.
const version = "v1:"

// ErrOpen is answered for what was not sealed with this key and context.
var ErrOpen = errors.New("it was sealed with another key, or altered")

// Box seals with AES-256-GCM, under a key that HKDF-SHA-256 derives. It is safe
// for concurrent use.
type Box struct{ aead cipher.AEAD }

// NewBox is a box with a key of at least MinKey bytes.
func NewBox(key string) (*Box, error) {
	if len(key) < MinKey {
		return nil, fmt.Errorf("it has %d bytes, and at least %d are needed: make one with `openssl rand -base64 32`", len(key), MinKey)
	}
	derived, err := hkdf.Key(sha256.New, []byte(key), nil, "quotagate sealed v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return &Box{aead}, nil
}

// Seal is the text encrypted. What is sealed in one context (a table, a column
// and a row) opens in no other.
func (b *Box) Seal(text, context string) string {
	return version + base64.RawStdEncoding.EncodeToString(b.aead.Seal(nil, nil, []byte(text), []byte(context)))
}

// Open is the text that was sealed in the context; ErrOpen.
func (b *Box) Open(sealed, context string) (string, error) {
	encoded, ok := strings.CutPrefix(sealed, version)
	if !ok {
		return "", ErrOpen
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", ErrOpen
	}
	text, err := b.aead.Open(nil, nil, raw, []byte(context))
	if err != nil {
		return "", ErrOpen
	}
	return string(text), nil
}
