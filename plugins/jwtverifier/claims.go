package jwtverifier

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

const (
	// maxID bounds the ids of users, organizations and sessions, in bytes.
	maxID = 255
	// maxEmail is the longest address that SMTP can carry, in bytes.
	maxEmail = 320
	// maxDate is the last second of the year 9999. A later date is a mistake
	// (milliseconds for seconds) that would never expire.
	maxDate = 253402300799
)

// find is get that reports a null as present.
func (o object) find(name string) *value {
	for i := range o {
		if o[i].name == name {
			return &o[i].value
		}
	}
	return nil
}

var errExpired = errors.New("it has expired")

// dates are the registered claims that say when (RFC 7519 section 4.1).
type dates struct{ issued, expires time.Time }

// check judges the claims as of now; it says nothing about the signature.
func (s *settings) check(claims object, now time.Time) (dates, error) {
	var d dates
	exp, err := numericDate(claims, "exp")
	if err != nil {
		return d, err
	}
	nbf, err := numericDate(claims, "nbf")
	if err != nil {
		return d, err
	}
	iat, err := numericDate(claims, "iat")
	if err != nil {
		return d, err
	}
	switch {
	case exp.IsZero():
		return d, errors.New("it has no exp")
	case !now.Before(exp.Add(s.leeway)):
		return d, errExpired
	case now.Add(s.leeway).Before(nbf):
		return d, errors.New("it is not valid yet (nbf)")
	case now.Add(s.leeway).Before(iat):
		return d, errors.New("it was issued in the future (iat)")
	}
	if err := s.checkAudience(claims); err != nil {
		return d, err
	}
	for _, r := range s.require {
		if v := claims.find(r.Claim); v == nil || !v.is(r.Value) {
			return d, fmt.Errorf("the claim %q is not %q", r.Claim, r.Value)
		}
	}
	d.issued, d.expires = iat, exp
	return d, nil
}

// is compares a string, a boolean or a number by its exact text.
func (v *value) is(text string) bool {
	return (v.kind == kindString || v.kind == kindBool || v.kind == kindNumber) && v.text == text
}

// issuer is the claim iss, for judging who claims the token.
func issuer(claims object) string {
	iss, _ := claims.string("iss")
	return iss
}

// checkAudience wants one of the configured audiences, where there are any.
func (s *settings) checkAudience(claims object) error {
	aud := claims.find("aud")
	var list []value
	switch {
	case aud == nil:
	case aud.kind == kindString:
		list = []value{*aud}
	case aud.kind == kindArray:
		list = aud.list
	default:
		return errors.New("aud is neither a string nor an array")
	}
	found := false
	for _, a := range list {
		if a.kind != kindString {
			return errors.New("aud holds more than strings")
		}
		found = found || slices.Contains(s.audience, a.text)
	}
	if len(s.audience) > 0 && !found {
		return errors.New("it is for another audience")
	}
	return nil
}

// numericDate reads seconds since 1970, whole or not (RFC 7519 section 2). It
// is zero where the claim is absent.
func numericDate(claims object, name string) (time.Time, error) {
	v := claims.find(name)
	if v == nil {
		return time.Time{}, nil
	}
	if v.kind != kindNumber {
		return time.Time{}, fmt.Errorf("%s is not a number", name)
	}
	if n, err := strconv.ParseInt(v.text, 10, 64); err == nil && n >= 0 && n <= maxDate {
		return time.Unix(n, 0), nil
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !(f >= 0 && f <= maxDate) {
		return time.Time{}, fmt.Errorf("%s is out of range", name)
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// principal says who the claims name.
func (s *settings) principal(claims object, d dates) (*quota.Principal, error) {
	user, err := id(claims.find(s.userClaim))
	if err != nil {
		return nil, fmt.Errorf("the claim %q %w", s.userClaim, err)
	}
	if user == "" {
		return nil, fmt.Errorf("it has no claim %q", s.userClaim)
	}
	p := &quota.Principal{Subject: quota.UserSubject(user), IssuedAt: d.issued, Expires: d.expires}
	for _, c := range [...]struct {
		to   *string
		name string
	}{{&p.Org, s.orgClaim}, {&p.Session, s.sessionClaim}, {&p.Impersonator, "impersonated_by"}} {
		text, err := id(claims.find(c.name))
		if err != nil {
			return nil, fmt.Errorf("the claim %q %w", c.name, err)
		}
		*c.to = strings.Clone(text)
	}
	if p.Impersonator == "" {
		p.Impersonator = actor(claims)
	}
	if email, ok := claims.string("email"); ok && len(email) <= maxEmail && !hasControl(email) {
		p.Email, p.EmailState = strings.Clone(email), emailState(claims.find("email_verified"))
	}
	return p, nil
}

// emailState reads the claim email_verified: true (OpenID Connect Core 5.1), or the
// text that some providers write. Any other value is no yes.
func emailState(v *value) quota.EmailState {
	switch {
	case v == nil:
		return quota.EmailClaimed
	case (v.kind == kindBool || v.kind == kindString) && v.text == "true":
		return quota.EmailVerified
	}
	return quota.EmailUnverified
}

// actor is who acts in the user's place (RFC 8693 section 4.1), "" for nobody.
func actor(claims object) string {
	act, ok := claims.get("act")
	if !ok || act.kind != kindObject {
		return ""
	}
	sub, err := id(act.members.find("sub"))
	if err != nil || sub == "" {
		return "unknown" // somebody acts, so it is not the user alone
	}
	return strings.Clone(sub)
}

// id is the text of an id: a string or an integer, which is never parsed. It
// is "" where there is none.
func id(v *value) (string, error) {
	switch {
	case v == nil || v.kind == kindNull:
		return "", nil
	case v.kind == kindNumber:
		if strings.ContainsAny(v.text, ".eE") || v.text == "-0" {
			return "", errors.New("is not an integer")
		}
	case v.kind != kindString:
		return "", errors.New("is neither a string nor an integer")
	}
	if len(v.text) > maxID {
		return "", fmt.Errorf("is longer than %d bytes", maxID)
	}
	if hasControl(v.text) {
		return "", errors.New("holds a control character")
	}
	if strings.TrimSpace(v.text) != v.text {
		// On the way to a backend it would become another's.
		return "", errors.New("begins or ends with white space")
	}
	return v.text, nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
