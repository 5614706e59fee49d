package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func init() {
	caddy.RegisterModule(configRecords{})
	caddy.RegisterModule(configCounters{})
	caddy.RegisterModule(configVerifier{})
	caddy.RegisterModule(configStranger{})
}

// Guests that are loaded with a config and never opened.
type (
	configRecords  struct{ guestArgs }
	configCounters struct{ guestArgs }
	configVerifier struct{ guestArgs }
	configStranger struct{}
)

// guestArgs keeps what stands behind the guest's name.
type guestArgs struct {
	Args []string `json:"args,omitempty"`
}

func (g *guestArgs) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	g.Args = d.RemainingArgs()
	return nil
}

var errNeverOpened = errors.New("a guest of a config test was opened")

func (configRecords) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.records.configtest", New: func() caddy.Module { return new(configRecords) }}
}
func (configRecords) Key() string                                { return "configtest" }
func (configRecords) Open(context.Context, Env) (Records, error) { return nil, errNeverOpened }

func (configCounters) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.counters.configtest", New: func() caddy.Module { return new(configCounters) }}
}
func (configCounters) Key(string) string                           { return "configtest" }
func (configCounters) Open(context.Context, Env) (Counters, error) { return nil, errNeverOpened }

func (configVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.verifiers.configtest", New: func() caddy.Module { return new(configVerifier) }}
}

func (configVerifier) Verify(context.Context, *http.Request) (*quota.Principal, error) {
	return &quota.Principal{}, nil
}

// configStranger is in the namespace of verifiers and is none.
func (configStranger) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.verifiers.configstranger", New: func() caddy.Module { return new(configStranger) }}
}

// guests is the part of an app's JSON that selects the guests above.
const guests = `"records":{"engine":"configtest"},"counters":{"engine":"configtest"}`

// provisioned is an app after Provision and Validate, from the members of its JSON object.
func provisioned(t *testing.T, members string) (*App, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	a := new(App)
	if err := caddy.StrictUnmarshalJSON([]byte("{"+members+"}"), a); err != nil {
		return nil, err
	}
	err := a.Provision(ctx)
	if err == nil {
		err = a.Validate()
	}
	if err != nil {
		return nil, errors.Join(err, a.Cleanup())
	}
	t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return a, nil
}

// validateHandler provisions and validates a whole config with one `quota` handler.
func validateHandler(t *testing.T, app, handler string) error {
	t.Helper()
	config := `{"admin":{"disabled":true},"logging":{"logs":{"default":{"level":"ERROR"}}},"apps":{"quota":{` + app + `},"http":{"servers":{"s":{
		"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},
		"routes":[{"handle":[{"handler":"quota"` + handler + `}]}]}}}}}`
	var c caddy.Config
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		t.Fatalf("decoding the config: %v", err)
	}
	return caddy.Validate(&c)
}

// wantError fails the test unless err holds the text; an empty one wants no error.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("got the error %v, want none", err)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		t.Errorf("got the error %v, want one with %q", err, text)
	}
}
