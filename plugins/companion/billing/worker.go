package billing

import (
	"context"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// How the worker works.
const (
	// askEvery is how often it looks for what other processes have queued.
	askEvery = time.Second
	// batch is how many customers it reads at a time.
	batch = 4
	// failedPause is how long it waits while the records cannot be asked.
	failedPause = 5 * time.Second
)

// run reads customers that are queued, until ctx ends. Several may run.
func (d *desk) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		pause := askEvery
		for ctx.Err() == nil {
			n, err := d.round(ctx)
			if err != nil && ctx.Err() == nil {
				d.log.Error("customers that are queued cannot be read", zap.Error(err))
				pause = failedPause
			}
			if err != nil || n == 0 {
				break
			}
		}
		timer.Reset(pause)
	}
}

// round reads the customers that are due, at most a batch, and says how many.
func (d *desk) round(ctx context.Context) (int, error) {
	st, err := d.store()
	if err != nil {
		return 0, err
	}
	jobs, err := st.LeaseSyncs(ctx, d.holder, batch, leaseFor)
	if err != nil {
		return 0, err
	}
	var all sync.WaitGroup
	for _, job := range jobs {
		all.Go(func() { d.work(ctx, st, job) })
	}
	all.Wait()
	return len(jobs), nil
}

// work carries out one job. If it is killed at any point, the lease runs out and
// the customer is read again: until the last transaction nothing was written, and
// after it nothing is left to do.
func (d *desk) work(ctx context.Context, st *store.Store, job store.SyncJob) {
	read, err := d.fetch(ctx, job.Customer)
	if err == nil {
		err = d.apply(ctx, st, job, read)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	f := failure(err, job.Attempts)
	fields := []zap.Field{zap.String("customer", job.Customer), zap.Int64("attempt", job.Attempts+1), zap.Error(err)}
	if f.Dead {
		syncs.WithLabelValues("dead").Inc()
		d.log.Error("a customer is given up until there is news of it, or an admin replays an event", fields...)
	} else {
		syncs.WithLabelValues("failed").Inc()
		d.log.Warn("a customer could not be read and is tried again", append(fields, zap.Duration("in", f.Retry))...)
	}
	if err := st.FailSync(ctx, job, f); err != nil && ctx.Err() == nil {
		d.log.Error("a customer could not be put off: its lease will run out", zap.Error(err))
	}
}
