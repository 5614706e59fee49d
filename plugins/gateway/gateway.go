// Package gateway is the list of the data plane's modules: the host and the
// guests that a gateway needs. A build from it links no code of the
// companion (administration, billing, accounts).
package gateway

import (
	_ "github.com/quotagate/quotagate/caddymodule"           // quota, http.handlers.quota*, admin.api.quota, caddy quota
	_ "github.com/quotagate/quotagate/plugins/jwtverifier"   // quota.verifiers.jwt
	_ "github.com/quotagate/quotagate/plugins/memcounters"   // quota.counters.memory
	_ "github.com/quotagate/quotagate/plugins/pgrecords"     // quota.records.postgres
	_ "github.com/quotagate/quotagate/plugins/rediscounters" // quota.counters.redis
	_ "github.com/quotagate/quotagate/plugins/sqliterecords" // quota.records.sqlite
)
