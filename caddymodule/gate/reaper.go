package gate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

const (
	reapEvery = time.Second
	// reapLimit bounds one round. What it does not come to is done in the next.
	reapLimit = 30 * time.Second
	// dropAfter is how long counters keep a closed epoch: a process that was only
	// paused may charge it once more before it learns that it is closed.
	dropAfter = time.Minute
	// listEvery is how many rounds pass between looks at what the counters hold.
	listEvery = 5
)

// reaper sees to the epochs of dead processes: it closes them and, where counters
// hold what a process had not flushed, copies it into the records. Each step can
// be repeated and is found undone by whoever comes next:
//
//	close   the process, if it lives after all, begins another epoch
//	copy    totals are absolute: the larger stays
//	drop    after a while and one more copy, the counters forget the epoch
//	mark    the records note it; only now may the epoch be compacted
//
// Counters that come back with older data hold epochs again that they had
// forgotten, and so do those that a process charges after a long pause: they are
// copied and dropped anew, or only dropped where the records have compacted them.
type reaper struct {
	records Reaper
	usage   UsageStore
	keeper  EpochKeeper // nil: totals are held by their processes alone
	shared  Refiller    // the keeper, as the requests use it
	stats   *Stats
	log     *zap.Logger
	// copied are the closed epochs that this process has copied already.
	copied map[string]struct{}
	// listed are the epochs that the counters hold and that, told of them, the records
	// took for living.
	listed map[string]struct{}
	rounds int
}

func newReaper(rt *Runtime, counters Engine) *reaper {
	records, ok := rt.usage.(Reaper)
	if !ok {
		return nil
	}
	keeper, _ := counters.(EpochKeeper)
	return &reaper{
		records: records, usage: rt.usage, keeper: keeper, shared: rt.engine, stats: rt.Stats, log: rt.log,
		copied: map[string]struct{}{}, listed: map[string]struct{}{},
	}
}

func (r *reaper) run(ctx context.Context) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := r.round(ctx); err != nil && ctx.Err() == nil {
				r.stats.fault("records", err)
				r.log.Error("seeing to epochs of dead processes failed; it is tried again", zap.Error(err))
			}
		}
	}
}

// round is one turn. An epoch that fails does not keep the others.
func (r *reaper) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reapLimit)
	defer cancel()
	closed, kept, err := r.records.Reap(ctx, r.keeper != nil)
	if err != nil {
		return err
	}
	r.stats.EpochsReaped.Add(int64(closed))
	var errs []error
	if r.rounds++; r.rounds%listEvery == 1 {
		errs = append(errs, r.tell(ctx))
	}
	r.forget(kept)
	for _, e := range kept {
		if err := r.see(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("epoch %s: %w", e.Epoch, err))
		}
	}
	return errors.Join(errs...)
}

// forget drops what is known of epochs that somebody else has dropped. What is
// forgotten too early is copied once more, which does no harm.
func (r *reaper) forget(kept []quota.ClosedEpoch) {
	maps.DeleteFunc(r.copied, func(epoch string, _ struct{}) bool {
		return !slices.ContainsFunc(kept, func(e quota.ClosedEpoch) bool { return e.Epoch == epoch })
	})
}

// tell tells the records of epochs that the counters hold. Those of which they
// have not heard begin to be waited for; of others that live it is one more
// heartbeat, once. Closed ones are told as long as they are there: where one was
// dropped, the counters have older data than they had, and all usage is loaded anew.
func (r *reaper) tell(ctx context.Context) error {
	lister, ok := r.keeper.(EpochLister)
	if !ok {
		return nil
	}
	epochs, err := lister.Epochs(ctx)
	if err != nil {
		return fmt.Errorf("listing the epochs that the counters hold: %w", err)
	}
	living := make(map[string]struct{}, len(epochs))
	older := false
	var errs []error
	for _, epoch := range epochs {
		if _, told := r.listed[epoch]; !told {
			err := r.usage.Flush(ctx, quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch, Kept: true}})
			if closed := (*quota.EpochClosedError)(nil); errors.As(err, &closed) {
				var again bool
				again, err = r.found(ctx, epoch)
				older = older || again
				if err == nil {
					continue
				}
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("telling of epoch %s: %w", epoch, err))
				continue
			}
		}
		living[epoch] = struct{}{}
	}
	r.listed = living
	if older {
		errs = append(errs, r.shared.Forget(ctx, quota.AllSubjects))
	}
	return errors.Join(errs...)
}

// found sees to a closed epoch that the counters hold. again: they had forgotten it.
func (r *reaper) found(ctx context.Context, epoch string) (again bool, err error) {
	again, err = r.records.Found(ctx, epoch)
	if compacted := (*quota.EpochCompactedError)(nil); errors.As(err, &compacted) {
		return true, r.keeper.DropEpoch(ctx, epoch)
	}
	return again, err
}

func (r *reaper) see(ctx context.Context, e quota.ClosedEpoch) error {
	_, copied := r.copied[e.Epoch]
	if copied && e.For < dropAfter {
		return nil
	}
	if err := r.copy(ctx, e.Epoch); err != nil {
		return err
	}
	if !copied {
		r.copied[e.Epoch] = struct{}{}
		r.stats.EpochsCopied.Add(1)
	}
	if e.For < dropAfter {
		return nil
	}
	if err := r.keeper.DropEpoch(ctx, e.Epoch); err != nil {
		return fmt.Errorf("dropping it from the counters: %w", err)
	}
	delete(r.listed, e.Epoch) // if it is there again, the records are to be told
	return r.records.Dropped(ctx, e.Epoch)
}

// copy writes what the counters hold of a closed epoch into the records, as its
// process would have done.
func (r *reaper) copy(ctx context.Context, epoch string) error {
	rows, err := r.keeper.EpochTotals(ctx, epoch)
	if err != nil {
		return fmt.Errorf("asking the counters for its totals: %w", err)
	}
	return r.usage.Flush(ctx, quota.Flush{EpochTotals: quota.EpochTotals{Epoch: epoch, Rows: rows, Final: true, Kept: true}})
}
