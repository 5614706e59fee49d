// Package standard is the list of all modules: importing it links the gateway
// and the companion into a Caddy build. What a build of the gateway alone needs
// is in plugins/gateway.
package standard

import (
	_ "github.com/quotagate/quotagate/plugins/companion"          // caddy quota admin, plans, usage
	_ "github.com/quotagate/quotagate/plugins/companion/accounts" // http.handlers.quota_account
	_ "github.com/quotagate/quotagate/plugins/gateway"            // the data plane
)
