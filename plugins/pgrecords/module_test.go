package pgrecords

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://gw@db/q"
	for _, tt := range []struct {
		name, text string
		want       *Module
		err        string
	}{
		{"dsn", "postgres " + dsn, &Module{DSN: dsn}, ""},
		{"words", `postgres "host=db dbname=q"`, &Module{DSN: "host=db dbname=q"}, ""},
		{"placeholder", "postgres {env.QUOTA_DSN}", &Module{DSN: "{env.QUOTA_DSN}"}, ""},
		{"all", "postgres " + dsn + " {\n password {env.P}\n migrate auto\n connections 20\n connect_timeout 500ms\n poll_interval 2s\n listen off\n}", &Module{
			DSN: dsn, Password: "{env.P}", MigrateMode: "auto", Connections: 20, ConnectTimeout: caddy.Duration(500 * time.Millisecond),
			PollInterval: caddy.Duration(2 * time.Second), Listen: "off",
		}, ""},
		{"listen elsewhere", "postgres " + dsn + " {\n listen {env.DIRECT}\n}", &Module{DSN: dsn, Listen: "{env.DIRECT}"}, ""},
		{"no dsn", "postgres", nil, "address of the database is missing"},
		{"no address", "postgres db.example.com", nil, "is not like"},
		{"empty", `postgres ""`, nil, "is empty"},
		{"two", "postgres " + dsn + " secret", nil, "unexpected argument"},
		{"unknown option", "postgres " + dsn + " {\n pool 3\n}", nil, `unknown option "pool"`},
		{"no argument", "postgres " + dsn + " {\n migrate\n}", nil, "an argument is missing"},
		{"surplus", "postgres " + dsn + " {\n password a b\n}", nil, "unexpected argument"},
		{"twice", "postgres " + dsn + " {\n migrate auto\n migrate check\n}", nil, "duplicate option"},
		{"migrate", "postgres " + dsn + " {\n migrate never\n}", nil, `"never" is neither`},
		{"connections", "postgres " + dsn + " {\n connections 2\n}", nil, "outside 3..1000"},
		{"connections text", "postgres " + dsn + " {\n connections many\n}", nil, "not a whole number"},
		{"timeout", "postgres " + dsn + " {\n connect_timeout soon\n}", nil, "not a length of time"},
		{"poll", "postgres " + dsn + " {\n poll_interval 0s\n}", nil, "not above 0"},
		{"password", "postgres " + dsn + " {\n password \"\"\n}", nil, "is empty"},
		{"listen", "postgres " + dsn + " {\n listen on\n}", nil, "is not like"},
		{"nothing", "", nil, "is missing"},
	} {
		m := new(Module)
		err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.err == "":
			if diff := cmp.Diff(tt.want, m, cmpopts.IgnoreUnexported(Module{})); diff != "" {
				t.Errorf("%s:\n%s", tt.name, diff)
			}
		case err == nil || !strings.Contains(err.Error(), tt.err):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		case tt.text != "" && !strings.Contains(err.Error(), "Testfile:"):
			t.Errorf("%s: %v names no file and line", tt.name, err)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %v shows what may be a secret", tt.name, err)
		}
	}
}

func FuzzUnmarshalCaddyfile(f *testing.F) {
	for _, s := range []string{"postgres {env.D}", "postgres postgres://a/b {\n migrate auto\n connections 3\n}", "postgres a=b {\n{\n}\n}", "postgres \"\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		m := new(Module)
		if err := m.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			return
		}
		setDefault(&m.MigrateMode, MigrateCheck)
		setDefault(&m.Connections, DefaultConnections)
		setDefault(&m.ConnectTimeout, DefaultConnectTimeout)
		setDefault(&m.PollInterval, DefaultPollInterval)
		if err := m.Validate(); err != nil {
			t.Errorf("%q was accepted and is not valid: %v", text, err)
		}
	})
}

