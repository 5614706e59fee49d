package memcounters

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule"
	"go.uber.org/zap"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ text, log, err string }{
		"bare":        {text: "memory"},
		"empty block": {text: "memory {\n}"},
		"log":         {text: "memory {\n log /var/lib/q\n}", log: "/var/lib/q"},
		"argument":    {text: "memory fast", err: `unexpected argument "fast"`},
		"unknown":     {text: "memory {\n shards 4\n}", err: `unknown option "shards"`},
		"duplicate":   {text: "memory {\n log a\n log b\n}", err: `duplicate option "log"`},
		"no folder":   {text: "memory {\n log\n}", err: "an argument is missing"},
		"two folders": {text: "memory {\n log a b\n}", err: `unexpected argument "b"`},
		"empty":       {text: "memory {\n log \"\"\n}", err: "the argument is empty"},
		"block":       {text: "memory {\n log a {\n }\n}", err: "unexpected block in counters memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := new(Module)
			err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(test.text))
			if test.err != "" {
				wantMessage(t, err, test.err, "Testfile:")
				return
			}
			if err != nil || m.Log != test.log {
				t.Fatalf("log %q, %v; want %q", m.Log, err, test.log)
			}
		})
	}
}

func TestModuleOpens(t *testing.T) {
	t.Setenv("QUOTAGATE_TEST_STATE", t.TempDir())
	state := t.TempDir()
	for text, want := range map[string]string{
		"": "counters", "{env.QUOTAGATE_TEST_STATE}/log": "log", "relative": "relative",
	} {
		m := &Module{Log: text}
		if err := m.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		if key := m.Key(state); filepath.Base(key) != want || !filepath.IsAbs(strings.TrimPrefix(key, "memory|")) {
			t.Errorf("log %q has the key %q", text, key)
		}
		if text == "relative" {
			continue
		}
		c, err := m.Open(t.Context(), caddymodule.Env{Log: zap.NewNop(), StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if found, err := filepath.Glob(filepath.Join(state, "counters", "*.log")); err != nil || len(found) != shards {
		t.Errorf("%d log files in the state folder, want %d (%v)", len(found), shards, err)
	}
	missing := &Module{Log: "{env.QUOTAGATE_TEST_ABSENT}"}
	if err := missing.Provision(caddy.Context{}); err == nil || !strings.Contains(err.Error(), "QUOTAGATE_TEST_ABSENT") {
		t.Errorf("a missing placeholder: %v", err)
	}
	bad := &Module{Log: "a\x00b"}
	if err := bad.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if bad.Validate() == nil {
		t.Error("a zero byte was accepted")
	}
}
