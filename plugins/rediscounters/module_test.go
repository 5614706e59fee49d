package rediscounters

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

func FuzzPacker(f *testing.F) {
	f.Add(int64(0), "")
	f.Add(int64(quota.MaxAmount), strings.Repeat("x", 40))
	f.Add(int64(-1), strings.Repeat("x", 70000))
	f.Fuzz(func(t *testing.T, n int64, s string) {
		var p packer
		p.int(n)
		p.string(s)
		p.bytes([]byte(s))
		u := unpacker(p)
		got, err := u.int()
		if err != nil || got != n {
			t.Fatalf("%d is read as %d, %v", n, got, err)
		}
		for range 2 {
			if text, err := u.string(); err != nil || text != s {
				t.Fatalf("%q is read as %q, %v", s, text, err)
			}
		}
		other := unpacker{[]byte(s)}
		for {
			if _, err := other.int(); err != nil {
				break
			}
		}
		if r, err := openReply([]byte(s)); err == nil {
			_, _ = r.int() // must not panic
		}
	})
}

func provision(t *testing.T, m *Module) error {
	t.Helper()
	if err := m.Provision(caddy.Context{}); err != nil {
		return err
	}
	return m.Validate()
}

func TestModuleKeepsSecrets(t *testing.T) {
	t.Setenv("QUOTAGATE_TEST_PASSWORD", "hunter2")
	t.Setenv("QUOTAGATE_TEST_URLS", "redis+cluster://a redis+cluster://b")
	m := &Module{URLs: []string{"{env.QUOTAGATE_TEST_URLS}"}, Password: "{env.QUOTAGATE_TEST_PASSWORD}"}
	if err := provision(t, m); err != nil {
		t.Fatal(err)
	}
	if m.options.Address.Password != "hunter2" || len(m.options.Address.Hosts) != 2 {
		t.Errorf("%+v", m.options.Address)
	}
	key := m.Key("")
	if strings.Contains(key, "hunter2") || !strings.Contains(key, "a:6379,b:6379") {
		t.Errorf("key %q", key)
	}
	t.Setenv("QUOTAGATE_TEST_PASSWORD", "hunter3")
	other := &Module{URLs: m.URLs, Password: m.Password}
	if err := provision(t, other); err != nil || other.Key("") == key {
		t.Errorf("another password has the same key: %v", err)
	}
	for name, bad := range map[string]*Module{
		"no URL": {}, "missing": {URLs: []string{"redis://{env.QUOTAGATE_TEST_MISSING}"}},
		"twice":  {URLs: []string{"redis://:x@h"}, Password: "y"},
		"prefix": {URLs: []string{"redis://h"}, Prefix: "a{b}"},
		"time":   {URLs: []string{"redis://h"}, Timeout: caddy.Duration(time.Minute)},
	} {
		if err := provision(t, bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// Open does not dial.
	idle := &Module{URLs: []string{"redis://127.0.0.1:1"}}
	if err := provision(t, idle); err != nil {
		t.Fatal(err)
	}
	counters, err := idle.Open(t.Context(), caddymodule.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var d quota.Decision
	err = counters.Reserve(t.Context(), []quota.Charge{rateCharge("user:1", "api", 1, time.Minute)}, &d)
	if kindOf(err) != gate.FaultUnreachable || !certainlyNot(err) {
		t.Errorf("a server that is not there: %v", err)
	}
	if err := counters.Close(); err != nil {
		t.Error(err)
	}
}

// TestWaysIn: a socket, a password and TLS.
func TestWaysIn(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	s, secure := encrypted(t, "--unixsocket", socket)
	s.Do(t, "CONFIG", "SET", "requirepass", "hunter2")
	stranger, _, _ := strings.Cut(secure, "?")
	for url, kind := range map[string]gate.FaultKind{
		"unix://" + socket: "",
		secure:             "",
		"redis://default:hunter2@" + s.Addr() + "/5": "",
		"redis://:hunter3@" + s.Addr():               gate.FaultDenied,
		stranger:                                     gate.FaultBroken,
	} {
		o := options(t, url)
		if o.Address.Password == "" {
			o.Address.Password = "hunter2"
		}
		e := openTest(t, o)
		var d quota.Decision
		var err error
		gatetest.Await(t, restartLimit, func() error { // to connect has a second, and the machine may be busy
			if err = e.Reserve(t.Context(), []quota.Charge{rateCharge("user:1", "api", 1, time.Minute)}, &d); kindOf(err) == gate.FaultTimeout {
				return err
			}
			return nil
		})
		if kindOf(err) != kind || (err == nil) != (kind == "") {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("the error holds a password: %v", err)
		}
	}
}

// encrypted is a server with a port for TLS, and the URL of that.
func encrypted(t *testing.T, args ...string) (s *gatetest.RedisServer, url string) {
	t.Helper()
	dir := t.TempDir()
	ca, addr := selfSigned(t, dir), gatetest.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	s = gatetest.Redis(t, append(args, "--tls-port", port, "--tls-cert-file", ca, "--tls-key-file", filepath.Join(dir, "key.pem"),
		"--tls-ca-cert-file", ca, "--tls-auth-clients", "no")...)
	return s, "rediss://" + addr + "?ca=" + ca
}

// selfSigned writes cert.pem and key.pem and answers the former.
func selfSigned(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cert.pem")
	for name, block := range map[string]*pem.Block{
		path: {Type: "CERTIFICATE", Bytes: cert}, filepath.Join(dir, "key.pem"): {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
