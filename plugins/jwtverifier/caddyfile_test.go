package jwtverifier

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	t.Parallel()
	leeway := caddy.Duration(5 * time.Second)
	tests := map[string]struct {
		text string
		want Verifier
	}{
		"secret": {
			"jwt {\nsecret {env.JWT_SECRET}\nalgorithms HS256 HS512\n}",
			Verifier{Secret: "{env.JWT_SECRET}", Algorithms: []string{"HS256", "HS512"}},
		},
		"name and file": {
			"jwt main {\nsecret_file ./secret\nalgorithms HS256\n}",
			Verifier{Name: "main", SecretFile: "./secret", Algorithms: []string{"HS256"}},
		},
		"everything": {
			`jwt idp {
				jwks https://idp.example.com/keys
				algorithms RS256 ES256
				issuer https://idp.example.com
				audience api admin
				leeway 5s
				scheme JWT
				cookie session
				user_claim uid
				org_claim org
				session_claim jti
				require type access
				require "token use" "a b"
			}`,
			Verifier{
				Name: "idp", JWKS: "https://idp.example.com/keys", Algorithms: []string{"RS256", "ES256"},
				Issuer: "https://idp.example.com", Audience: []string{"api", "admin"}, Leeway: &leeway,
				Scheme: "JWT", Cookie: "session", UserClaim: "uid", OrgClaim: "org", SessionClaim: "jti",
				Require: []Requirement{{"type", "access"}, {"token use", "a b"}},
			},
		},
		"public key": {
			"jwt {\npublic_key /etc/key.pem\nalgorithms PS512\n}",
			Verifier{PublicKey: "/etc/key.pem", Algorithms: []string{"PS512"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, atName := range []bool{false, true} {
				var got Verifier
				d := caddyfile.NewTestDispenser(tt.text)
				if atName {
					d.Next()
				}
				if err := got.UnmarshalCaddyfile(d); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got, cmp.FilterPath(func(p cmp.Path) bool {
					return p.String() == "core" || p.String() == "key"
				}, cmp.Ignore())); diff != "" {
					t.Error(diff)
				}
			}
			raw, err := json.Marshal(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			var back Verifier
			if err := caddy.StrictUnmarshalJSON(raw, &back); err != nil {
				t.Fatalf("reading %s: %v", raw, err)
			}
		})
	}
}

