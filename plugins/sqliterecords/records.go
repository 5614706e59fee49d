package sqliterecords

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/uuid"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// pollEvery is how often the files are looked at for what anybody has written.
const pollEvery = 20 * time.Millisecond

// Records are the open file.
type Records struct {
	db    *sql.DB
	store *store.Store
	// holder names this opening to leases.
	holder string
	// file is where the database is, opened what was there.
	file   string
	opened os.FileInfo
}

func open(ctx context.Context, file, mode string, env caddymodule.Env) (_ *Records, err error) {
	if err := makeFile(file); err != nil {
		return nil, err
	}
	holder, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("making an id: %w", err)
	}
	db, err := openDB(store.SQLiteDSN(file))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if mode == MigrateAuto {
		if err := store.Migrate(ctx, db, store.SQLite, "up", io.Discard); err != nil {
			return nil, err
		}
	}
	r := &Records{db: db, store: store.New(db, store.Options{Engine: store.SQLite, Grace: env.Grace}), holder: holder.String(), file: file}
	r.store.SetDefaultPlan(env.DefaultPlan)
	r.store.SetHost(store.HostOptions{Users: (*store.HostTable)(env.Host.Users), Sessions: (*store.HostTable)(env.Host.Sessions)})
	var old *store.SchemaError
	if err := r.store.Ping(ctx); errors.As(err, &old) && env.Log != nil {
		env.Log.Error("the records cannot be used yet; callers have the default plan", zap.String("file", file), zap.Error(err))
	} else if err != nil && old == nil {
		return nil, err
	}
	if err := r.checkDefaultPlan(ctx, env.DefaultPlan); err != nil {
		return nil, err
	}
	if r.opened, err = os.Stat(file); err != nil {
		return nil, fmt.Errorf("looking at the file: %w", err)
	}
	return r, nil
}

// checkDefaultPlan refuses a name that no plan has.
func (r *Records) checkDefaultPlan(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := r.store.PlanByName(ctx, name)
	if errors.Is(err, store.ErrPlanNotFound) {
		return &caddymodule.UnknownPlanError{Name: name}
	}
	var old *store.SchemaError
	if errors.As(err, &old) {
		return nil // reported before; nothing can be loaded anyway
	}
	return err
}

// makeFile makes the file and its folder where they are missing, for their owner
// alone: SQLite would let others read who the callers are.
func makeFile(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	f, err := os.OpenFile(file, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("making the file: %w", err)
	}
	return f.Close()
}

func openDB(dsn string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	// Readers run beside each other; one connection is the watcher's, one a writer's.
	n := runtime.GOMAXPROCS(0) + 4
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// Store is the records' full set of services.
func (r *Records) Store() *store.Store { return r.store }

// Entitlement implements gate.Loader.
func (r *Records) Entitlement(ctx context.Context, account quota.Subject) (*quota.Entitlement, error) {
	return r.store.Entitlement(ctx, account)
}

// Latest implements gate.Bus.
func (r *Records) Latest(ctx context.Context) (int64, error) { return r.store.Latest(ctx) }

// Watch implements gate.Bus: within 20 ms of a commit by whatever process its
// changes are delivered, and within 250 ms where the time of the write-ahead log
// does not tell of it.
func (r *Records) Watch(ctx context.Context, after int64, look <-chan struct{}, deliver func([]quota.Change)) (err error) {
	// data_version moves for what other connections write: this one never writes.
	conn, err := r.db.Conn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watching records: %w", err)
	}
	defer func() {
		if closing := conn.Close(); closing != nil && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("watching records: %w", closing))
		}
	}()
	// Asked often: compiled once, and without a context that may
	// end, for which the driver would start a goroutine each time.
	asking := context.WithoutCancel(ctx)
	pragma, err := conn.PrepareContext(asking, "PRAGMA data_version")
	if err != nil {
		return fmt.Errorf("watching records: %w", err)
	}
	defer func() { err = errors.Join(err, pragma.Close()) }()
	known := int64(-1)
	wal := footprint{path: r.file + "-wal"}
	return r.store.Poll(ctx, after, pollEvery, look, func(context.Context) (bool, error) {
		if wal.quiet(time.Now()) {
			return false, nil
		}
		var version int64
		if err := pragma.QueryRowContext(asking).Scan(&version); err != nil {
			return false, fmt.Errorf("reading data_version: %w", err)
		}
		moved := version != known
		known = version
		return moved, nil
	}, deliver)
}

// inPlace reports that the file was removed, or another one put in its place:
// SQLite would go on with the old one, which nobody finds any more.
func (r *Records) inPlace() error {
	info, err := os.Stat(r.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the database file %s was removed while it was open: put it back, or restart the gateway", r.file)
	case err != nil:
		return fmt.Errorf("looking at the database file: %w", err)
	case !os.SameFile(info, r.opened):
		return fmt.Errorf("the database file %s was replaced while it was open: restart the gateway", r.file)
	}
	return nil
}

// Flush implements gate.UsageStore. It refuses to write into a file that is no
// longer in its place: what is kept in the counters is not lost, that would be.
func (r *Records) Flush(ctx context.Context, f quota.Flush) error {
	if err := r.inPlace(); err != nil {
		return fmt.Errorf("flushing usage: %w", err)
	}
	return r.store.Flush(ctx, f)
}

// EpochTotals implements gate.UsageStore.
func (r *Records) EpochTotals(ctx context.Context, epoch string) ([]quota.Total, error) {
	return r.store.EpochTotals(ctx, epoch)
}

// Usage implements gate.UsageStore.
func (r *Records) Usage(ctx context.Context, account quota.Subject, keys []quota.UsageKey, except []string) ([]quota.Used, error) {
	return r.store.Usage(ctx, account, keys, except)
}

// Maintain implements gate.Maintainer.
func (r *Records) Maintain(ctx context.Context) error { return r.store.Maintain(ctx, r.holder) }

// Reap implements gate.Reaper.
func (r *Records) Reap(ctx context.Context, copies bool) (int, []quota.ClosedEpoch, error) {
	return r.store.Reap(ctx, r.holder, copies)
}

// Found implements gate.Reaper.
func (r *Records) Found(ctx context.Context, epoch string) (bool, error) {
	return r.store.Found(ctx, epoch)
}

// Dropped implements gate.Reaper.
func (r *Records) Dropped(ctx context.Context, epoch string) error {
	return r.store.Dropped(ctx, epoch)
}

// Gateways implements gate.Reaper.
func (r *Records) Gateways(ctx context.Context) (int, error) { return r.store.Gateways(ctx) }

// Metrics are the metrics that plans name.
func (r *Records) Metrics(ctx context.Context) ([]string, error) { return r.store.Metrics(ctx) }

// Ping implements caddymodule.Records. A plan that cannot be enforced as it is
// written, and tables of the host's that cannot be read, are reported too.
func (r *Records) Ping(ctx context.Context) error {
	if err := r.inPlace(); err != nil {
		return err
	}
	if err := r.store.Ping(ctx); err != nil {
		return err
	}
	return errors.Join(r.store.CheckPlans(ctx), r.store.HostFault())
}

// Close implements io.Closer. Watch must have ended.
func (r *Records) Close() error {
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
