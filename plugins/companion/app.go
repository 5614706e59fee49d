package companion

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"github.com/quotagate/quotagate/plugins/companion/sealed"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(App))
	httpcaddyfile.RegisterGlobalOption("quota_companion", parseGlobalOption)
}

// App is what the companion's handlers of a config share: who administers, with
// what secrets are kept, and the work that runs beside requests. A config without
// it gets the defaults: no bootstrap admins, no encryption key.
type App struct {
	// Admins are superadmins beside those that `caddy quota admin grant` made, by
	// user id or by e-mail address. Whoever the auth backend gives such an id or
	// address is one.
	Admins []string `json:"admins,omitempty"`
	// AdminEmails says which e-mail address of a token counts for Admins: "claimed"
	// (the default), any that its claim email_verified does not deny, or "verified",
	// where it says true.
	AdminEmails string `json:"admin_emails,omitempty"`
	// EncryptionKey encrypts what must be kept and not be read, such as the e-mail
	// address of a deleted user: at least 32 bytes. Placeholders are resolved when
	// the config is loaded. Empty: such things are not kept.
	EncryptionKey string `json:"encryption_key,omitempty"`
	// AuditRetention is how long audit events are kept. 0: for ever.
	AuditRetention caddy.Duration `json:"audit_retention,omitempty"`
	// BillingRaw is the payment provider, a module in the namespace
	// quota_companion.billing. None: nothing is for sale.
	BillingRaw json.RawMessage `json:"billing,omitempty" caddy:"namespace=quota_companion.billing inline_key=provider"`

	quota       *caddymodule.App
	box         *sealed.Box
	description *api.Description
	hostRedis   redis.UniversalClient // nil: none
	billing     *billing.Service      // nil: none
	log         *zap.Logger

	stop context.CancelFunc
	work sync.WaitGroup
}

// CaddyModule returns the module's information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota_companion", New: func() caddy.Module { return new(App) }}
}

// Load finds the companion's app, a default one where the config has none.
func Load(ctx caddy.Context) (*App, error) {
	v, err := ctx.App("quota_companion")
	if err != nil {
		return nil, fmt.Errorf("loading the app quota_companion: %w", err)
	}
	return v.(*App), nil
}

// Provision resolves what the options name, and opens nothing.
func (a *App) Provision(ctx caddy.Context) error {
	a.log = ctx.Logger()
	a.description = api.NewDescription()
	v, err := ctx.App("quota")
	if err != nil {
		return fmt.Errorf("loading the app quota: %w", err)
	}
	a.quota = v.(*caddymodule.App)
	if err := a.openHostRedis(); err != nil {
		return err
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := a.provisionBilling(ctx); err != nil {
		return err
	}
	repl := caddy.NewReplacer()
	var admins []string
	for _, admin := range a.Admins {
		// One placeholder may hold several, or none.
		admins = append(admins, strings.Fields(repl.ReplaceKnown(admin, ""))...)
	}
	a.Admins = admins
	key, err := repl.ReplaceOrErr(a.EncryptionKey, false, true)
	if err != nil {
		return fmt.Errorf("resolving encryption_key: %w", err)
	}
	if key == "" {
		if a.EncryptionKey != "" {
			a.log.Warn("encryption_key is empty: the e-mail addresses of deleted users are not freed")
		}
		return nil
	}
	if a.box, err = sealed.NewBox(key); err != nil {
		where := "encryption_key"
		if strings.HasPrefix(a.EncryptionKey, "{") { // else it is the key itself
			where += " " + a.EncryptionKey
		}
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

// provisionBilling loads the payment provider, if there is one.
func (a *App) provisionBilling(ctx caddy.Context) error {
	if len(a.BillingRaw) == 0 {
		return nil
	}
	v, err := ctx.LoadModule(a, "BillingRaw")
	if err != nil {
		return fmt.Errorf("loading billing: %w", err)
	}
	guest, ok := v.(billing.Guest)
	if !ok {
		return fmt.Errorf("loading billing: %T is no payment provider", v)
	}
	if err := billing.RegisterMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	a.billing = billing.NewService(guest, a.quota.UpgradeURL, a.Store, a.log.Named("billing"))
	return nil
}

// Validate reports what is wrong with the options. It does no I/O.
func (a *App) Validate() error {
	switch a.AdminEmails {
	case "", emailsVerified, emailsClaimed:
	default:
		return fmt.Errorf("admin_emails: %q is neither %s nor %s", a.AdminEmails, emailsClaimed, emailsVerified)
	}
	if a.AuditRetention < 0 || a.AuditRetention > 0 && a.AuditRetention < caddy.Duration(minRetention) {
		return fmt.Errorf("audit_retention: %s is below %s", time.Duration(a.AuditRetention), minRetention)
	}
	return nil
}

// Start begins the work that runs beside requests.
func (a *App) Start() error {
	if a.billing != nil {
		if err := a.billing.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	a.work.Go(func() { a.watchAudit(ctx) })
	a.work.Go(func() { a.tidy(ctx) })
	return nil
}

// Stop ends it.
func (a *App) Stop() error {
	if a.stop != nil {
		a.stop()
	}
	if a.billing != nil {
		a.billing.Stop()
	}
	a.work.Wait()
	return nil
}

// Quota is the app whose verifiers, records and counters the companion uses.
func (a *App) Quota() *caddymodule.App { return a.quota }

// Box encrypts what must be kept and not be read; nil without an encryption key.
func (a *App) Box() *sealed.Box { return a.box }

// Billing sells plans; nil where the config has no payment provider.
func (a *App) Billing() *billing.Service { return a.billing }

// Description is the API of all of the config's handlers.
func (a *App) Description() *api.Description { return a.description }

// Store is the open store. Ask for it with each request: the records are opened
// by whoever needs them first.
func (a *App) Store() (*store.Companion, error) {
	s, err := storeOf(a.quota)
	if err != nil {
		return nil, fmt.Errorf("opening records: %w", err)
	}
	return s, nil
}

// CountsAlone reports whether the counters are those of this process alone: what
// is emptied here is not emptied at gateways that are other processes.
func (a *App) CountsAlone() bool { return a.quota.CountersEngine() == "memory" }

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
