package integration

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// commandsOf are the commands that a page shows, those to be copied into a shell.
func commandsOf(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		all.WriteString(block[1])
	}
	return all.String()
}

// Every command of the guide for administrators does what it says, as it stands there.
func TestGuideForAdministrators(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			gatetest.Missing(t, tool, err)
		}
	}
	g, _ := startRoot(t, gatetest.NewBackend(nil).Serve(t).URL, "QUOTA_ENCRYPTION_KEY="+strings.Repeat("k", 32))
	g.command("admin", "grant", "1")
	for _, id := range []string{"42", "43", "44"} {
		u := token(map[string]any{"sub": id, "type": "access", "email": "ann" + id + "@example.com"})
		g.do("POST", "/jobs", u).want(t, 200)
	}
	commands := commandsOf(t, "../../docs/administration.md")
	if n := strings.Count(commands, "curl "); n < 25 {
		t.Fatalf("%d commands", n)
	}
	// What is refused ends the script; the answers are in its output.
	commands = strings.ReplaceAll(commands, "http://localhost:8080", "http://"+g.addr)
	script := "set -eu\ncurl() { command curl --fail-with-body \"$@\"; }\n" + commands
	cmd := command(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "ADMIN="+access("1"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for what, query := range map[string]string{
		"suspended":   "SELECT COUNT(*) = 2 FROM user_controls WHERE state = 'suspended' AND user_id IN ('43', '44')",
		"let in":      "SELECT state = 'active' AND tokens_valid_after IS NOT NULL FROM user_controls WHERE user_id = '42'",
		"plan":        "SELECT COUNT(*) = 1 FROM subscriptions s JOIN subscription_plans p ON p.id = s.plan_id WHERE s.account_id = '42' AND p.name = 'pro'",
		"overrides":   "SELECT (SELECT COUNT(*) FROM quota_overrides) = 1 AND (SELECT COUNT(*) FROM rate_limit_overrides) = 1",
		"adjusted":    "SELECT COUNT(*) = 1 FROM audit_events WHERE action = 'usage.adjusted'",
		"level":       "SELECT value = 1048576 FROM usage_levels WHERE account_id = '42'",
		"edited plan": "SELECT description = 'For teams' AND version = 2 FROM subscription_plans WHERE name = 'pro'",
		"e-mail":      "SELECT email = 'ann42@example.com' FROM accounts WHERE id = '42'",
		"cleared":     "SELECT COUNT(*) = 2 FROM audit_events WHERE action = 'user.rate_limits_cleared'",
	} {
		var ok bool
		if err := g.db().QueryRowContext(t.Context(), query).Scan(&ok); err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	for _, file := range []string{"usage.csv", "audit.csv"} {
		if b, err := os.ReadFile(fmt.Sprintf("%s/%s", cmd.Dir, file)); err != nil || !strings.Contains(string(b), "\r\n") {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
}
