package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/google/go-cmp/cmp"
)

// guestDirectives are ordered by the host and registered by guests, which are
// not linked here: the test registers stand-ins, as a plugin would, later.
func guestDirectives() []string {
	return []string{"quota_account", "quota_admin", "quota_billing"}
}

func adaptCaddyfile(input string) ([]byte, error) {
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	return out, err
}

// Not parallel: directives are registered in Caddy's own state.
func TestDirectiveOrder(t *testing.T) {
	for _, name := range guestDirectives() {
		_, err := adaptCaddyfile(":80 {\n\t" + name + "\n}\n")
		if err == nil {
			continue // registered when this test ran before (-count)
		}
		wantError(t, err, "Caddyfile:2: unrecognized directive: "+name)
		httpcaddyfile.RegisterHandlerDirective(name, func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
			h.Next()
			return caddyhttp.VarsMiddleware{"directive": name}, nil
		})
	}
	lines := []string{"respond ok", "handle /x {\n}", "quota_profile", "quota", "quota_billing", "quota_admin", "quota_account", "quota_health", "encode gzip"}
	for _, wrap := range []string{":80 {\n%s\n}\n", ":80 {\nhandle {\n%s\n}\n}\n"} {
		out, err := adaptCaddyfile(fmt.Sprintf(wrap, strings.Join(lines, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		var config any
		if err := json.Unmarshal(out, &config); err != nil {
			t.Fatal(err)
		}
		want := []string{"encode", "quota_health", "quota_account", "quota_admin", "quota_billing", "quota", "quota_profile", "static_response"}
		if diff := cmp.Diff(want, handlers(config)); diff != "" {
			t.Errorf("handlers (-want +got):\n%s", diff)
		}
	}
}

// handlers are the names of a config's handlers in order, but for subroutes.
func handlers(v any) []string {
	var names []string
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			names = append(names, handlers(e)...)
		}
	case map[string]any:
		switch name, _ := v["handler"].(string); name {
		case "", "subroute":
		case "vars":
			names = append(names, fmt.Sprint(v["directive"]))
		default:
			names = append(names, name)
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			names = append(names, handlers(v[key])...)
		}
	}
	return names
}

func TestGuestErrorsKeepTheirLine(t *testing.T) {
	t.Parallel()
	tokens, err := caddyfile.Tokenize([]byte("quota {\n\tverify configstranger\n}"), "Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	err = new(App).UnmarshalCaddyfile(caddyfile.NewDispenser(tokens))
	wantError(t, err, "Caddyfile:2")
}
