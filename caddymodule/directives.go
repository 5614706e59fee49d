package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// directiveOrder names all directives of this project in the order in which
// they handle a request. The host orders all of them, whether their modules are
// linked or not: nobody ever writes an `order` line, and a module that registers
// its directive does not order it (Caddy refuses a directive that is ordered twice).
func directiveOrder() []string {
	return []string{"quota_health", "quota_account", "quota_admin", "quota_billing", "quota", "quota_profile"}
}

func init() {
	httpcaddyfile.RegisterGlobalOption("quota", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("quota", parseHandler)

	// Before invoke, so that a named route that is invoked at the site's level is
	// protected like one that is written there; behind encode and intercept, so
	// that what is seen and charged is the backend's own answer. Each name is
	// inserted right before invoke, so behind the one before it.
	for _, name := range directiveOrder() {
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "invoke")
	}
}
