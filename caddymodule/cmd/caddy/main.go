// Command caddy is Caddy with Quotagate's modules, as xcaddy would write it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	// The modules of this build.
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/quotagate/quotagate"
)

func main() { caddycmd.Main() }
