package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(App{}) }

// App is what all `quota` handlers of a config share: who is believed, where
// plans and usage are kept, and where requests are counted. A config without it
// gets the defaults: SQLite, counters in the process, nobody is identified.
type App struct {
	// RecordsRaw is the system of record: plans, subscriptions, usage. Default:
	// the engine sqlite with its own defaults (./data/quota.db).
	RecordsRaw json.RawMessage `json:"records,omitempty" caddy:"namespace=quota.records inline_key=engine"`
	// CountersRaw is where rate limits and quotas are counted. Default: the
	// engine memory, which is exact for one process.
	CountersRaw json.RawMessage `json:"counters,omitempty" caddy:"namespace=quota.counters inline_key=engine"`
	// VerifiersRaw tell who asks. The first that claims a request's credential
	// decides. Without any, every caller is anonymous.
	VerifiersRaw []json.RawMessage `json:"verifiers,omitempty" caddy:"namespace=quota.verifiers inline_key=kind"`

	// Entitlements is the cache of what accounts may do.
	Entitlements Entitlements `json:"entitlements,omitzero"`
	// DefaultPlan is the plan of an account without a subscription. Default: the
	// one that the records mark as default, which is free until an operator says otherwise.
	DefaultPlan string `json:"default_plan,omitempty"`
	// DefaultPlanAt is the place of DefaultPlan in a Caddyfile, where it is not one
	// of the plans that come with the records: whether it is the name of another
	// shows only when they are open.
	DefaultPlanAt string `json:"default_plan_at,omitempty"`
	// IPPrefix says which addresses make one anonymous caller.
	IPPrefix IPPrefix `json:"ip_prefix,omitzero"`
	// UpgradeURL is shown in denials for a quota; empty: none. Placeholders such
	// as {env.FRONTEND_URL} are resolved when the config is loaded.
	UpgradeURL string `json:"upgrade_url,omitempty"`
	// OnOutage is what a rule does while the counters are unreachable, where it
	// does not say itself: allow or deny. Default: allow.
	OnOutage string `json:"on_outage,omitempty"`
	// Host names the backends' own tables of users and sessions.
	Host Host `json:"host,omitzero"`
	// HostRedis is the URL of the backends' own Redis, for clearing their rate
	// limits. Empty: none. Placeholders are resolved when the config is loaded.
	HostRedis string `json:"host_redis,omitempty"`
	// LogSubjects writes user ids into the log lines of denials.
	LogSubjects bool `json:"log_subjects,omitempty"`

	log       *zap.Logger
	verifiers []gate.Verifier
	records   RecordsGuest
	counters  CountersGuest
	// metered lists what the handlers of the config spend and free, for comparing
	// with the plans once the records are open: a misspelt metric must not pass
	// as an unlimited one.
	metered []meteredUse
	// judges: the config has a handler that judges requests. A companion's has none.
	judges  bool
	runtime *runtime
}

// Entitlements bounds the cache of what accounts may do.
type Entitlements struct {
	// TTL is how long a loaded entitlement is used without asking again. Default: 60s.
	TTL caddy.Duration `json:"ttl,omitempty"`
	// Stale is how long beyond TTL it is still used while the records fail. Default: 10m.
	Stale caddy.Duration `json:"stale,omitempty"`
	// Grace is how long a subscription whose payment has failed keeps its plan.
	// Gateways and companions over the same records need the same. Default: 168h.
	Grace caddy.Duration `json:"grace,omitempty"`
	// Size is how many accounts are kept: 1..10000000. Default: 100000.
	Size int `json:"size,omitempty"`
}

// IPPrefix is how many leading bits of an address make one anonymous caller.
type IPPrefix struct {
	IPv4 int `json:"ipv4,omitempty"` // 1..32, default 32
	IPv6 int `json:"ipv6,omitempty"` // 1..128, default 64
}

// Host names the backends' own tables. Without it public.users and
// public.sessions are used where they exist, columns mapped by name.
type Host struct {
	Users    *HostTable `json:"users,omitempty"`
	Sessions *HostTable `json:"sessions,omitempty"`
}

