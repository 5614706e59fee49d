// Package quotagate links every module of Quotagate into a Caddy build:
//
//	xcaddy build --with github.com/quotagate/quotagate
//
// It holds no code of its own. A build of the data plane alone imports
// plugins/gateway instead.
package quotagate

import _ "github.com/quotagate/quotagate/plugins/standard" // every module
