package jwtverifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// parsePEM reads the one public key of a PEM text: PUBLIC KEY (RFC 5280
// SubjectPublicKeyInfo), RSA PUBLIC KEY (PKCS #1) or CERTIFICATE, of which
// nothing but the key is looked at.
func parsePEM(text []byte) (*key, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("it is no PEM text")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("it holds more than one PEM block: list one key, or serve several as a JWK Set")
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("it is a private key, which a gateway has no use for: take the public one (openssl pkey -in key.pem -pubout)")
	}
	pub, err := publicKey(block)
	if err != nil {
		return nil, err
	}
	k := &key{}
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		err = k.setRSA(pub)
	case *ecdsa.PublicKey:
		err = k.setEC(pub)
	case ed25519.PublicKey:
		k.setEd25519(pub)
	default:
		err = fmt.Errorf("keys of the type %T are not supported", pub)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

func publicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing the public key: %w", err)
		}
		return pub, nil
	case "RSA PUBLIC KEY":
		pub, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing the public key: %w", err)
		}
		return pub, nil
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing the certificate: %w", err)
		}
		return cert.PublicKey, nil
	default:
		return nil, fmt.Errorf("a PEM block of the type %.40q is not supported", block.Type)
	}
}