// HostTable is one table of the backends.
type HostTable struct {
	// Table is its name, with or without a schema.
	Table string `json:"table"`
	// Columns maps our names of columns to the host's, where they differ.
	Columns map[string]string `json:"columns,omitempty"`
}

// meteredUse is one metric that a rule spends or frees.
type meteredUse struct{ Metric, Rule, At string }

// The defaults and bounds of App.
const (
	defaultPlan         = "free"
	defaultTTL          = caddy.Duration(time.Minute)
	defaultStale        = caddy.Duration(10 * time.Minute)
	defaultGrace        = caddy.Duration(7 * 24 * time.Hour)
	defaultEntitlements = 100_000
	maxEntitlements     = 10_000_000
	defaultIPv4Prefix   = 32
	defaultIPv6Prefix   = 64
	allow               = "allow"
	deny                = "deny"
)

// CaddyModule returns the module's information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota", New: func() caddy.Module { return new(App) }}
}

// Provision fills in the defaults and loads the guests. Nothing is opened here:
// a config is valid while Redis or Postgres is down.
func (a *App) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	a.setDefaults()
	if err := a.resolve(caddy.NewReplacer()); err != nil {
		return err
	}
	if err := a.loadGuests(ctx); err != nil {
		return err
	}
	return a.provisionRuntime(ctx)
}

func (a *App) setDefaults() {
	if a.RecordsRaw == nil {
		a.RecordsRaw = json.RawMessage(`{"engine":"sqlite"}`)
	}
	if a.CountersRaw == nil {
		a.CountersRaw = json.RawMessage(`{"engine":"memory"}`)
	}
	setDefault(&a.Entitlements.TTL, defaultTTL)
	setDefault(&a.Entitlements.Stale, defaultStale)
	setDefault(&a.Entitlements.Grace, defaultGrace)
	setDefault(&a.Entitlements.Size, defaultEntitlements)
	setDefault(&a.IPPrefix.IPv4, defaultIPv4Prefix)
	setDefault(&a.IPPrefix.IPv6, defaultIPv6Prefix)
	setDefault(&a.OnOutage, allow)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// resolve replaces {env.*} and {file.*} in the options that may hold them. What
// is missing is an error with its name, never an empty text.
func (a *App) resolve(repl *caddy.Replacer) error {
	for _, o := range []struct {
		name  string
		value *string
	}{{"default_plan", &a.DefaultPlan}, {"upgrade_url", &a.UpgradeURL}, {"host_redis", &a.HostRedis}} {
		value, err := repl.ReplaceOrErr(*o.value, true, true)
		if err != nil {
			return fmt.Errorf("resolving %s: %w", o.name, err)
		}
		*o.value = value
	}
	return nil
}

func (a *App) loadGuests(ctx caddy.Context) error {
	v, err := ctx.LoadModule(a, "RecordsRaw")
	if err != nil {
		return guestError("records", "quota.records", err)
	}
	records, ok := v.(RecordsGuest)
	if !ok {
		return fmt.Errorf("loading records: %T is not a RecordsGuest", v)
	}
	a.records = records

	if v, err = ctx.LoadModule(a, "CountersRaw"); err != nil {
		return guestError("counters", "quota.counters", err)
	}
	counters, ok := v.(CountersGuest)
	if !ok {
		return fmt.Errorf("loading counters: %T is not a CountersGuest", v)
	}
	a.counters = counters

	if v, err = ctx.LoadModule(a, "VerifiersRaw"); err != nil {
		return guestError("verifiers", "quota.verifiers", err)
	}
	for _, guest := range v.([]any) { // what Caddy answers for a list of modules
		verifier, ok := guest.(gate.Verifier)
		if !ok {
			return fmt.Errorf("loading verifiers: %T is not a gate.Verifier", guest)
		}
		a.verifiers = append(a.verifiers, verifier)
	}
	return nil
}

// guestError says which modules there are where one was not found.
func guestError(what, namespace string, err error) error {
	if strings.Contains(err.Error(), "unknown module: "+namespace) {
		return fmt.Errorf("loading %s: %w: %s", what, err, linked(namespace))
	}
	return fmt.Errorf("loading %s: %w", what, err)
}

// Validate reports everything that is wrong with the options. It does no I/O.
func (a *App) Validate() error {
	var errs []error
	add := func(option string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", option, err))
		}
	}
	add("entitlements.ttl", checkPositive(a.Entitlements.TTL))
	add("entitlements.stale", checkPositive(a.Entitlements.Stale))
	add("entitlements.grace", checkPositive(a.Entitlements.Grace))
	add("entitlements.size", checkRange(a.Entitlements.Size, 1, maxEntitlements))
	if a.DefaultPlan != "" {
		add("default_plan", checkName(a.DefaultPlan))
	}
	add("ip_prefix.ipv4", checkRange(a.IPPrefix.IPv4, 1, 32))
	add("ip_prefix.ipv6", checkRange(a.IPPrefix.IPv6, 1, 128))
	add("upgrade_url", checkUpgradeURL(a.UpgradeURL))
	add("on_outage", checkChoice(a.OnOutage, allow, deny))
	add("host.users", a.Host.Users.check(userColumns()))
	add("host.sessions", a.Host.Sessions.check(sessionColumns()))
	add("host_redis", checkRedisURL(a.HostRedis))
	return errors.Join(errs...)
}