func provision(t *testing.T, m *Module) *Module {
	t.Helper()
	if err := m.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProvision(t *testing.T) {
	t.Setenv("QUOTA_TEST_DSN", "postgres://gw:hidden1@db.example.com:6432/quota?sslmode=disable")
	t.Setenv("QUOTA_TEST_PASSWORD", "hidden2")
	m := provision(t, &Module{DSN: "{env.QUOTA_TEST_DSN}", Password: "{env.QUOTA_TEST_PASSWORD}"})
	if m.config.Host != "db.example.com" || m.config.Port != 6432 || m.config.Password != "hidden2" || m.config.RuntimeParams["application_name"] != "quotagate" {
		t.Errorf("host %s, port %d, password %s, parameters %v", m.config.Host, m.config.Port, m.config.Password, m.config.RuntimeParams)
	}
	if m.listener == nil || m.listener.Host != m.config.Host {
		t.Errorf("listener %+v", m.listener)
	}
	if strings.Contains(m.Key(), "hidden") || !strings.Contains(m.Key(), "gw@db.example.com:6432/quota") {
		t.Errorf("key %s", m.Key())
	}
	same := provision(t, &Module{DSN: "{env.QUOTA_TEST_DSN}", Password: "hidden2"})
	if same.Key() != m.Key() {
		t.Errorf("keys %s and %s of the same records", m.Key(), same.Key())
	}
	for name, other := range map[string]*Module{
		"password": {Password: "hidden3"}, "connections": {Password: "hidden2", Connections: 5}, "listen": {Password: "hidden2", Listen: "off"},
		"migrate": {Password: "hidden2", MigrateMode: "auto"}, "poll": {Password: "hidden2", PollInterval: 1}, "timeout": {Password: "hidden2", ConnectTimeout: 1},
		"listen elsewhere": {Password: "hidden2", Listen: "postgres://gw@direct/quota"},
	} {
		other.DSN = "{env.QUOTA_TEST_DSN}"
		if provision(t, other).Key() == m.Key() {
			t.Errorf("another %s has the same key", name)
		}
	}
	if provision(t, &Module{DSN: "{env.QUOTA_TEST_DSN}", Listen: "off"}).listener != nil {
		t.Error("listen off listens")
	}
}

func TestProvisionRefuses(t *testing.T) {
	t.Setenv("QUOTA_TEST_EMPTY", "")
	for _, bad := range []*Module{
		{}, {DSN: "{env.QUOTA_TEST_UNSET_DSN}"}, {DSN: "{env.QUOTA_TEST_EMPTY}"}, {DSN: "postgres://gw:hidden@db:port/q"},
		{DSN: "postgres://gw:hidden@db/q?sslmode=sometimes"}, {DSN: "host=db password=hidden sslmode=sometimes"}, {DSN: "gw:hidden@db"},
		{DSN: "postgres://gw@db/q", Listen: "gw:hidden@db"}, {DSN: "postgres://gw:hid%zzden@db/q"},
	} {
		err := bad.Provision(caddy.Context{})
		if err == nil {
			t.Errorf("%+v was accepted", bad)
		} else if strings.Contains(err.Error(), "hid") {
			t.Errorf("%v shows a password", err)
		}
	}
	// One file serves servers with a password and without.
	if m := (&Module{DSN: "postgres://gw:kept@db/q", Password: "{env.QUOTA_TEST_EMPTY}"}); m.Provision(caddy.Context{}) != nil || m.config.Password != "kept" {
		t.Error("an empty password is not none")
	}
	for _, bad := range []*Module{
		{MigrateMode: "never", Connections: 10, ConnectTimeout: 1, PollInterval: 1}, {MigrateMode: "auto", Connections: 2, ConnectTimeout: 1, PollInterval: 1},
		{MigrateMode: "auto", Connections: 10, ConnectTimeout: -1, PollInterval: 1}, {MigrateMode: "auto", Connections: 10, ConnectTimeout: 1, PollInterval: -1},
	} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
	err := (&Module{DSN: "postgres://gw:hidden@db/q?sslmode=sometimes"}).Provision(caddy.Context{})
	if !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("%v does not say what is wrong", err)
	}
}
