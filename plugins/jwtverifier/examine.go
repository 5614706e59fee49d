package jwtverifier

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/doctor"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Examine looks whether there are keys for the algorithms; a remote key set is
// fetched. It implements caddymodule.Examiner.
func (v *Verifier) Examine(ctx context.Context, _ caddymodule.Env) []doctor.Finding {
	check, algorithms := v.label(), strings.Join(v.Algorithms, ", ")
	r := v.core.remote
	if r == nil {
		return []doctor.Finding{doctor.Well(check, "%s with a key of the config", algorithms)}
	}
	if f := r.refresh(func() bool { return true }); f != nil {
		select {
		case <-f.done:
			if f.err != nil {
				return []doctor.Finding{doctor.Fault(check, "the keys of %s: %v: until they come tokens are refused", r.name, f.err)}
			}
		case <-ctx.Done():
			return []doctor.Finding{doctor.Fault(check, "the keys of %s: no answer", r.name)}
		}
	}
	keys, fit := v.core.known(), 0
	for i := range keys.keys {
		if slices.ContainsFunc(v.core.algorithms, func(a *algorithm) bool { return keys.keys[i].fits(a) == nil }) {
			fit++
		}
	}
	var left []string
	for kid, err := range keys.left {
		left = append(left, fmt.Sprintf("%.80q: %v", kid, err))
	}
	slices.Sort(left)
	text := fmt.Sprintf("%d keys at %s, %d for %s", len(keys.keys)+len(left), r.name, fit, algorithms)
	switch {
	case fit == 0:
		return []doctor.Finding{doctor.Fault(check, "%s; %s", text, strings.Join(left, "; "))}
	case len(left) > 0:
		return []doctor.Finding{doctor.Doubt(check, "%s; left out: %s", text, strings.Join(left, "; "))}
	}
	return []doctor.Finding{doctor.Well(check, "%s", text)}
}

// label is how the config names the verifier.
func (v *Verifier) label() string { return strings.TrimSpace("verify jwt " + v.Name) }

// ExamineToken says whether the verifier claims the token and what it makes of
// it. It implements caddymodule.TokenExaminer.
func (v *Verifier) ExamineToken(ctx context.Context, token string) (claimed bool, findings []doctor.Finding) {
	check := v.label()
	passes := func(format string, args ...any) []doctor.Finding {
		return []doctor.Finding{doctor.Well(check, "passes the token on: "+format, args...)}
	}
	t, err := parseJWS(token)
	if err != nil {
		return false, passes("%v", err)
	}
	if v.core.algorithms.find(t.alg) == nil {
		return false, passes("its alg is %.40q, and algorithms has %s", t.alg, strings.Join(v.Algorithms, ", "))
	}
	claims, err := t.claims()
	if v.core.issuer != "" && (err != nil || issuer(claims) != v.core.issuer) {
		return false, passes("its iss is %.200q, and issuer is %q", issuer(claims), v.core.issuer)
	}
	p, err := v.core.token(ctx, token)
	if err != nil {
		f := doctor.Fault("token", "%s claims it and refuses it: %v", check, err)
		return true, []doctor.Finding{f.Do(v.remedy(claims, err))}
	}
	text := fmt.Sprintf("%s accepts it: user %q", check, p.Subject.ID())
	for _, part := range []struct{ name, value string }{{"organization", p.Org}, {"session", p.Session}, {"on behalf by", p.Impersonator}} {
		if part.value != "" {
			text += fmt.Sprintf(", %s %q", part.name, part.value)
		}
	}
	findings = []doctor.Finding{doctor.Well("token", "%s, for %s more", text, time.Until(p.Expires).Round(time.Second))}
	if p.Org != "" {
		findings = append(findings, doctor.Fault("token", "a request with it gets 403 not_org_member: this release keeps no organizations, "+
			"and the token's claim %q names one", v.OrgClaim).Do("org_claim <a claim that these tokens do not have>"))
	}
	return true, append(findings, v.wants(claims, p)...)
}

// remedy is what to configure for tokens like one that was refused; empty: the
// config is not what is wrong.
func (v *Verifier) remedy(claims object, err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, errSignature.Error()) && v.Secret != "":
		return "secret <the secret that the auth backend signs with>"
	case strings.Contains(text, "no claim"):
		return proposal(claims, "user_claim", "user_id", "userId", "uid", "id", "username", "email")
	case strings.Contains(text, "another audience"):
		if aud, ok := claims.string("aud"); ok {
			return "audience " + aud
		}
	}
	return ""
}

// wants is what the token could be held to, or lacks.
func (v *Verifier) wants(claims object, p *quota.Principal) []doctor.Finding {
	var findings []doctor.Finding
	doubt := func(configure, format string, args ...any) {
		findings = append(findings, doctor.Doubt("token", format, args...).Do(configure))
	}
	if claims.find("iat") == nil {
		doubt("", "it has no iat: after a user's sessions were revoked such tokens stay refused, also new ones")
	}
	if p.Session == "" {
		doubt(proposal(claims, "session_claim", "session_id", "sessionId", "session", "jti"),
			"it has no claim %q: only all of a user's sessions can be revoked, not one", v.SessionClaim)
	}
	if aud, ok := claims.string("aud"); ok && len(v.Audience) == 0 {
		doubt("audience "+aud, "tokens of the same issuer for others than %.200q pass too", aud)
	}
	for _, name := range []string{"type", "token_type", "token_use"} {
		kind, ok := claims.string(name)
		if ok && !slices.ContainsFunc(v.Require, func(r Requirement) bool { return r.Claim == name }) {
			doubt("require "+name+" "+kind, "tokens of another %s, such as refresh tokens, pass too", name)
		}
	}
	return findings
}

// proposal is the option with the first of the claims that the token has.
func proposal(claims object, option string, names ...string) string {
	for _, name := range names {
		if text, err := id(claims.find(name)); err == nil && text != "" {
			return option + " " + name
		}
	}
	return ""
}

// Interface guards.
var (
	_ caddymodule.Examiner      = (*Verifier)(nil)
	_ caddymodule.TokenExaminer = (*Verifier)(nil)
)
