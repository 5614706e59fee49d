package pgrecords

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// settleEvery is how often records that cannot be used yet are tried again.
const settleEvery = time.Second

// reserved connections are left to the flush of usage and to the watcher of
// changes, however much is loaded for requests.
const reserved = 2

// Records are an open pool.
type Records struct {
	m     *Module
	db    *sql.DB
	store *store.Store
	// holder names this opening to leases.
	holder      string
	defaultPlan string
	loads       chan struct{}
	log         *zap.Logger

	stop context.CancelFunc
	wg   sync.WaitGroup
}

func (m *Module) open(ctx context.Context, env caddymodule.Env) (*Records, error) {
	holder, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("making an id: %w", err)
	}
	r := &Records{
		m: m, db: m.connect(), holder: holder.String(), defaultPlan: env.DefaultPlan,
		loads: make(chan struct{}, m.Connections-reserved), log: env.Log,
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	r.store = store.New(r.db, store.Options{Engine: store.Postgres, Grace: env.Grace})
	r.store.SetDefaultPlan(env.DefaultPlan)
	r.store.SetHost(store.HostOptions{Users: (*store.HostTable)(env.Host.Users), Sessions: (*store.HostTable)(env.Host.Sessions)})
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	err = r.settle(ctx)
	if wrong := (*caddymodule.UnknownPlanError)(nil); errors.As(err, &wrong) {
		return nil, errors.Join(err, r.Close())
	}
	if err != nil {
		r.log.Error("the records cannot be used yet; the gateway goes on as in an outage and tries again",
			zap.String("database", m.place()), zap.Error(err))
		r.wg.Go(func() { r.settleLater(background, err) })
	}
	return r, nil
}

// settle migrates, where it is to, and checks that the records can be used.
func (r *Records) settle(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, time.Duration(r.m.ConnectTimeout))
	defer cancel()
	if err := r.db.PingContext(asking); err != nil {
		return fmt.Errorf("reaching the database: %w", err)
	}
	if r.m.MigrateMode == MigrateAuto {
		// As long as it takes: another gateway may be at it.
		if err := store.Migrate(ctx, r.db, store.Postgres, "up", io.Discard); err != nil {
			return err
		}
	}
	asking, cancel = context.WithTimeout(ctx, time.Duration(r.m.ConnectTimeout))
	defer cancel()
	if err := r.store.Ping(asking); err != nil {
		return err
	}
	if r.defaultPlan == "" {
		return nil
	}
	// Without it no account that has no subscription would have a plan at all.
	_, err := r.store.PlanByName(asking, r.defaultPlan)
	if errors.Is(err, store.ErrPlanNotFound) {
		return &caddymodule.UnknownPlanError{Name: r.defaultPlan}
	}
	return err
}

// settleLater tries until the records can be used, and says what is in the way
// when that changes.
func (r *Records) settleLater(ctx context.Context, before error) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.settle(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.log.Info("the records can be used now", zap.String("database", r.m.place()))
			return
		case err.Error() != before.Error():
			r.log.Error("the records cannot be used yet", zap.String("database", r.m.place()), zap.Error(err))
			before = err
		}
	}
}

// Store is the records' full set of services.
func (r *Records) Store() *store.Store { return r.store }

// Entitlement implements gate.Loader.
func (r *Records) Entitlement(ctx context.Context, account quota.Subject) (*quota.Entitlement, error) {
	if err := r.beginLoad(ctx); err != nil {
		return nil, err
	}
	defer r.endLoad()
	return r.store.Entitlement(ctx, account)
}

// beginLoad waits until one more load may take a connection; endLoad must follow.
func (r *Records) beginLoad(ctx context.Context) error {
	select {
	case r.loads <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a connection to the records: %w", context.Cause(ctx))
	}
}

func (r *Records) endLoad() { <-r.loads }

// Latest implements gate.Bus.
func (r *Records) Latest(ctx context.Context) (int64, error) { return r.store.Latest(ctx) }

// Watch implements gate.Bus: changes are delivered as their commit is announced,
// and within the poll interval where the announcement does not come through.
func (r *Records) Watch(ctx context.Context, after int64, look <-chan struct{}, deliver func([]quota.Change)) error {
	l := newListener(r, look)
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	if r.m.listener != nil {
		listening.Go(func() { l.run(ctx) })
	}
	defer listening.Wait()
	defer cancel()
	return r.store.Follow(ctx, after, l.wait, deliver)
}

// Flush implements gate.UsageStore.
func (r *Records) Flush(ctx context.Context, f quota.Flush) error { return r.store.Flush(ctx, f) }

// EpochTotals implements gate.UsageStore.
func (r *Records) EpochTotals(ctx context.Context, epoch string) ([]quota.Total, error) {
	return r.store.EpochTotals(ctx, epoch)
}

// Usage implements gate.UsageStore.
func (r *Records) Usage(ctx context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error) {
	if err := r.beginLoad(ctx); err != nil {
		return nil, err
	}
	defer r.endLoad()
	return r.store.Usage(ctx, account, keys, except)
}

// Maintain implements gate.Maintainer.
func (r *Records) Maintain(ctx context.Context) error { return r.store.Maintain(ctx, r.holder) }

// Reap implements gate.Reaper.
func (r *Records) Reap(ctx context.Context, copies bool) (int, []quota.ClosedEpoch, error) {
	return r.store.Reap(ctx, r.holder, copies)
}

// Dropped implements gate.Reaper.
func (r *Records) Dropped(ctx context.Context, epoch string) error {
	return r.store.Dropped(ctx, epoch)
}

// Found implements gate.Reaper.
func (r *Records) Found(ctx context.Context, epoch string) (bool, error) {
	return r.store.Found(ctx, epoch)
}

// Gateways implements gate.Reaper.
func (r *Records) Gateways(ctx context.Context) (int, error) { return r.store.Gateways(ctx) }

// Metrics are the metrics that plans name.
func (r *Records) Metrics(ctx context.Context) ([]string, error) { return r.store.Metrics(ctx) }

// Ping implements caddymodule.Records. A plan that cannot be enforced as it is
// written, and tables of the host's that cannot be read, are reported too.
func (r *Records) Ping(ctx context.Context) error {
	if err := r.store.Ping(ctx); err != nil {
		return err
	}
	return errors.Join(r.store.CheckPlans(ctx), r.store.HostFault())
}

// Close implements io.Closer. Watch must have ended.
func (r *Records) Close() error {
	r.stop()
	r.wg.Wait()
	if err := r.db.Close(); err != nil {
		return fmt.Errorf("closing records: %w", err)
	}
	return nil
}

// Interface guards.
var (
	_ caddymodule.Records      = (*Records)(nil)
	_ caddymodule.MetricLister = (*Records)(nil)
	_ gate.Maintainer          = (*Records)(nil)
	_ gate.Reaper              = (*Records)(nil)
)
