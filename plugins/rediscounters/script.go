package rediscounters

import (
	"crypto/sha1" // what EVALSHA calls scripts by
	_ "embed"
	"encoding/hex"
)

// script is a Lua script; both of its forms are boxed once, for arguments.
type script struct {
	name           string
	source, digest any
}

func newScript(name, source string) *script {
	sum := sha1.Sum([]byte(source))
	return &script{name: name, source: source, digest: hex.EncodeToString(sum[:])}
}

//go:embed lua/count.lua
var countSource string

//go:embed lua/fill.lua
var fillSource string

//go:embed lua/forget.lua
var forgetSource string

//go:embed lua/reset.lua
var resetSource string

//go:embed lua/drop.lua
var dropSource string

//go:embed lua/keep.lua
var keepSource string

// scripts are all that an engine runs.
type scripts struct{ count, fill, forget, reset, drop, keep *script }

func newScripts() scripts {
	return scripts{
		count: newScript("count", countSource), fill: newScript("fill", fillSource),
		forget: newScript("forget", forgetSource), reset: newScript("reset", resetSource), drop: newScript("drop", dropSource),
		keep: newScript("keep", keepSource),
	}
}
