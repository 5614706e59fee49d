package quota

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"time"
)

// Subject names whoever a counter belongs to: "user:<id>", "org:<id>",
// "ip:<prefix>", "header:<name>=<value>" or "value:<text>". The part behind the
// first colon is opaque.
type Subject string

// UserSubject is the subject of the user with the given id (the verified user claim).
func UserSubject(id string) Subject { return Subject("user:" + id) }

// OrgSubject is the subject of the organization with the given id.
func OrgSubject(id string) Subject { return Subject("org:" + id) }

// IPSubject is the subject of an anonymous caller: its address cut to a prefix.
func IPSubject(p netip.Prefix) Subject {
	var b [len("ip:") + 43]byte // the longest IPv6 prefix
	return Subject(p.Masked().AppendTo(append(b[:0], "ip:"...)))
}

// Kind is the part before the first colon: "user", "org", "ip", "header", "value".
func (s Subject) Kind() string {
	kind, _, _ := strings.Cut(string(s), ":")
	return kind
}

// ID is the part behind the first colon.
func (s Subject) ID() string {
	_, id, _ := strings.Cut(string(s), ":")
	return id
}

// Digest is a subject in fixed length, as it stands in counter keys: whatever
// bytes a subject holds, it meets nobody else's counter.
type Digest [16]byte

// Digest is the first 128 bits of the subject's SHA-256.
func (s Subject) Digest() Digest {
	var buf [128]byte // keeps the copy of all usual ids on the stack
	sum := sha256.Sum256(append(buf[:0], s...))
	return Digest(sum[:16])
}

// EmailState is what the issuer of a credential says of the e-mail address in it.
type EmailState uint8

// The states. An unverified address may be one that the user has made up.
const (
	EmailClaimed EmailState = iota // nothing is said of it
	EmailVerified
	EmailUnverified
)

// Principal is a verified caller. The zero value is an anonymous one.
type Principal struct {
	// Subject is "user:<id>"; empty for an anonymous caller.
	Subject Subject
	// Org is the organization that the credential itself names, by id; empty for none.
	Org string
	// Session is the token's session id, empty where the token names none.
	Session string
	// KeyID and Impersonator are set for API keys and impersonation tokens.
	KeyID, Impersonator string
	// Email is what the credential says, and EmailState what its issuer says of it.
	Email      string
	EmailState EmailState
	Scopes     []string
	// IssuedAt is zero where the credential does not say.
	IssuedAt, Expires time.Time
}

// Anonymous reports whether nobody was verified.
func (p *Principal) Anonymous() bool { return p.Subject == "" }

// HasScope reports whether the credential carries the API key scope.
func (p *Principal) HasScope(scope string) bool {
	for _, s := range p.Scopes {
		if s == scope {
			return true
		}
	}
	return false
}
