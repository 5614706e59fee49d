package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"go.yaml.in/yaml/v3"
)

// tool finds a program that checks operators' files.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		gatetest.Missing(t, name, err)
	}
	return path
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool := tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml", "alerts_billing_test.yml"},
	} {
		cmd := command(t.Context(), promtool, args...)
		cmd.Dir = "../../config/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Every alert has a test that makes it fire and one that keeps it silent.
func TestEveryAlertIsTested(t *testing.T) {
	t.Parallel()
	tests := read(t, "../../config/prometheus/alerts_test.yml") + read(t, "../../config/prometheus/alerts_billing_test.yml")
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read(t, "../../config/prometheus/alerts.yml"), -1) {
		if n := strings.Count(tests, "alertname: "+alert[1]); n < 2 {
			t.Errorf("%s is named by %d tests, want one that fires and one that does not", alert[1], n)
		}
	}
}

// What alerts and the dashboard ask for are metrics that the gateway has.
func TestMetricsOfAlertsAndDashboardExist(t *testing.T) {
	t.Parallel()
	documented := read(t, "../../docs/reference/metrics.md") + read(t, "../../docs/reference/quota-billing.md")
	name := regexp.MustCompile(`quotagate_[a-z_]+`)
	for _, file := range []string{"../../config/prometheus/alerts.yml", "../../config/grafana/quotagate.json"} {
		for _, metric := range name.FindAllString(read(t, file), -1) {
			if !strings.Contains(documented, "`"+strings.TrimSuffix(metric, "_bucket")+"`") {
				t.Errorf("%s names %s, which docs/reference does not", filepath.Base(file), metric)
			}
		}
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var d struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../../config/grafana/quotagate.json")), &d); err != nil {
		t.Fatal(err)
	}
	promtool, ids := tool(t, "promtool"), map[int]bool{}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its id is taken, or it is empty", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			// What Grafana puts in place of its variables.
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(target.Expr)
			quoted, err := yaml.Marshal(expr)
			if err != nil {
				t.Fatal(err)
			}
			rules.WriteString("      - record: panel\n        expr: " + string(quoted))
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	// Duplicates are panels, not rules.
	if out, err := command(t.Context(), promtool, "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, rules.String())
	}
}

func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	units, err := filepath.Glob("../../config/systemd/*.service")
	if err != nil || len(units) < 2 {
		t.Fatalf("%d units: %v", len(units), err)
	}
	for _, unit := range units {
		// The program is not installed where the tests run: one that is there stands for it.
		text := strings.ReplaceAll(read(t, unit), "/usr/local/bin/quotagate", "/bin/true")
		file := filepath.Join(t.TempDir(), filepath.Base(unit))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := command(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte(filepath.Base(unit))) {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// composed is what the containers' file says of one.
type composed struct {
	Image       string
	Command     any
	Environment map[string]string
	Volumes     []string
	Build       struct{ Context, Dockerfile string }
}

// The containers run what the project has, with what the gateways expect of their servers.
func TestCompose(t *testing.T) {
	t.Parallel()
	var c struct {
		Services map[string]composed
		Volumes  map[string]any
	}
	dir := "../../examples/production"
	if err := yaml.Unmarshal([]byte(read(t, dir+"/compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		if s.Image == "" {
			t.Errorf("%s has no image", name)
		}
		if s.Build.Context != "" {
			read(t, filepath.Join(dir, s.Build.Context, s.Build.Dockerfile))
			starts(t, name, s)
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, named := c.Volumes[source]; named {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, source)); err != nil {
				t.Errorf("%s mounts %v", name, err)
			}
		}
	}
	redis, err := yaml.Marshal(c.Services["redis"].Command)
	if err != nil || !strings.Contains(string(redis), "noeviction") {
		t.Errorf("redis may evict counters: %s %v", redis, err)
	}
	for _, word := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(read(t, dir+"/Dockerfile"), -1) {
		for _, file := range strings.Fields(word[1]) {
			if found, err := filepath.Glob(filepath.Join("../..", file)); err != nil || len(found) == 0 {
				t.Errorf("the Dockerfile copies %s, which is not there: %v", file, err)
			}
		}
	}
}

// starts checks a container of ours: its config is valid in its environment, names all
// of that, and has the companion in it if that is what the container is for.
func starts(t *testing.T, name string, s composed) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	args, err := yaml.Marshal(s.Command)
	if err != nil {
		t.Fatal(err)
	}
	file := "../../config/" + regexp.MustCompile(`[a-z]+\.Caddyfile`).FindString(string(args))
	config := read(t, file)
	given := regexp.MustCompile(`\$\{(\w+)(:-([^}]*)|:\?[^}]*)?\}`)
	env := append(os.Environ(), "HOME="+t.TempDir())
	for key, value := range s.Environment {
		value = given.ReplaceAllStringFunc(value, func(v string) string {
			if m := given.FindStringSubmatch(v); strings.HasPrefix(m[2], ":-") {
				return m[3]
			}
			return secret
		})
		env = append(env, key+"="+value)
		if !strings.HasPrefix(key, "GO") && !regexp.MustCompile(`\b`+key+`\b`).MatchString(config) {
			t.Errorf("%s is told %s, which %s does not name", name, key, file)
		}
	}
	cmd := command(t.Context(), path, "validate", "--config", file, "--adapter", "caddyfile")
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
	if sells := strings.Contains(config, "quota_companion"); sells != (name == "companion") {
		t.Errorf("%s has the companion in it: %v", name, sells)
	}
}

// The gateway that stands alone has the rules of the Caddyfile at the root.
func TestGatewayCaddyfileHasTheRootsRules(t *testing.T) {
	t.Parallel()
	rules := func(file string) string {
		t.Helper()
		text := read(t, file)
		begin := strings.Index(text, "\t\t# What is called to get a token")
		end := strings.Index(text, "\t# The subscription beside the user")
		if begin < 0 || end < begin {
			t.Fatalf("%s: its rules are not where they are looked for", file)
		}
		return text[begin:end]
	}
	if diff := cmp.Diff(rules("../../Caddyfile"), rules("../../config/gateway.Caddyfile")); diff != "" {
		t.Error(diff)
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Both Caddyfiles that sell need no more for Stripe than what they name.
func TestStripeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	const key, signing = "STRIPE_API_KEY=sk_test_x", "STRIPE_WEBHOOK_SECRET=whsec_1234567890"
	for _, file := range []string{"../../Caddyfile", "../../config/companion.Caddyfile"} {
		for without, env := range map[string][]string{"": {key, signing}, "STRIPE_API_KEY": {signing}, "STRIPE_WEBHOOK_SECRET": {key}} {
			cmd := command(t.Context(), path, "validate", "--config", file, "--adapter", "caddyfile")
			cmd.Env = append(os.Environ(), append(env, "HOME="+t.TempDir(), "JWT_SECRET="+secret, "QUOTA_BILLING=stripe",
				"QUOTA_ENCRYPTION_KEY="+strings.Repeat("k", 32), "QUOTA_DSN=postgres://u@localhost/d", "QUOTA_REDIS_URL=redis://localhost")...)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (without == "") || err != nil && !strings.Contains(string(out), without) {
				t.Errorf("%s without %q: %v: %s", file, without, err, out)
			}
		}
	}
}
