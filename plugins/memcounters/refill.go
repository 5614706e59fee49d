package memcounters

import (
	"context"
	"fmt"
	"slices"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// coldError says how the cold counters are to be loaded. The shards of the
// counters are locked.
func (e *Engine) coldError(indices []int, key func(i int) quota.Key) *quota.ColdError {
	cold := &quota.ColdError{
		Charges: indices, Carry: make([]int64, len(indices)),
		Except: append(slices.Clone(e.retiring), e.current), Generation: e.generation.Load(),
	}
	for n, i := range indices {
		k := key(i)
		cold.Carry[n] = e.shard(k.Digest).carry(k)
	}
	return cold
}

// Fill sets what was used of cold counters. A base is ignored, and its counter
// stays cold, if an epoch ended or the account was forgotten since the
// reservation that asked for it.
func (e *Engine) Fill(_ context.Context, bs []quota.Base) error {
	for i := range bs {
		if err := e.fill(&bs[i]); err != nil {
			return fmt.Errorf("filling counters: %w", err)
		}
	}
	return nil
}

func (e *Engine) fill(b *quota.Base) error {
	if b.Key.Space != quota.SpaceUsage {
		return fmt.Errorf("%q is a rate: it has no base", b.Key.Name)
	}
	s := e.shard(b.Key.Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	if b.Generation < s.minGen {
		return nil
	}
	u := s.counter(b.Key, "", 0)
	if !u.warm {
		u.used, u.warm = max(0, b.Used+u.net()), true
	}
	return nil
}

// Forget makes the usage of an account cold, and loads of it that are under way
// void. AllSubjects stands for every account.
func (e *Engine) Forget(_ context.Context, account quota.Subject) error {
	first, last := 0, shards-1
	all := account == quota.AllSubjects
	digest := account.Digest()
	if !all {
		first = shardIndex(digest)
		last = first
	}
	for i := first; i <= last; i++ {
		if err := e.forget(&e.shards[i], digest, all); err != nil {
			return fmt.Errorf("forgetting usage: %w", err)
		}
	}
	return nil
}

func (e *Engine) forget(s *shard, digest quota.Digest, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	s.minGen = e.generation.Add(1)
	for k, u := range s.usage {
		if all || k.Digest == digest {
			u.used, u.warm = 0, false
		}
	}
	return nil
}

// Reset empties the rate windows of a subject, all or the named scopes, and
// reports the scopes that were not empty, sorted.
func (e *Engine) Reset(_ context.Context, subject quota.Subject, scopes []string) ([]string, error) {
	digest := subject.Digest()
	s := e.shard(digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.closed {
		return nil, fmt.Errorf("resetting rate windows: %w", ErrClosed)
	}
	now := e.now().UnixMilli()
	var emptied []string
	s.log.begin()
	for k, w := range s.windows {
		if k.digest != digest || (len(scopes) > 0 && !slices.Contains(scopes, k.scope)) {
			continue
		}
		if w.Width() != 0 && w.Sum(now, w.Width()) > 0 {
			emptied = append(emptied, k.scope)
		}
		delete(s.windows, k)
		s.log.frame = appendReset(s.log.frame, k)
	}
	s.log.commit()
	slices.Sort(emptied)
	return emptied, nil
}
