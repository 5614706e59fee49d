package jwtverifier

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Defaults of the options.
const (
	defaultScheme       = "Bearer"
	defaultLeeway       = 30 * time.Second
	defaultUserClaim    = "sub"
	defaultOrgClaim     = "org_id"
	defaultSessionClaim = "sid"
)

// settings are a config with its placeholders resolved. They hold secrets.
type settings struct {
	algorithms                        pinned
	keys                              *keySet // nil if they come from jwks
	jwks                              string
	issuer                            string
	audience                          []string
	leeway                            time.Duration
	scheme, cookie                    string
	userClaim, orgClaim, sessionClaim string
	require                           []Requirement
}

// resolve turns a valid config into settings: it reads the environment and
// files, and dials nothing.
func (v *Verifier) resolve() (*settings, error) {
	s := &settings{
		leeway:       time.Duration(*v.Leeway),
		scheme:       v.Scheme,
		cookie:       v.Cookie,
		userClaim:    v.UserClaim,
		orgClaim:     v.OrgClaim,
		sessionClaim: v.SessionClaim,
	}
	for _, name := range v.Algorithms {
		s.algorithms = append(s.algorithms, findAlgorithm(name))
	}
	r := resolver{caddy.NewReplacer()}
	var err error
	if s.issuer, err = r.text("issuer", v.Issuer); err != nil {
		return nil, err
	}
	for _, raw := range v.Audience {
		aud, err := r.text("audience", raw)
		if err != nil {
			return nil, err
		}
		s.audience = append(s.audience, aud)
	}
	for _, raw := range v.Require {
		value, err := r.text("require "+raw.Claim, raw.Value)
		if err != nil {
			return nil, err
		}
		s.require = append(s.require, Requirement{Claim: raw.Claim, Value: value})
	}
	if v.JWKS != "" {
		if s.jwks, err = r.text("jwks", v.JWKS); err != nil {
			return nil, err
		}
		if err := checkURL(s.jwks); err != nil {
			return nil, fmt.Errorf("jwks %q: %w", v.JWKS, err)
		}
		return s, nil
	}
	k, err := r.key(v, s.algorithms)
	if err != nil {
		return nil, err
	}
	s.keys = &keySet{keys: []key{*k}}
	return s, nil
}

// resolver resolves placeholders. Nothing that it resolves stands in an error:
// it may be secret.
type resolver struct{ *caddy.Replacer }

// text resolves a setting that is no secret; an empty one would mean another setting.
func (r resolver) text(option, raw string) (string, error) {
	text, err := r.ReplaceOrErr(raw, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: %s is not set: %w", option, source(raw, "its value"), err)
	}
	return text, nil
}

// key reads the one key of secret, secret_file or public_key.
func (r resolver) key(v *Verifier, algorithms pinned) (*key, error) {
	if v.PublicKey != "" {
		return r.publicKey(v.PublicKey, algorithms)
	}
	need := 0
	for _, a := range algorithms {
		need = max(need, a.digest)
	}
	var secret []byte
	var name, wayOut string
	if v.Secret != "" {
		name = source(v.Secret, "the value of secret")
		wayOut = fmt.Sprintf("set %s to the secret that the tokens are signed with, %d random bytes or more (openssl rand -hex %d makes one), or use secret_file",
			name, need, need)
		text, err := r.ReplaceOrErr(v.Secret, true, true)
		if err != nil {
			return nil, fmt.Errorf("secret: %s is not set: %s", name, wayOut)
		}
		secret = []byte(text)
	} else {
		path, err := r.text("secret_file", v.SecretFile)
		if err != nil {
			return nil, err
		}
		name = "the file " + path
		wayOut = fmt.Sprintf("write the secret that the tokens are signed with into it, %d random bytes or more (openssl rand -hex %d makes one)", need, need)
		if secret, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("secret_file: reading the secret: %w: %s", err, wayOut)
		}
		secret = trimLine(secret)
	}
	if len(secret) < need {
		return nil, fmt.Errorf("%s has %d bytes, which is too short for %s: %s",
			name, len(secret), strings.Join(v.Algorithms, ", "), wayOut)
	}
	k := &key{}
	k.setSecret(secret)
	return k, nil
}

// trimLine drops the one line end that editors leave at the end of a file.
func trimLine(b []byte) []byte {
	n := len(b)
	if n > 0 && b[n-1] == '\n' {
		n--
		if n > 0 && b[n-1] == '\r' {
			n--
		}
	}
	return b[:n]
}

func (r resolver) publicKey(raw string, algorithms pinned) (*key, error) {
	text, err := r.ReplaceOrErr(raw, true, true)
	if err != nil {
		return nil, fmt.Errorf("public_key: %s is not set: set it to a PEM public key or to the path of one", source(raw, "its value"))
	}
	pemText := []byte(text)
	if !strings.Contains(text, "-----BEGIN") {
		if pemText, err = os.ReadFile(text); err != nil {
			return nil, fmt.Errorf("public_key: reading the PEM file: %w", err)
		}
	} else if !strings.Contains(text, "\n") {
		// Environment files often hold a PEM in one line.
		pemText = []byte(strings.ReplaceAll(text, `\n`, "\n"))
	}
	k, err := parsePEM(pemText)
	if err != nil {
		return nil, fmt.Errorf("public_key: %w", err)
	}
	for _, a := range algorithms {
		if err := k.fits(a); err != nil {
			return nil, fmt.Errorf("public_key: %w: list the algorithms of this key only", err)
		}
	}
	return k, nil
}

var placeholder = regexp.MustCompile(`^\{(env|file)\.([^{}]+)\}$`)

// source names where a value comes from, as the config has it.
func source(raw, literal string) string {
	m := placeholder.FindStringSubmatch(raw)
	switch {
	case m == nil:
		return literal
	case m[1] == "file":
		return "the file " + m[2]
	}
	return m[2]
}

// fingerprint tells settings apart. Configs with the same one share keys and
// cache; it does not reveal the secret that it was made from.
func (s *settings) fingerprint() string {
	h := sha256.New()
	names := make([]string, 0, len(s.algorithms))
	for _, a := range s.algorithms {
		names = append(names, a.name)
	}
	addList(h, names...)
	addList(h, s.issuer, s.jwks, s.leeway.String(), s.scheme, s.cookie, s.userClaim, s.orgClaim, s.sessionClaim)
	addList(h, s.audience...)
	for _, r := range s.require {
		addList(h, r.Claim, r.Value)
	}
	if s.keys != nil {
		for _, k := range s.keys.keys {
			addList(h, string(k.print[:]))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// addList adds a list so that no two lists look alike.
func addList(h hash.Hash, list ...string) {
	fmt.Fprintf(h, "%d[", len(list))
	for _, text := range list {
		fmt.Fprintf(h, "%d:%s,", len(text), text)
	}
}

// errKeySource is the answer to a config with no key or several.
var errKeySource = errors.New("exactly one of secret, secret_file, public_key and jwks says where the keys are")
