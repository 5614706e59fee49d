package gateway

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // the adapter, and what a site consists of
)

// A build of this list gates, and knows nothing of the companion: its directives
// and its option are refused by name, and no command of it is there.
func TestGatewayKnowsNoCompanion(t *testing.T) {
	t.Parallel()
	adapter := caddyconfig.GetAdapter("caddyfile")
	adapt := func(config string) error {
		_, _, err := adapter.Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
		return err
	}
	if err := adapt(":8080 {\n\tquota\n\tquota_profile\n\tquota_health\n}\n"); err != nil {
		t.Errorf("the gateway's own: %v", err)
	}
	for _, config := range []string{
		":8080 {\n\tquota_admin\n}\n", ":8080 {\n\tquota_account\n}\n", ":8080 {\n\tquota_billing\n}\n", "{\n\tquota_companion {\n\t}\n}\n",
	} {
		name := strings.Fields(strings.Trim(config, "{:08 \n\t"))[0]
		if err := adapt(config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	verifiers := 0
	for _, m := range caddy.Modules() {
		if strings.HasPrefix(m, "quota_companion") {
			t.Errorf("the module %s is linked", m)
		}
		for _, handler := range []string{"admin", "account", "billing"} {
			if m == "http.handlers.quota_"+handler || m == "quota.commands."+handler {
				t.Errorf("the module %s is linked", m)
			}
		}
		if strings.HasPrefix(m, "quota.verifiers.") {
			verifiers++
		}
	}
	if verifiers == 0 {
		t.Error("no verifier is linked: this is no gateway")
	}
}
