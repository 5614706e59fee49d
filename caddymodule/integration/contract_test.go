package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// grammar is one block of the Caddyfile's contract.
type grammar struct {
	name string
	// around is a config with %s where the block's lines stand. It has every line that the block demands of itself.
	around string
	lines  []line
}

// line is one option of a block, in all the ways in which it may be written. %s in
// one of them stands for lines of a block of its own, described elsewhere.
type line struct {
	written []string
	open    bool // any number of arguments
}

func one(written ...string) line  { return line{written: written} }
func list(written ...string) line { return line{written: written, open: true} }

const (
	inOption    = "{\n\tquota {\n%s\n\t}\n}\n"
	inDirective = ":8080 {\n\tquota {\n%s\n\t}\n}\n"
	inRule      = ":8080 {\n\tquota {\n\t\trule r {\n%s\n\t\t}\n\t}\n}\n"
	inCompanion = "{\n\tquota_companion {\n%s\n\t}\n}\n"
)

// contract is the grammar as clients write it: each option, in each of its ways.
var contract = []grammar{
	{"quota", inOption, []line{
		one("records sqlite ./data/quota.db", "records sqlite", "records postgres {env.QUOTA_DSN}", "records postgres {env.QUOTA_DSN} {\n}"),
		one("counters memory", "counters redis {env.QUOTA_REDIS_URL}", "counters redis redis://localhost", "counters redis rediss://localhost:6380/1",
			"counters redis unix:///run/redis.sock", "counters redis redis+sentinel://a:26379,b:26379/master", "counters redis redis+cluster://a:6379,b:6379",
			"counters redis redis+cluster://a:6379 redis+cluster://b:6379"),
		one("verify jwt {\nsecret {env.JWT_SECRET}\nalgorithms HS256\n}", "verify jwt users {\nsecret {env.JWT_SECRET}\nalgorithms HS256\n}"),
		one("entitlements {\nttl 60s\nstale 10m\nsize 100000\n}"),
		one("default_plan free", "default_plan gold"), one("ip_prefix 32 64"), one("upgrade_url https://app.example.com/pricing"),
		one("on_outage allow", "on_outage deny"), one("host_redis redis://localhost"), one("log_subjects off", "log_subjects on"),
		one("host {\nusers public.users {\nid uid\nemail mail\n}\nsessions sessions {\nid sid\nuser_id uid\n}\n}", "host {\nusers users\n}"),
	}},
	{"records postgres", fmt.Sprintf(inOption, "records postgres {env.QUOTA_DSN} {\n%s\n}"), []line{
		one("migrate auto", "migrate check"), one("password {env.QUOTA_PG_PASSWORD}"),
	}},
	{"records sqlite", fmt.Sprintf(inOption, "records sqlite ./data/quota.db {\n%s\n}"), []line{one("migrate auto", "migrate check")}},
	{"counters redis", fmt.Sprintf(inOption, "counters redis redis://localhost {\n%s\n}"), []line{
		one("timeout 50ms"), one("prefix quotagate"), one("password {env.QUOTA_REDIS_PASSWORD}"),
	}},
	{"entitlements", fmt.Sprintf(inOption, "entitlements {\n%s\n}"), []line{one("ttl 60s"), one("stale 10m"), one("size 100000")}},
	{"host", fmt.Sprintf(inOption, "host {\n%s\n}"), []line{one("users public.users", "users users"), one("sessions public.sessions")}},
	{"host users", fmt.Sprintf(inOption, "host {\nusers public.users {\n%s\n}\n}"), []line{
		one("id user_id"), one("email mail"), one("username login"), one("status state"), one("created_at created"),
	}},
	{"host sessions", fmt.Sprintf(inOption, "host {\nsessions public.sessions {\n%s\n}\n}"), []line{
		one("id sid"), one("user_id uid"), one("created_at created"), one("last_seen_at seen"), one("user_agent agent"), one("ip addr"), one("revoked_at revoked"),
	}},
	{"verify jwt", fmt.Sprintf(inOption, "verify jwt {\nsecret {env.JWT_SECRET}\nalgorithms HS256\n%s\n}"), []line{
		one("issuer https://issuer.example"), list("audience a", "audience a b"), one("leeway 30s"), one("scheme Bearer"), one("cookie session"),
		one("user_claim sub"), one("org_claim org_id"), one("session_claim sid"), one("require type access"),
	}},
	{"verify jwt's keys", fmt.Sprintf(inOption, "verify jwt {\nalgorithms HS256 HS384 HS512\n%s\n}"), []line{
		one("secret {env.JWT_SECRET}", "secret a-secret-that-is-long-enough-for-all-of-the-three-algorithms-that-are-named-above"), one("secret_file testdata/adapt/secret.txt"),
	}},
	{"verify jwt's public keys", fmt.Sprintf(inOption, "verify jwt {\nalgorithms EdDSA\n%s\n}"), []line{
		one("public_key testdata/adapt/ed25519.pem"), one("jwks https://issuer.example/jwks.json", "jwks http://localhost:9/jwks.json"),
	}},
	{"verify jwt's algorithms", fmt.Sprintf(inOption, "verify jwt {\njwks https://issuer.example/jwks.json\n%s\n}"), []line{
		list("algorithms RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"),
	}},
	{"the directive", inDirective, []line{
		one("rule r {\n}", "rule r"), one("anonymous allow", "anonymous deny"), one("forward_identity on", "forward_identity off"),
		one("headers draft", "headers legacy", "headers both", "headers off"), one("errors fastapi", "errors problem", "errors pass"),
	}},
	{"rule", inRule, []line{
		one("match {\nmethod POST\npath /jobs /jobs/*\nnot header X-Internal *\n}", "match {\nexpression path('/x')\n}"),
		one("by user", "by account", "by ip", "by header X-Tenant", "by {http.request.uri.query.tenant}"),
		one("limit api", "limit api 60/1m", "limit 2fa 10/1h", "limit password_reset 0/1d", "limit x 5/10ms"),
		one("spend jobs", "spend jobs 3", "spend storage_bytes request_bytes", "spend compute_seconds response_seconds", "spend tokens {header.X-Tokens}"),
		one("free storage_bytes 10", "free storage_bytes {http.reverse_proxy.header.X-Freed}"),
		one("idempotent"), one("invalid_token deny", "invalid_token anonymous"), list("refund_unless 2xx", "refund_unless 2xx 3xx", "refund_unless never"),
		one("require user", "require feature api_access", "require scope jobs:write"), one("on_outage allow", "on_outage deny"), one("mode enforce", "mode shadow"),
	}},
	{"quota_profile", ":8080 {\n\tquota_profile /v1/auth/me {\n%s\n}\n}\n", []line{one("field subscription"), one("max_size 1MB")}},
	{"quota_companion", inCompanion, []line{
		list("admins a@example.com", "admins a@example.com 42"), one("encryption_key {env.QUOTA_ENCRYPTION_KEY}"),
		one("billing fake", "billing stripe {\napi_key {env.STRIPE_API_KEY}\nwebhook_secret {env.STRIPE_WEBHOOK_SECRET}\n}"),
	}},
	{"billing stripe", fmt.Sprintf(inCompanion, "billing stripe {\napi_key {env.STRIPE_API_KEY}\nwebhook_secret {env.STRIPE_WEBHOOK_SECRET}\n%s\n}"), []line{
		one("price pro {env.STRIPE_PRICE_ID_PRO}"), one("api_base http://localhost:1"),
		one("success_url https://app.example.com/done"), one("cancel_url https://app.example.com/pricing"),
	}},
}

