package rediscounters

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// EpochTotals is all that Redis holds of an epoch, of whatever process. It is
// gate.EpochKeeper's.
func (e *Engine) EpochTotals(ctx context.Context, id string) ([]quota.Total, error) {
	held := make([]*redis.MapStringStringCmd, 0, buckets)
	err := e.eachBucket(ctx, func(p redis.Pipeliner, key []byte) {
		held = append(held, p.HGetAll(ctx, string(append(append(key, kindEpoch...), id...))))
	})
	if err != nil {
		return nil, fmt.Errorf("reading epoch %s from redis: %w", id, err)
	}
	var rows []quota.Total
	for bucket, h := range held {
		for name, value := range h.Val() {
			if len(name) <= digestLength { // a token, a stamp, a lane
				continue
			}
			t, err := readTotal(name, value)
			if err != nil {
				return nil, fmt.Errorf("reading epoch %s from redis: %q in bucket %d: %w", id, name, bucket, err)
			}
			rows = append(rows, t)
		}
	}
	quota.SortTotals(rows)
	return rows, nil
}

// eachBucket asks something of each bucket, in one round trip to each server. ask
// is given the beginning of the bucket's keys.
func (e *Engine) eachBucket(ctx context.Context, ask func(p redis.Pipeliner, key []byte)) error {
	pipes := map[*redis.Client]redis.Pipeliner{}
	for bucket := range buckets {
		c, err := e.servers.clientOf(ctx, bucket)
		if err != nil {
			return err
		}
		if pipes[c] == nil {
			pipes[c] = c.Pipeline()
		}
		ask(pipes[c], appendTag(nil, e.prefix, bucket))
	}
	for _, p := range pipes {
		if _, err := p.Exec(ctx); err != nil {
			return faultOf(err)
		}
	}
	return nil
}

// Epochs are all epochs that Redis holds, of whatever process, sorted. It is
// gate.EpochLister's: a process that died before its first flush is found so.
func (e *Engine) Epochs(ctx context.Context) ([]string, error) {
	listed := make([]*redis.StringSliceCmd, 0, buckets)
	err := e.eachBucket(ctx, func(p redis.Pipeliner, key []byte) {
		listed = append(listed, p.HKeys(ctx, string(append(key, kindMeta...))))
	})
	if err != nil {
		return nil, fmt.Errorf("listing epochs in redis: %w", err)
	}
	epochs := map[string]struct{}{}
	for _, l := range listed {
		for _, field := range l.Val() {
			if len(field) > 1 { // others are the bucket's own, of one letter
				epochs[field] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(epochs)), nil
}

// DropEpoch forgets an epoch that the records hold whole. A process that has it
// still begins another when it next charges something.
func (e *Engine) DropEpoch(ctx context.Context, id string) error {
	err := e.inBuckets(ctx, everyBucket(), func(bucket int) error {
		c := newCall(e.scripts.drop)
		c.addEpochKey(e.prefix, bucket, id)
		c.addMetaKey(e.prefix, bucket)
		c.rest = append(c.rest, id)
		kept, err := e.runIn(bucket, c)
		if kept {
			c.release()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dropping epoch %s: %w", id, err)
	}
	return nil
}

// KeepEpoch puts the totals of an epoch that is not of this engine into Redis, as if
// it had been counted there. It may be repeated.
func (e *Engine) KeepEpoch(ctx context.Context, id string, rows []quota.Total) error {
	byBucket := map[int][]quota.Total{}
	for i := range rows {
		bucket := bucketOf(rows[i].Account.Digest())
		byBucket[bucket] = append(byBucket[bucket], rows[i])
	}
	err := e.inBuckets(ctx, slices.Collect(maps.Keys(byBucket)), func(bucket int) error {
		for part := range slices.Chunk(byBucket[bucket], keepBatch) {
			if err := e.keep(bucket, id, part); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping epoch %s: %w", id, err)
	}
	return nil
}

// keepBatch bounds the rows of one call: a script has all of them on its stack.
const keepBatch = 200

func (e *Engine) keep(bucket int, id string, rows []quota.Total) error {
	c := newCall(e.scripts.keep)
	c.addEpochKey(e.prefix, bucket, id)
	c.addMetaKey(e.prefix, bucket)
	c.string(id)
	for i := range rows {
		r := &rows[i]
		digest := r.Account.Digest()
		c.bytes(appendField(digest[:], r.Metric, periodLetter(r.Period), r.Start))
		c.int(r.Spent)
		c.int(r.Refunded)
		c.int(r.End)
		c.string(string(r.Account))
	}
	kept, err := e.runIn(bucket, c)
	if kept {
		c.release()
	}
	return err
}

// everyBucket is for what concerns all accounts.
func everyBucket() []int {
	all := make([]int, buckets)
	for bucket := range all {
		all[bucket] = bucket
	}
	return all
}

// bucketsAtOnce bounds the calls of inBuckets that requests may have to wait behind.
const bucketsAtOnce = 16

// inBuckets calls f for each of the buckets, several at once: one after the other
// they would take up to 1,024 times as long as the network does. The first error ends it.
func (e *Engine) inBuckets(ctx context.Context, which []int, f func(bucket int) error) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(bucketsAtOnce)
	for _, bucket := range which {
		all.Go(func() error {
			if err := e.ready(ctx); err != nil {
				return err
			}
			return f(bucket)
		})
	}
	return all.Wait()
}
