// Package standard is the list of all modules: importing it links the gateway
// and the companion into a Caddy build. What a build of the gateway alone needs
// is in plugins/gateway.
package standard

import (
	_ "github.com/quotagate/quotagate/plugins/companion"                     // quota_companion, caddy quota admin, audit, billing, plans, usage
	_ "github.com/quotagate/quotagate/plugins/companion/accounts"            // http.handlers.quota_account
	_ "github.com/quotagate/quotagate/plugins/companion/admin"               // http.handlers.quota_admin
	_ "github.com/quotagate/quotagate/plugins/companion/billing/fakebilling" // quota_companion.billing.fake
	_ "github.com/quotagate/quotagate/plugins/companion/purchases"           // http.handlers.quota_billing
	_ "github.com/quotagate/quotagate/plugins/gateway"                       // the data plane
	_ "github.com/quotagate/quotagate/plugins/stripebilling"                 // quota_companion.billing.stripe
)
