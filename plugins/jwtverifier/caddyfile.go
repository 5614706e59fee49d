package jwtverifier

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the verifier from:
//
//	jwt [<name>] {
//	    secret        <value>              # exactly one of these four
//	    secret_file   <path>
//	    public_key    <PEM or path>
//	    jwks          <url>
//	    algorithms    <name>...            # required
//	    issuer        <iss>
//	    audience      <aud>...
//	    leeway        <duration>           # default 30s
//	    scheme        <scheme>             # default Bearer
//	    cookie        <name>
//	    user_claim    <claim>              # default sub
//	    org_claim     <claim>              # default org_id
//	    session_claim <claim>              # default sid
//	    require       <claim> <value>      # any number
//	}
//
// The dispenser stands before the name of the guest, or at it.
func (v *Verifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.Val() == "" && !d.Next() {
		return d.Err("verify needs the name of a verifier")
	}
	if d.NextArg() {
		v.Name = d.Val()
		if d.NextArg() {
			return d.ArgErr()
		}
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] && option != "require" {
			return d.Errf("verify jwt: %s is set twice", option)
		}
		seen[option] = true
		if err := v.unmarshalOption(d, option); err != nil {
			return err
		}
		if d.NextArg() {
			return d.ArgErr()
		}
		if inner := d.Nesting(); d.NextBlock(inner) {
			return d.Errf("verify jwt: %s takes no block", option)
		}
	}
	// Said here with the line, and again in Validate for configs in JSON.
	if err := v.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// unmarshalOption parses one option, of which the name was consumed.
func (v *Verifier) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "algorithms":
		return v.unmarshalAlgorithms(d)
	case "audience":
		if v.Audience = d.RemainingArgs(); len(v.Audience) == 0 {
			return d.ArgErr()
		}
		if err := v.checkClaims(); err != nil {
			return d.Errf("verify jwt: %w", err)
		}
		return nil
	case "leeway":
		return v.unmarshalLeeway(d)
	case "require":
		var r Requirement
		if !d.Args(&r.Claim, &r.Value) {
			return d.ArgErr()
		}
		v.Require = append(v.Require, r)
		if err := v.checkClaims(); err != nil {
			return d.Errf("verify jwt: %w", err)
		}
		return nil
	}
	for _, o := range [...]struct {
		name string
		to   *string
	}{
		{"secret", &v.Secret}, {"secret_file", &v.SecretFile}, {"public_key", &v.PublicKey}, {"jwks", &v.JWKS},
		{"issuer", &v.Issuer}, {"scheme", &v.Scheme}, {"cookie", &v.Cookie},
		{"user_claim", &v.UserClaim}, {"org_claim", &v.OrgClaim}, {"session_claim", &v.SessionClaim},
	} {
		if o.name != option {
			continue
		}
		if !d.Args(o.to) {
			return d.ArgErr()
		}
		if *o.to == "" {
			return d.Errf("verify jwt: the value of %s is empty", option)
		}
		return nil
	}
	return d.Errf("verify jwt: unknown option %q", option)
}

func (v *Verifier) unmarshalAlgorithms(d *caddyfile.Dispenser) error {
	if v.Algorithms = d.RemainingArgs(); len(v.Algorithms) == 0 {
		return d.ArgErr()
	}
	if err := v.checkAlgorithms(); err != nil {
		return d.Errf("verify jwt: %w", err)
	}
	return nil
}

func (v *Verifier) unmarshalLeeway(d *caddyfile.Dispenser) error {
	var text string
	if !d.Args(&text) {
		return d.ArgErr()
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil {
		return d.Errf("verify jwt: parsing leeway: %w", err)
	}
	leeway := caddy.Duration(parsed)
	v.Leeway = &leeway
	if err := v.checkPlaces(); err != nil {
		return d.Errf("verify jwt: %w", err)
	}
	return nil
}
