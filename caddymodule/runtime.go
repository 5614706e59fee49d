package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// pool holds what successive configs share, by key: open records, open
// counters, the gate's runtime over a pair of them, and what backends have said
// of CORS. Caddy starts a new
// config before it stops the old one, so what both name is never closed.
var pool = caddy.NewUsagePool()

const (
	stopTimeout  = 10 * time.Second // of the last flush of usage
	plansTimeout = 10 * time.Second // of reading what the plans name, while a config starts
)

// resource is opened by whoever needs it first, and closed with its last user.
type resource[T any] struct {
	open  func() (T, error)
	close func(T) error

	once  sync.Once
	value T
	err   error
}

func (r *resource[T]) get() (T, error) {
	r.once.Do(func() { r.value, r.err = r.open() })
	return r.value, r.err
}

// Destruct is called by the usage pool.
func (r *resource[T]) Destruct() error {
	r.once.Do(func() { r.err = errors.New("closed before it was opened") })
	if r.err != nil {
		return nil
	}
	return r.close(r.value)
}

// borrow finds the resource of a key, or makes it, unopened.
func borrow[T any](key string, open func() (T, error), closeValue func(T) error) (*resource[T], error) {
	v, _, err := pool.LoadOrNew(key, func() (caddy.Destructor, error) {
		return &resource[T]{open: open, close: closeValue}, nil
	})
	if err != nil {
		return nil, err
	}
	r, ok := v.(*resource[T])
	if !ok {
		return nil, fmt.Errorf("%T is pooled as %s", v, key)
	}
	return r, nil
}

// runtime is the part of the App that lives as long as its config.
type runtime struct {
	env     Env
	keys    []string // borrowed, in order
	records *resource[Records]
	engine  *resource[Counters]
	shared  *resource[*gate.Runtime]
	sites   *resource[*answer.Sites]

	once sync.Once
	gate *gate.Gate
	err  error

	// explaining counts the requests under way that are explained and not sent.
	explaining atomic.Int32
}

func (a *App) provisionRuntime(ctx caddy.Context) error {
	if err := register(ctx.GetMetricsRegistry(), collectors()...); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	env := Env{
		Log: caddy.Log().Named("quota"), StateDir: filepath.Join(caddy.AppDataDir(), "quota"),
		DefaultPlan: a.DefaultPlan, Grace: time.Duration(a.Entitlements.Grace), Host: a.Host,
	}
	if local, ok := a.records.(LocalState); ok {
		env.StateDir = local.StateDir()
	}
	host, err := json.Marshal(a.Host)
	if err != nil {
		return fmt.Errorf("naming the records: %w", err)
	}
	records := "records|" + a.records.Key() + "|" + a.DefaultPlan + "|" + env.Grace.String() + "|" + string(host)
	counters := "counters|" + a.counters.Key(env.StateDir)
	rt := &runtime{env: env}
	a.runtime = rt
	if err := lend(rt, "cors", &rt.sites,
		func() (*answer.Sites, error) { return new(answer.Sites), nil }, func(*answer.Sites) error { return nil }); err != nil {
		return err
	}
	if err := lend(rt, records, &rt.records,
		func() (Records, error) { return a.records.Open(context.Background(), env) }, Records.Close); err != nil {
		return err
	}
	if err := lend(rt, counters, &rt.engine,
		func() (Counters, error) { return a.counters.Open(context.Background(), env) }, Counters.Close); err != nil {
		return err
	}
	return lend(rt, "runtime|"+records+"|"+counters, &rt.shared,
		func() (*gate.Runtime, error) { return a.newShared(env) }, stopShared)
}

func lend[T any](rt *runtime, key string, field **resource[T], open func() (T, error), closeValue func(T) error) error {
	r, err := borrow(key, open, closeValue)
	if err != nil {
		return err
	}
	rt.keys = append(rt.keys, key)
	*field = r
	return nil
}

func (a *App) newShared(env Env) (*gate.Runtime, error) {
	records, err := a.Records()
	if err != nil {
		return nil, fmt.Errorf("opening records: %w", err)
	}
	counters, err := a.runtime.engine.get()
	if err != nil {
		return nil, fmt.Errorf("opening counters: %w", err)
	}
	rt, err := gate.NewRuntime(gate.Options{
		Loader: records, Bus: records, Usage: records, Engine: counters,
		Fallback: fallback(cmp.Or(a.DefaultPlan, defaultPlan)),
		TTL:      time.Duration(a.Entitlements.TTL), Stale: time.Duration(a.Entitlements.Stale),
		CacheSize: a.Entitlements.Size, Log: env.Log, Observe: observeCall,
	})
	if err != nil {
		return nil, err
	}
	rt.Start(context.Background())
	running.Store(&observed{rt, counters})
	return rt, nil
}

func stopShared(rt *gate.Runtime) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	rt.Stop(ctx)
	if o := running.Load(); o != nil && o.Runtime == rt {
		running.CompareAndSwap(o, nil)
	}
	return nil
}

