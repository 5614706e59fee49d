package rediscounters

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/block"
	"github.com/quotagate/quotagate/plugins/rediscounters/address"
)

func init() { caddy.RegisterModule(Module{}) }

// Module is the counters guest that counts in Redis, exact over all gateways
// that name the same servers and prefix.
type Module struct {
	// URLs say where Redis is: one of redis://[user[:password]@]host[:port][/db],
	// rediss:// (TLS), unix:///path, redis+sentinel://host:port,host:port/master,
	// redis+cluster://host:port,host:port. More than one is for Sentinels and
	// Clusters. Placeholders such as {env.REDIS_URL} are resolved when the config
	// is loaded; one may stand for several URLs.
	URLs []string `json:"urls,omitempty"`
	// Timeout is how long one call may take; then the outage policy applies.
	// 1ms..10s, default 50ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// Prefix begins all keys: 1 to 64 of letters, digits and _ . : -. Default: quotagate.
	Prefix string `json:"prefix,omitempty"`
	// Password is used where the URL has none. Write a placeholder such as
	// {env.QUOTA_REDIS_PASSWORD}: what stands here is shown by the admin API.
	Password string `json:"password,omitempty"`

	options Options
}

// The bounds of the options.
const (
	minTimeout = time.Millisecond
	maxTimeout = 10 * time.Second
)

// validPrefix has no braces: they would make a hash tag of their own.
var validPrefix = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

// CaddyModule returns the module's information.
func (Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.counters.redis", New: func() caddy.Module { return new(Module) }}
}

// Provision resolves the placeholders. Nothing is dialled.
func (m *Module) Provision(caddy.Context) error {
	if m.Timeout == 0 {
		m.Timeout = caddy.Duration(DefaultTimeout)
	}
	if m.Prefix == "" {
		m.Prefix = DefaultPrefix
	}
	repl := caddy.NewReplacer()
	var urls []string
	for _, text := range m.URLs {
		resolved, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return fmt.Errorf("resolving the URL of redis: %w", err)
		}
		urls = append(urls, strings.Fields(resolved)...)
	}
	// An empty one is none: a server that wants one says so.
	password, err := repl.ReplaceOrErr(m.Password, false, true)
	if err != nil {
		return fmt.Errorf("resolving password: %w", err)
	}
	prefix, err := repl.ReplaceOrErr(m.Prefix, true, true)
	if err != nil {
		return fmt.Errorf("resolving prefix: %w", err)
	}
	at, err := address.Parse(urls...)
	if err != nil {
		return fmt.Errorf("the URL of redis: %w", err)
	}
	if password != "" {
		if at.Password != "" {
			return errors.New("a password stands in the URL of redis and in the option password: keep one of them")
		}
		at.Password = password
	}
	m.options = Options{Address: at, Prefix: prefix, Timeout: time.Duration(m.Timeout)}
	return nil
}

// Validate refuses what cannot work. It does no I/O.
func (m *Module) Validate() error {
	var errs []error
	if err := checkTimeout(time.Duration(m.Timeout)); err != nil {
		errs = append(errs, fmt.Errorf("timeout: %w", err))
	}
	if err := checkPrefix(m.options.Prefix); err != nil {
		errs = append(errs, fmt.Errorf("prefix: %w", err))
	}
	return errors.Join(errs...)
}

func checkTimeout(d time.Duration) error {
	if d < minTimeout || d > maxTimeout {
		return fmt.Errorf("%s is outside %s..%s", d, minTimeout, maxTimeout)
	}
	return nil
}

func checkPrefix(s string) error {
	if !validPrefix.MatchString(s) {
		return fmt.Errorf("%q: want 1 to 64 of letters, digits and _ . : -", s)
	}
	return nil
}

// keySecret makes what stands in a key for a password useless to whoever reads it.
var keySecret = func() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}()

// Key names the servers, the prefix and how they are asked: a config that says
// the same shares the open counters. It holds no secret.
func (m *Module) Key(string) string {
	o := &m.options
	mac := hmac.New(sha256.New, keySecret)
	mac.Write([]byte(o.Address.Password + "\x00" + o.Address.SentinelPassword)) // never fails
	return fmt.Sprintf("redis|%s|%s|%s|%x", o.Address.Identity(), o.Prefix, o.Timeout, mac.Sum(nil)[:8])
}

// Open begins to count. It does not wait for Redis.
func (m *Module) Open(_ context.Context, env caddymodule.Env) (caddymodule.Counters, error) {
	o := m.options
	o.Log = env.Log
	e, err := Open(o)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// UnmarshalCaddyfile reads the guest's part of the option counters:
//
//	counters redis <url> [<url>...] {
//	    timeout  <duration>
//	    prefix   <text>
//	    password <text>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the guest's name
	m.URLs = d.RemainingArgs()
	if len(m.URLs) == 0 {
		return d.Err("counters redis: the URL is missing; write: counters redis <url> [<url>...] { ... }")
	}
	if !placeholders(m.URLs...) {
		if _, err := address.Parse(m.URLs...); err != nil {
			return d.Errf("counters redis: %v", err)
		}
	}
	return block.Parse(d, "counters redis", map[string]block.Option{
		"timeout":  block.One("timeout <duration>", m.setTimeout),
		"prefix":   block.One("prefix <text>", m.setPrefix),
		"password": block.Secret("password {env.QUOTA_REDIS_PASSWORD}", block.Text(&m.Password)),
	})
}

func (m *Module) setTimeout(s string) error {
	t, err := block.ParseDuration(s)
	if err != nil {
		return err
	}
	m.Timeout = caddy.Duration(t)
	return checkTimeout(t)
}

func (m *Module) setPrefix(s string) error {
	if m.Prefix = s; placeholders(s) {
		return nil
	}
	return checkPrefix(s)
}

// placeholders reports whether a text is known only when the config is loaded.
func placeholders(texts ...string) bool {
	for _, s := range texts {
		if strings.Contains(s, "{") {
			return true
		}
	}
	return false
}

// Interface guards.
var (
	_ caddy.Module              = Module{}
	_ caddy.Provisioner         = (*Module)(nil)
	_ caddy.Validator           = (*Module)(nil)
	_ caddyfile.Unmarshaler     = (*Module)(nil)
	_ caddymodule.CountersGuest = (*Module)(nil)
	_ caddymodule.Counters      = (*Engine)(nil)
	_ caddymodule.Evicter       = (*Engine)(nil)
)
