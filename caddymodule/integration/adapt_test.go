package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"

	_ "github.com/quotagate/quotagate/caddymodule"
	_ "github.com/quotagate/quotagate/plugins/companion/accounts"
	_ "github.com/quotagate/quotagate/plugins/companion/admin"
	_ "github.com/quotagate/quotagate/plugins/companion/billing/fakebilling"
	_ "github.com/quotagate/quotagate/plugins/companion/purchases"
	_ "github.com/quotagate/quotagate/plugins/jwtverifier"
	_ "github.com/quotagate/quotagate/plugins/memcounters"
	_ "github.com/quotagate/quotagate/plugins/pgrecords"
	_ "github.com/quotagate/quotagate/plugins/rediscounters"
	_ "github.com/quotagate/quotagate/plugins/sqliterecords"
	_ "github.com/quotagate/quotagate/plugins/stripebilling"
)

var update = flag.Bool("update", false, "rewrite the expected part of the adapt fixtures")

// adaptDivider separates the Caddyfile of a fixture from what it adapts to: the
// JSON, or the error's whole text. In a fixture of an error, the line that it
// must name ends with the comment "# error".
const adaptDivider = "----------\n"

func TestAdapt(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no fixtures in testdata/adapt")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			t.Parallel()
			adaptFixture(t, file)
		})
	}
}

func adaptFixture(t *testing.T, file string) {
	t.Helper()
	fixture, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, want, ok := strings.Cut(string(fixture), adaptDivider)
	if !ok && !*update {
		t.Fatalf("%s has no line %q", file, strings.TrimSpace(adaptDivider))
	}
	got, err := adapt(input)
	line := errorLine(input)
	switch {
	case err == nil && line > 0:
		t.Fatalf("adapted, want an error that names line %d", line)
	case err != nil && line == 0:
		t.Fatalf("adapting: %v", err)
	case err != nil:
		got = err.Error() + "\n"
		if place := regexp.MustCompile(fmt.Sprintf(`Caddyfile:%d\b`, line)); !place.MatchString(got) {
			t.Errorf("the error does not name line %d: %s", line, got)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(input+adaptDivider+got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run with -update if this is what you want (-want +got):\n%s", diff)
	}
}

// adapt is the indented JSON of a Caddyfile. A warning is an error, but one
// about the file's format.
func adapt(input string) (string, error) {
	result, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		if !strings.HasPrefix(w.Message, "Caddyfile input is not formatted") {
			return "", fmt.Errorf("adapting with a warning: %s", w)
		}
	}
	var out bytes.Buffer
	if err := json.Indent(&out, result, "", "\t"); err != nil {
		return "", fmt.Errorf("indenting the adapted config: %w", err)
	}
	out.WriteByte('\n')
	return out.String(), nil
}

// errorLine is the line of input, from 1, that the error must name; 0: none.
func errorLine(input string) int {
	for i, line := range strings.Split(input, "\n") {
		if strings.HasSuffix(line, "# error") {
			return i + 1
		}
	}
	return 0
}

// Whatever is adapted is a config that loads: it is provisioned and validated,
// with nothing dialed and no file made. Not parallel: Caddy's state is its own.
func TestAdaptedConfigsLoad(t *testing.T) {
	t.Setenv("JWT_SECRET", strings.Repeat("a secret of a test ", 4))
	t.Setenv("DEFAULT_PLAN", "pro")
	t.Setenv("FRONTEND_URL", "https://app.example.com")
	t.Setenv("HOST_REDIS_URL", "redis://localhost:1")
	t.Setenv("STRIPE_API_KEY", "sk_test_of_a_test")
	t.Setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_a_test")
	t.Setenv("STRIPE_WEBHOOK_SECRET_OLD", "whsec_of_an_old_test")
	t.Setenv("STRIPE_PRICE_ID_PRO", "price_of_a_test")
	t.Setenv("QUOTA_DSN", "postgres://gateway@localhost:1/quota")
	t.Setenv("QUOTA_PG_PASSWORD", "a password of a test")
	t.Setenv("QUOTA_REDIS_URL", "rediss://gate@redis.example.com:6380/1")
	t.Setenv("QUOTA_REDIS_PASSWORD", "p@ss/w:ord?")
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		fixture, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, config, _ := strings.Cut(string(fixture), adaptDivider)
		if !strings.HasPrefix(config, "{") {
			continue // an error
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			if err := load(config); err != nil {
				t.Errorf("validating: %v", err)
			}
		})
	}
	for _, made := range []string{"data", "quota.db", "/var/lib/quotagate"} {
		if _, err := os.Stat(made); err == nil {
			t.Errorf("%s was made by validating a config", made)
		}
	}
}

// The Caddyfile at the root needs one secret, and nothing else.
func TestRootCaddyfileLoads(t *testing.T) {
	t.Setenv("JWT_SECRET", strings.Repeat("a secret of a test ", 4))
	input, err := os.ReadFile("../../Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	config, err := adapt(string(input))
	if err != nil {
		t.Fatal(err)
	}
	if err := load(config); err != nil {
		t.Errorf("validating: %v", err)
	}
}

// load provisions and validates an adapted config, quietly.
func load(config string) error {
	var c caddy.Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	c.Admin = &caddy.AdminConfig{Disabled: true}
	c.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
	return caddy.Validate(&c)
}