// fallback is what an account may do while nothing can be asked: the default
// plan as it is compiled in, or base limits where it is not among those.
func fallback(plan string) func(quota.Subject) *quota.Entitlement {
	p, counted := quota.SeedPlan(plan)
	return func(s quota.Subject) *quota.Entitlement {
		return &quota.Entitlement{Account: s, Plan: p, Counted: counted}
	}
}

// Gate is the config's gate, opened at the first call: Caddy starts apps in no
// particular order, so a request may come before Start.
func (a *App) Gate() (*gate.Gate, error) {
	rt := a.runtime
	rt.once.Do(func() {
		shared, err := rt.shared.get()
		if err != nil {
			rt.err = err
			return
		}
		if rt.err = a.checkMetrics(); rt.err != nil {
			return
		}
		shared.Entitlements.Configure(
			time.Duration(a.Entitlements.TTL), time.Duration(a.Entitlements.Stale), a.Entitlements.Size)
		shared.Judge(a.judges)
		rt.gate = gate.New(gate.Config{
			Runtime: shared, Verifiers: a.verifiers, Warn: a.warnUnlimited(),
			Prefix4: a.IPPrefix.IPv4, Prefix6: a.IPPrefix.IPv6, Log: a.log,
		})
	})
	return rt.gate, rt.err
}

// Records are the open records, for the companion and the commands.
func (a *App) Records() (Records, error) {
	records, err := a.runtime.records.get()
	if unknown := (*UnknownPlanError)(nil); errors.As(err, &unknown) {
		err = at(a.DefaultPlanAt, err)
	}
	return records, err
}

// flushFailing reports whether records that can be read refuse usage: a file
// that may only be read, a full disk.
func (a *App) flushFailing() bool {
	g, err := a.Gate()
	return err == nil && g != nil && g.Runtime().Stats.FlushFailing()
}

// CountersEngine is the name of the counters' module: memory counts for this
// process alone.
func (a *App) CountersEngine() string {
	if m, ok := a.counters.(caddy.Module); ok {
		return m.CaddyModule().ID.Name()
	}
	return ""
}

// outage is the one of the counters that lasts, nil if there is none.
func (a *App) outage() *gate.Outage {
	if g, err := a.Gate(); err == nil && g != nil {
		return g.Runtime().Outage()
	}
	return nil
}

// Counters are the open counters.
func (a *App) Counters() (Counters, error) { return a.runtime.engine.get() }

// warnUnlimited logs each scope that has no limit once for each config.
func (a *App) warnUnlimited() func(quota.Warning) {
	var warned sync.Map
	return func(w quota.Warning) {
		if _, again := warned.LoadOrStore(w, true); !again {
			a.log.Warn("neither a plan nor the config limits this scope: 60 requests in 60 s apply",
				zap.String("scope", w.Scope), zap.String("rule", w.Rule))
		}
	}
}

// MetricLister is implemented by records that know the metrics that plans name.
type MetricLister interface {
	Metrics(ctx context.Context) ([]string, error)
}

// checkMetrics refuses a config that spends what no plan names: it would be
// unlimited without anybody having said so.
func (a *App) checkMetrics() error {
	known := map[string]bool{}
	unknown := func() []meteredUse {
		var us []meteredUse
		for _, u := range a.metered {
			if !quota.SeedMetric(u.Metric) && !known[u.Metric] {
				us = append(us, u)
			}
		}
		return us
	}
	if len(unknown()) == 0 {
		return nil
	}
	records, err := a.Records()
	if err != nil {
		return err
	}
	lister, ok := records.(MetricLister)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), plansTimeout)
	defer cancel()
	metrics, err := lister.Metrics(ctx)
	if err != nil {
		a.log.Error("the metrics of the plans cannot be read: metrics that only the config names are not checked", zap.Error(err))
		return nil
	}
	for _, m := range metrics {
		known[m] = true
	}
	var errs []error
	for _, u := range unknown() {
		errs = append(errs, at(u.At, fmt.Errorf("rule %q spends or frees %q, a metric that no plan names: "+
			"correct its name, or give a plan a quota of it with caddy quota plans apply", u.Rule, u.Metric)))
	}
	return errors.Join(errs...)
}

// at says where in a Caddyfile an error is; place is empty where nobody knows.
func at(place string, err error) error {
	if place == "" {
		return err
	}
	return fmt.Errorf("%s: %w", place, err)
}

// cleanupRuntime gives back in reverse order: the runtime flushes before its
// counters and records close.
func (a *App) cleanupRuntime() error {
	if a.runtime == nil {
		return nil // Provision failed before it borrowed anything
	}
	var errs []error
	keys := a.runtime.keys
	a.runtime.keys = nil
	for i := len(keys) - 1; i >= 0; i-- {
		if _, err := pool.Delete(keys[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
