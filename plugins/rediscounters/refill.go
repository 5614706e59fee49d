package rediscounters

import (
	"context"
	"fmt"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Fill sets what was used of cold counters: the base, and what the epochs of the
// bucket hold at this moment, or the records, where that is more. A base is ignored, and its counter stays cold, if
// since the reservation that asked for it an epoch began or ended in the bucket,
// the account was forgotten, or Redis lost its data.
func (e *Engine) Fill(ctx context.Context, bs []quota.Base) error {
	if err := e.ready(ctx); err != nil {
		return fmt.Errorf("filling counters: %w", err)
	}
	for i := range bs {
		if bs[i].Key.Space != quota.SpaceUsage {
			return fmt.Errorf("filling counters: %q is a rate: it has no base", bs[i].Key.Name)
		}
	}
	for len(bs) > 0 {
		n := 1
		for n < len(bs) && bs[n].Key.Digest == bs[0].Key.Digest && bs[n].Generation == bs[0].Generation {
			n++
		}
		if err := e.fill(bs[:n]); err != nil {
			return fmt.Errorf("filling counters: %w", err)
		}
		bs = bs[n:]
	}
	return nil
}

// fill fills counters of one account.
func (e *Engine) fill(bs []quota.Base) error {
	digest := bs[0].Key.Digest
	bucket := bucketOf(digest)
	epochs, ok := e.registries[bucket].of(bs[0].Generation)
	if !ok {
		return nil
	}
	for i := range bs {
		if n := len(bs[i].Recorded); n != 0 && n != len(epochs) {
			return fmt.Errorf("%d totals of %d epochs", n, len(epochs))
		}
	}
	c := newCall(e.scripts.fill)
	c.addMetaKey(e.prefix, bucket)
	c.addKey(e.prefix, kindUsage, digest, digest)
	c.int(int64(bs[0].Generation))
	c.bytes(digest[:])
	c.string(string(accountOf(bs)))
	c.int(int64(len(epochs)))
	for _, epoch := range epochs {
		c.addEpochKey(e.prefix, bucket, epoch)
		c.string(epoch)
	}
	c.int(int64(len(bs)))
	for i := range bs {
		c.field(&bs[i].Key)
		c.int(bs[i].Used)
		for j := range epochs {
			var t quota.Total
			if len(bs[i].Recorded) > 0 {
				t = bs[i].Recorded[j]
			}
			c.int(t.Spent)
			c.int(t.Refunded)
			c.int(t.End)
		}
	}
	kept, err := e.runIn(bucket, c)
	if kept {
		c.release()
	}
	return err
}

// accountOf is whose counters these are; empty if the records have nothing of the
// epochs.
func accountOf(bs []quota.Base) quota.Subject {
	for i := range bs {
		for j := range bs[i].Recorded {
			if account := bs[i].Recorded[j].Account; account != "" {
				return account
			}
		}
	}
	return ""
}

// Forget makes the usage of an account cold, and loads of it that are under way
// void; what a rate limit refused it is asked again. AllSubjects stands for
// every account. It may be repeated.
func (e *Engine) Forget(ctx context.Context, account quota.Subject) error {
	if account == quota.AllSubjects {
		e.denials.clear()
		if err := e.forgetAll(ctx); err != nil {
			return fmt.Errorf("forgetting all usage: %w", err)
		}
		return nil
	}
	digest := account.Digest()
	e.denials.drop(digest)
	if err := e.forget(ctx, digest); err != nil {
		return fmt.Errorf("forgetting usage: %w", err)
	}
	return nil
}

func (e *Engine) forget(ctx context.Context, digest quota.Digest) error {
	if err := e.ready(ctx); err != nil {
		return err
	}
	c := newCall(e.scripts.forget)
	c.addMetaKey(e.prefix, bucketOf(digest))
	c.addKey(e.prefix, kindUsage, digest, digest)
	kept, err := e.runIn(bucketOf(digest), c)
	if kept {
		c.release()
	}
	return err
}

func (e *Engine) forgetAll(ctx context.Context) error {
	return e.inBuckets(ctx, everyBucket(), func(bucket int) error {
		var epochs []string
		for {
			others, err := e.forgetBucket(bucket, epochs)
			if err != nil || len(others) == 0 {
				return err
			}
			epochs = others
		}
	})
}

// forgetBucket makes all usage of a bucket cold. Its epochs must be named: if
// there are others than those given, it does nothing and answers them.
func (e *Engine) forgetBucket(bucket int, epochs []string) (others []string, err error) {
	c := newCall(e.scripts.forget)
	c.addMetaKey(e.prefix, bucket)
	c.rest = append(c.rest, "1")
	for _, epoch := range epochs {
		c.addEpochKey(e.prefix, bucket, epoch)
		c.rest = append(c.rest, epoch)
	}
	kept, err := e.runIn(bucket, c)
	if err == nil {
		others, err = readList(c.out.b)
	}
	if kept {
		c.release()
	}
	return others, err
}

// readList reads {1}, or {0, strings...}.
func readList(raw []byte) ([]string, error) {
	in, err := openReply(raw)
	if err != nil {
		return nil, err
	}
	if _, err = in.int(); err != nil {
		return nil, err
	}
	var list []string
	for in.n > 0 {
		s, err := in.string()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// Reset empties the rate windows of a subject, all or the named scopes, and
// reports the scopes that were not empty, sorted.
func (e *Engine) Reset(ctx context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	digest := subject.Digest()
	e.denials.drop(digest)
	if err := e.ready(ctx); err != nil {
		return nil, fmt.Errorf("resetting rate windows: %w", err)
	}
	c := newCall(e.scripts.reset)
	c.addKey(e.prefix, kindRates, digest, digest)
	c.rest = append(c.rest, scopes...)
	kept, err := e.runIn(bucketOf(digest), c)
	var emptied []string
	if err == nil {
		in, failed := openReply(c.out.b)
		for err = failed; err == nil && in.n > 0; {
			var scope string
			if scope, err = in.string(); err == nil {
				emptied = append(emptied, scope)
			}
		}
	}
	if kept {
		c.release()
	}
	if err != nil {
		return nil, fmt.Errorf("resetting rate windows: %w", err)
	}
	slices.Sort(emptied)
	e.denials.drop(digest) // a refusal that was on its way while the windows were emptied
	return emptied, nil
}