// mark marks the last line of an option as the one that an error must name.
func mark(written string, where int) string {
	lines := strings.Split(written, "\n")
	lines[where] += " # error"
	return strings.Join(lines, "\n")
}

// refused fails unless the config is refused by the file and the line that is marked.
func refused(t *testing.T, config string) {
	t.Helper()
	place := regexp.MustCompile(fmt.Sprintf(`Caddyfile:%d\b`, errorLine(config)))
	if got, err := adapt(config); err == nil {
		t.Errorf("accepted:\n%s\nas %s", config, got)
	} else if !place.MatchString(err.Error()) {
		t.Errorf("the error does not name line %d: %v\n%s", errorLine(config), err, config)
	}
}

// Whatever the contract lists is accepted as it stands there. A word too many, a
// line that stands twice, and an option that nobody knows are errors with file and line.
func TestCaddyfileContract(t *testing.T) {
	t.Parallel()
	for _, g := range contract {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			in := func(lines string) string { return fmt.Sprintf(g.around, lines) }
			refused(t, in("surprise 1 # error"))
			for _, l := range g.lines {
				for _, written := range l.written {
					if _, err := adapt(in(written)); err != nil {
						t.Errorf("refused: %s: %v", written, err)
					}
				}
				first := l.written[0]
				head, block, _ := strings.Cut(first, " {\n")
				if block != "" {
					block = " {\n" + block
				}
				if !l.open && !strings.HasPrefix(first, "match ") && !strings.HasPrefix(first, "verify jwt {") {
					refused(t, in(mark(head+" surplus surplus"+block, 0)))
				}
				refused(t, in(first+"\n"+mark(first, 0)))
			}
		})
	}
}