func TestUnmarshalCaddyfileErrors(t *testing.T) {
	t.Parallel()
	const ok = "secret x\nalgorithms HS256\n"
	tests := map[string]struct {
		options, want string
		line          int
	}{
		"nothing":            {"", "algorithms is required", 3},
		"unknown option":     {ok + "secrets x", `unknown option "secrets" in verify jwt: want one of algorithms, audience, `, 4},
		"spelled option":     {ok + "Issuer x", `unknown option "Issuer"`, 4},
		"no value":           {"secret", `option "secret": an argument is missing`, 2},
		"empty value":        {`secret ""`, `option "secret": the argument is empty`, 2},
		"surplus":            {"secret x y", `option "secret": unexpected argument; write`, 2},
		"twice":              {ok + "secret y", `duplicate option "secret" in verify jwt: it stands in line 2 already`, 4},
		"algorithms twice":   {ok + "algorithms HS512", `duplicate option "algorithms"`, 4},
		"block":              {"secret x {\n a\n}", "unexpected block in verify jwt", 2},
		"no algorithms":      {"secret x", "algorithms is required", 3},
		"empty algorithms":   {"algorithms", "an argument is missing", 2},
		"none":               {"algorithms none", `"none" is not supported`, 2},
		"unknown algorithm":  {"algorithms HS256 ES256K", `"ES256K" is not supported`, 2},
		"spelled algorithm":  {"algorithms hs256", `"hs256" is not supported`, 2},
		"algorithm twice":    {"algorithms HS256 HS256", "names HS256 twice", 2},
		"no key":             {"algorithms HS256", "exactly one of secret", 3},
		"two keys":           {ok + "jwks https://a/b", "exactly one of secret", 5},
		"PEM and HMAC":       {"public_key a\nalgorithms RS256 HS256", "public_key cannot verify HS256", 4},
		"secret and RSA":     {"secret a\nalgorithms HS256 RS256", "a secret cannot verify RS256", 4},
		"mixed JWKS":         {"jwks https://a/b\nalgorithms HS256 RS256", "mixes HMAC (HS256) with public keys (RS256)", 4},
		"http JWKS":          {"jwks http://idp.example.com/b\nalgorithms RS256", "must be https", 4},
		"file JWKS":          {"jwks file:///etc/keys\nalgorithms RS256", "no URL of the form", 4},
		"relative JWKS":      {"jwks /keys\nalgorithms RS256", "no URL of the form", 4},
		"JWKS with password": {"jwks https://u:p@a/b\nalgorithms RS256", "must not hold a user", 4},
		"no issuer":          {ok + "issuer", "an argument is missing", 4},
		"two issuers":        {ok + "issuer a b", `unexpected argument "b"; write: issuer <iss>`, 4},
		"no audience":        {ok + "audience", "an argument is missing", 4},
		"empty audience":     {ok + `audience ""`, "audience is empty", 4},
		"audience twice":     {ok + "audience a b a", `audience names "a" twice`, 4},
		"bad leeway":         {ok + "leeway soon", "is not a length of time", 4},
		"negative leeway":    {ok + "leeway -1s", "leeway -1s is not between", 4},
		"huge leeway":        {ok + "leeway 2h", "leeway 2h0m0s is not between", 4},
		"bad scheme":         {ok + `scheme "a b"`, "no Authorization scheme", 5},
		"bad cookie":         {ok + "cookie a;b", "no name of a cookie", 5},
		"require one":        {ok + "require type", "an argument is missing", 4},
		"require three":      {ok + "require type a b", `unexpected argument "b"`, 4},
		"require empty":      {ok + `require type ""`, "needs a claim and a value", 4},
		"require twice":      {ok + "require a b\nrequire a c", `names the claim "a" twice`, 5},
		"user_claim twice":   {ok + "user_claim a\nuser_claim b", `duplicate option "user_claim"`, 5},
		"org_claim empty":    {ok + "org_claim", "an argument is missing", 4},
		"session_claim two":  {ok + "session_claim a b", `unexpected argument "b"`, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tt.options)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("err = %v, want %q", err, tt.want)
			}
			if at := fmt.Sprintf("Testfile:%d", tt.line); !strings.Contains(err.Error(), at) {
				t.Errorf("err = %v, want %s", err, at)
			}
		})
	}
	if err := new(Verifier).UnmarshalCaddyfile(caddyfile.NewTestDispenser("jwt a b {\n}")); err == nil ||
		!strings.Contains(err.Error(), "Testfile:1") {
		t.Errorf("two names: %v", err)
	}
}

func TestProvisionSecrets(t *testing.T) {
	t.Setenv("QG_TEST_SHORT", "not-very-secret")
	t.Setenv("QG_TEST_GOOD", testSecret)
	t.Setenv("QG_TEST_EMPTY", "")
	tests := map[string]struct {
		options string
		want    []string // in the error; none: it is provisioned
	}{
		"good":         {"secret {env.QG_TEST_GOOD}\nalgorithms HS256", nil},
		"missing":      {"secret {env.QG_TEST_MISSING}\nalgorithms HS256", []string{"QG_TEST_MISSING is not set", "openssl rand -hex 32"}},
		"empty":        {"secret {env.QG_TEST_EMPTY}\nalgorithms HS256", []string{"QG_TEST_EMPTY is not set"}},
		"short":        {"secret {env.QG_TEST_SHORT}\nalgorithms HS256", []string{"QG_TEST_SHORT has 15 bytes", "32 random bytes or more"}},
		"short HS512":  {"secret {env.QG_TEST_GOOD}\nalgorithms HS256 HS512", []string{"QG_TEST_GOOD has 32 bytes", "64 random bytes or more"}},
		"short text":   {"secret abc\nalgorithms HS384", []string{"the value of secret has 3 bytes", "48 random"}},
		"unknown":      {"secret {nope.x}\nalgorithms HS256", []string{"the value of secret is not set"}},
		"file":         {"secret_file " + writeFile(t, testSecret+"\n") + "\nalgorithms HS256", nil},
		"CRLF file":    {"secret_file " + writeFile(t, testSecret+"\r\n") + "\nalgorithms HS256", nil},
		"placeholder":  {"secret {file." + writeFile(t, testSecret+"\n") + "}\nalgorithms HS256", nil},
		"no file":      {"secret_file /nonexistent/x\nalgorithms HS256", []string{"/nonexistent/x", "no such file", "openssl rand"}},
		"short file":   {"secret_file " + writeFile(t, testSecret[1:]+"\n") + "\nalgorithms HS256", []string{"has 31 bytes"}},
		"empty file":   {"secret_file " + writeFile(t, "") + "\nalgorithms HS256", []string{"has 0 bytes"}},
		"empty issuer": {"secret " + testSecret + "\nalgorithms HS256\nissuer {env.QG_TEST_EMPTY}", []string{"issuer: QG_TEST_EMPTY is not set"}},
		"empty claim":  {"secret " + testSecret + "\nalgorithms HS256\nrequire a {env.QG_TEST_EMPTY}", []string{"require a: QG_TEST_EMPTY is not set"}},
		"JWKS":         {"jwks {env.QG_TEST_MISSING}\nalgorithms RS256", []string{"jwks: QG_TEST_MISSING is not set"}},
		"bad JWKS":     {"jwks http://{env.QG_TEST_GOOD}.example.com\nalgorithms RS256", []string{"must be https"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := parse(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			err = v.Provision(caddy.Context{})
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				accept(t, v, signed(nil), "u1")
				if err := v.Cleanup(); err != nil {
					t.Error(err)
				}
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("err = %v, want %q", err, want)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "not-very-secret") || strings.Contains(err.Error(), testSecret[1:])) {
				t.Errorf("the error holds the secret: %v", err)
			}
			if err := v.Cleanup(); err != nil {
				t.Errorf("cleaning up twice: %v", err)
			}
		})
	}
}

