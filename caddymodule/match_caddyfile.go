package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// compiledMatchers are the matchers whose arguments Caddy compiles when a config starts,
// without any I/O: what is wrong with them is said with the line instead.
func compiledMatchers() []string {
	return []string{"client_ip", "expression", "header_regexp", "path_regexp", "remote_ip", "vars_regexp"}
}

// parseMatch reads the block as Caddy reads that of a named matcher. The names
// are looked at first: Caddy reports an unknown one at the end of the block.
func (r *Rule) parseMatch(d *caddyfile.Dispenser) error {
	block := caddyfile.NewDispenser(d.NextSegment())
	block.Next()
	places := make(map[string]caddyfile.Dispenser)
	for nesting := block.Nesting(); block.NextArg() || block.NextBlock(nesting); {
		name := block.Val()
		if block.Token().Quoted() {
			places["expression"] = *block
			continue
		}
		if strings.HasPrefix(name, "@") {
			return block.Errf("match: the named matcher %s cannot be used in a rule; write its matchers into the block", name)
		}
		if _, err := caddy.GetModule("http.matchers." + name); err != nil {
			return block.Errf("match: unknown matcher %q: %s", name, linked("http.matchers"))
		}
		places[name] = *block
		block.NextSegment()
	}
	if len(places) == 0 {
		return block.Err("match: the block is empty; leave the option out to match every request")
	}
	block.Reset()
	block.Next()
	set, err := caddyhttp.ParseCaddyfileNestedMatcherSet(block)
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	for _, name := range sortedNames(set) {
		if err := tryMatcher(name, set[name]); err != nil {
			place := places[name]
			return place.Errf("match: %w", err)
		}
	}
	r.MatcherSetsRaw = caddyhttp.RawMatcherSets{set}
	return nil
}

// tryMatcher compiles a matcher as it will be when the config starts, where that
// depends on nothing else.
func tryMatcher(name string, raw json.RawMessage) error {
	elsewhere := bytes.Contains(raw, []byte("{env.")) || bytes.Contains(raw, []byte("{file."))
	if elsewhere || !slices.Contains(compiledMatchers(), name) {
		return nil
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	_, err := ctx.LoadModuleByID("http.matchers."+name, raw)
	return err
}
