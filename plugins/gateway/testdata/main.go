// Command main is a data plane: Caddy with the modules of a gateway.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	// The modules of this build.
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/quotagate/quotagate/plugins/gateway"
)

func main() { caddycmd.Main() }