// Directives stand in their order without an `order` line, at the site's level and
// inside handle and route, with a matcher and without; no argument more.
func TestDirectivesOfTheContract(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"quota_health", "quota_account", "quota_admin", "quota_billing", "quota", "quota_profile"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, around := range []string{":8080 {\n%s\nrespond ok\n}\n", ":8080 {\nhandle {\n%s\n}\n}\n", ":8080 {\nroute {\n%s\n}\n}\n"} {
				for _, matcher := range []string{"", " *", " /x/*", " @m"} {
					config := fmt.Sprintf(around, "@m path /x\n"+name+matcher)
					if _, err := adapt(config); err != nil {
						t.Errorf("refused: %v\n%s", err, config)
					}
				}
				refused(t, fmt.Sprintf(around, name+" /x surplus # error"))
			}
		})
	}
	for _, app := range []string{"quota", "quota_companion"} {
		refused(t, "{\n"+app+" surplus { # error\n}\n}\n")
		refused(t, "{\n"+app+"\n"+app+" # error\n}\n")
	}
}

// What only open records can tell is said with file and line too.
func TestErrorsAtTheStartNameFileAndLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ config, want string }{
		"unknown metrics": {
			site("127.0.0.1:1", "\tquota {\n\t\trule r {\n\t\t\tspend jbos # error\n\t\t\tfree seets 2\n\t\t}\n\t}"),
			`rule "r" spends or frees "jbos", a metric that no plan names`,
		},
		"unknown plan": {
			strings.Replace(site("127.0.0.1:1", ""), "quota {\n", "quota {\n\t\tdefault_plan gold # error\n", 1),
			`default_plan "gold" is the name of no plan`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "Caddyfile")
			if err := os.WriteFile(file, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			path, err := binary()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := command(ctx, path, "run", "--config", file, "--adapter", "caddyfile")
			cmd.Env = append(os.Environ(), "PORT="+portOf(gatetest.FreeAddr(t)), "ADMIN="+gatetest.FreeAddr(t), "DIR="+dir, "JWT_SECRET="+secret,
				"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("it started: %v\n%s", err, out)
			}
			if want := fmt.Sprintf("%s:%d: ", file, errorLine(tt.config)); !bytes.Contains(out, []byte(want)) {
				t.Errorf("the error does not name %s:\n%s", want, out)
			}
			if want := strings.Trim(strconv.Quote(tt.want), `"`); !bytes.Contains(out, []byte(want)) {
				t.Errorf("the error does not say %s:\n%s", tt.want, out)
			}
		})
	}
}
