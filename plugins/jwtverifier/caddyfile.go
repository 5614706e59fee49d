package jwtverifier

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/block"
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
		if err := block.NoArgs(d, "verify jwt [<name>] { ... }"); err != nil {
			return err
		}
	}
	if err := block.Parse(d, "verify jwt", v.options()); err != nil {
		return err
	}
	// Said here with the line, and again in Validate for configs in JSON.
	if err := v.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (v *Verifier) options() map[string]block.Option {
	return map[string]block.Option{
		"secret":        block.Secret("secret {env.JWT_SECRET}", block.Text(&v.Secret)),
		"secret_file":   block.One("secret_file <path>", block.Text(&v.SecretFile)),
		"public_key":    block.One("public_key <PEM or path>", block.Text(&v.PublicKey)),
		"jwks":          block.One("jwks <url>", block.Text(&v.JWKS)),
		"algorithms":    {Usage: "algorithms <name>...", Min: 1, Max: -1, Set: v.setAlgorithms},
		"issuer":        block.One("issuer <iss>", block.Text(&v.Issuer)),
		"audience":      {Usage: "audience <aud>...", Min: 1, Max: -1, Set: v.setAudience},
		"leeway":        block.One("leeway <duration>", v.setLeeway),
		"scheme":        block.One("scheme <scheme>", block.Text(&v.Scheme)),
		"cookie":        block.One("cookie <name>", block.Text(&v.Cookie)),
		"user_claim":    block.One("user_claim <claim>", block.Text(&v.UserClaim)),
		"org_claim":     block.One("org_claim <claim>", block.Text(&v.OrgClaim)),
		"session_claim": block.One("session_claim <claim>", block.Text(&v.SessionClaim)),
		"require":       {Usage: "require <claim> <value>", Min: 2, Max: 2, Repeat: true, Set: v.addRequire},
	}
}

func (v *Verifier) setAlgorithms(args []string) error {
	v.Algorithms = args
	return v.checkAlgorithms()
}

func (v *Verifier) setAudience(args []string) error {
	v.Audience = args
	return v.checkClaims()
}

func (v *Verifier) setLeeway(s string) error {
	parsed, err := block.ParseDuration(s)
	if err != nil {
		return err
	}
	leeway := caddy.Duration(parsed)
	v.Leeway = &leeway
	return v.checkPlaces()
}

func (v *Verifier) addRequire(args []string) error {
	v.Require = append(v.Require, Requirement{Claim: args[0], Value: args[1]})
	return v.checkClaims()
}