func TestProvisionPublicKey(t *testing.T) {
	rsaKey, ecKey := newKey(t, "RS256", "k", 0), gatetest.NewKey(t, "ES256", "k")
	t.Setenv("QG_TEST_PEM", strings.ReplaceAll(ecKey.PEM(), "\n", `\n`))
	private := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	tests := map[string]struct {
		options, want string
		key           *gatetest.Key
	}{
		"RSA":           {"public_key " + writeFile(t, rsaKey.PEM()) + "\nalgorithms RS256 PS512", "", rsaKey},
		"EC":            {"public_key " + writeFile(t, ecKey.PEM()) + "\nalgorithms ES256", "", ecKey},
		"inline":        {"public_key \"" + ecKey.PEM() + "\"\nalgorithms ES256", "", ecKey},
		"one line":      {"public_key {env.QG_TEST_PEM}\nalgorithms ES256", "", ecKey},
		"wrong kind":    {"public_key " + writeFile(t, ecKey.PEM()) + "\nalgorithms RS256", "not of the kind that RS256 needs", nil},
		"one too many":  {"public_key " + writeFile(t, ecKey.PEM()) + "\nalgorithms ES256 ES384", "not of the kind that ES384 needs", nil},
		"two keys":      {"public_key " + writeFile(t, ecKey.PEM()+rsaKey.PEM()) + "\nalgorithms ES256", "more than one PEM block", nil},
		"private":       {"public_key " + writeFile(t, private) + "\nalgorithms ES256", "private key", nil},
		"no PEM":        {"public_key " + writeFile(t, "hello") + "\nalgorithms ES256", "no PEM text", nil},
		"no file":       {"public_key /nonexistent/key.pem\nalgorithms ES256", "no such file", nil},
		"not set":       {"public_key {env.QG_TEST_NO_PEM}\nalgorithms ES256", "QG_TEST_NO_PEM is not set", nil},
		"other block":   {"public_key " + writeFile(t, strings.ReplaceAll(private, "PRIVATE KEY", "DH PARAMETERS")) + "\nalgorithms ES256", "not supported", nil},
		"broken key":    {"public_key " + writeFile(t, strings.ReplaceAll(private, "PRIVATE", "PUBLIC")) + "\nalgorithms ES256", "parsing the public key", nil},
		"broken X.509":  {"public_key " + writeFile(t, strings.ReplaceAll(private, "PRIVATE KEY", "CERTIFICATE")) + "\nalgorithms ES256", "parsing the certificate", nil},
		"broken PKCS#1": {"public_key " + writeFile(t, strings.ReplaceAll(private, "PRIVATE KEY", "RSA PUBLIC KEY")) + "\nalgorithms RS256", "parsing the public key", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, err := parse(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			err = v.Provision(caddy.Context{})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("err = %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// The one key has no name, so the token's kid says nothing.
			accept(t, v, tt.key.Sign(claims(nil)), "u1")
			if err := v.Cleanup(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorsNameTheVerifier(t *testing.T) {
	t.Parallel()
	v := &Verifier{Name: "idp", Algorithms: []string{"HS256"}, Secret: "short"}
	if err := v.Provision(caddy.Context{}); err == nil || !strings.HasPrefix(err.Error(), "verify jwt idp: ") {
		t.Errorf("err = %v", err)
	}
}