// Start opens what the config needs and is not open yet.
func (a *App) Start() error {
	_, err := a.Gate()
	return err
}

// Stop leaves everything open: a config that follows may share it. What none
// does is closed by Cleanup.
func (a *App) Stop() error { return nil }

// Cleanup gives back what Provision took.
func (a *App) Cleanup() error { return a.cleanupRuntime() }

// userColumns are our names of the columns of the host's users.
func userColumns() []string { return []string{"id", "email", "username", "status", "created_at"} }

// sessionColumns are our names of the columns of the host's sessions.
func sessionColumns() []string {
	return []string{"id", "user_id", "created_at", "last_seen_at", "user_agent", "ip", "revoked_at"}
}

func (t *HostTable) check(columns []string) error {
	if t == nil {
		return nil
	}
	if err := checkTable(t.Table); err != nil {
		return err
	}
	for _, ours := range sortedNames(t.Columns) {
		if err := checkColumn(ours, t.Columns[ours], columns); err != nil {
			return err
		}
	}
	return nil
}

func checkTable(name string) error {
	schema, table, qualified := strings.Cut(name, ".")
	if schema == "" || (qualified && table == "") || strings.Contains(table, ".") || hasControl(name) {
		return fmt.Errorf("%q is not the name of a table: write users or public.users", name)
	}
	return nil
}

func checkColumn(ours, hosts string, columns []string) error {
	if err := checkChoice(ours, columns...); err != nil {
		return fmt.Errorf("our column %w", err)
	}
	if hosts == "" || hasControl(hosts) {
		return fmt.Errorf("%q is not the name of a column", hosts)
	}
	return nil
}

func checkName(s string) error {
	if quota.ValidName(s) {
		return nil
	}
	return fmt.Errorf("%q is not a name: want 1 to 64 of a-z, 0-9, '_', '-', beginning with a letter or digit", s)
}

func checkPositive(d caddy.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s is not above 0", time.Duration(d))
	}
	return nil
}

func checkRange(n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%d is outside %d..%d", n, low, high)
	}
	return nil
}

// checkUpgradeURL wants a web address or an absolute path on the same site.
func checkUpgradeURL(s string) error {
	if s == "" || (strings.HasPrefix(s, "/") && !hasControl(s)) {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is not a web address: write https://app.example.com/pricing or /pricing", s)
	}
	return nil
}

// checkRedisURL looks at the scheme only, and quotes nothing: the URL may hold a password.
func checkRedisURL(s string) error {
	if s == "" {
		return nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	schemes := []string{"redis", "rediss", "unix", "redis+sentinel", "redis+cluster"}
	if !ok || rest == "" || checkChoice(scheme, schemes...) != nil {
		return fmt.Errorf("not a Redis URL: want one of %s, followed by :// and an address", list(schemes))
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
