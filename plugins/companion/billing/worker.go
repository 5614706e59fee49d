package billing

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	jobs, err := st.LeaseSyncs(ctx, d.holder, batch, leaseTime)
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

// leaseTime is how long a customer is leased. One whose readers have died before
// is leased for longer: should it be the customer that kills them, they do not
// die of it each minute.
func leaseTime(attempts int64) time.Duration {
	if attempts == 0 {
		return leaseFor
	}
	return leaseFor + backoff(attempts)
}

// work carries out one job. If it is killed at any point, the lease runs out and
// the customer is read again: the job ends in the transaction that writes what was
// read, and only if that leaves nothing to be ended at the provider.
func (d *desk) work(ctx context.Context, st *store.Companion, job store.SyncJob) {
	err := d.read(ctx, st, job)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		d.giveBack(ctx, st, job)
	default:
		d.putOff(ctx, st, job, err)
	}
}

// errManyDied stands for the reads of a customer that did not come to an end.
var errManyDied = errors.New("whoever was to read the customer did not come to an end, many times")

// read reads the customer of a job and writes what it finds. A panic is an error
// like any other: the process also serves everybody else.
func (d *desk) read(ctx context.Context, st *store.Companion, job store.SyncJob) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading a customer panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if job.Attempts >= unavailableAttempts {
		return errManyDied
	}
	account, err := st.CustomerAccount(ctx, job.Customer)
	if err != nil {
		return err
	}
	if account == "" {
		// Somebody else's, at a provider's account that is shared, or one that is
		// being made just now: who makes it reads it.
		syncs.WithLabelValues("foreign").Inc()
		return st.SkipSync(ctx, job)
	}
	found, err := d.fetch(ctx, job.Customer)
	if err != nil {
		return err
	}
	return d.apply(ctx, st, job, found)
}

// giveBackTime bounds what a process that stops does yet.
const giveBackTime = 5 * time.Second

// giveBack lets others read the customer at once: this process stops.
func (d *desk) giveBack(ctx context.Context, st *store.Companion, job store.SyncJob) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTime)
	defer cancel()
	if err := st.ReturnSync(ctx, job); err != nil {
		d.log.Warn("a customer could not be given back: its lease will run out", zap.Error(err))
	}
}

// putOff has the customer be read later, or gives it up.
func (d *desk) putOff(ctx context.Context, st *store.Companion, job store.SyncJob, err error) {
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
