package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// secrets are made at the first start and used again at the next, so that
// tokens outlive a restart.
type secrets struct {
	jwt        string // signs and verifies the auth backend's tokens
	encryption string // of what the companion keeps and nobody is to read
}

// loadSecrets reads the secrets from the folder and makes those that are
// missing, readable by their owner only.
func loadSecrets(folder string) (secrets, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return secrets{}, fmt.Errorf("making the data folder: %w", err)
	}
	jwt, err := loadSecret(filepath.Join(folder, "jwt_secret"))
	if err != nil {
		return secrets{}, err
	}
	encryption, err := loadSecret(filepath.Join(folder, "encryption_key"))
	if err != nil {
		return secrets{}, err
	}
	return secrets{jwt: jwt, encryption: encryption}, nil
}

func loadSecret(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err == nil {
		secret := strings.TrimSpace(string(content))
		if len(secret) < 32 {
			return "", fmt.Errorf("secret in %s has %d bytes, want 32 or more: remove the file to get a new one", file, len(secret))
		}
		return secret, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	random := make([]byte, 32)
	rand.Read(random) // never fails
	secret := hex.EncodeToString(random)
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing a secret: %w", err)
	}
	return secret, nil
}
