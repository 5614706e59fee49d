package jwtverifier

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"pgregory.net/rapid"
)

// synctestRun runs f with a clock of its own.
func synctestRun(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func TestCacheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const entries, bytes = 4 * cacheShards, cacheShards * 5 * entryOverhead
		c := newCache(entries, bytes)
		now := time.Now()
		type put struct {
			token string
			epoch uint64
		}
		type kept struct {
			p     *quota.Principal
			until time.Time
		}
		last := map[put]kept{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			// All of one shard, so that it fills.
			token := strings.Repeat("t", rapid.IntRange(0, 3).Draw(t, "pad")) +
				string(rune('a'+rapid.IntRange(0, 9).Draw(t, "id"))) + strings.Repeat("x", 16)
			until := now.Add(time.Duration(rapid.IntRange(-1, 2).Draw(t, "ttl")) * time.Hour)
			key := put{token, uint64(rapid.IntRange(0, 2).Draw(t, "epoch"))}
			if rapid.Bool().Draw(t, "put") {
				last[key] = kept{&quota.Principal{}, until}
				c.put(token, key.epoch, until, last[key].p)
				continue
			}
			got, want := c.get(token, key.epoch, now), last[key]
			if got != nil && (got != want.p || !now.Before(want.until)) {
				t.Fatalf("got %p for %v, want %v", got, key, want)
			}
		}
		for i := range c.shards {
			s := &c.shards[i]
			size := 0
			for slot, e := range s.ring {
				size += len(e.token) + entryOverhead
				if e.slot != slot || s.byID[e.token] != e {
					t.Fatalf("entry %q at %d does not know where it is", e.token, slot)
				}
			}
			if len(s.ring) > c.entries || size > c.bytes || size != s.bytes || len(s.byID) != len(s.ring) {
				t.Fatalf("%d entries of %d bytes (%d said, %d by token)", len(s.ring), size, s.bytes, len(s.byID))
			}
		}
	})
}

func TestCacheBounds(t *testing.T) {
	t.Parallel()
	p := &quota.Principal{}
	later := time.Now().Add(time.Hour)
	small := newCache(cacheEntries, cacheBytes)
	for i := range 3 * cacheEntries {
		small.put(fmt.Sprintf("token-%016d", i), 0, later, p)
	}
	if n := small.len(); n > cacheEntries || n < cacheEntries*9/10 {
		t.Errorf("%d entries", n)
	}
	large := newCache(cacheEntries, cacheBytes)
	for i := range 5000 {
		large.put(strings.Repeat("x", maxToken)+fmt.Sprintf("%016d", i), 0, later, p)
	}
	if n := large.len() * maxToken; n > cacheBytes || n < cacheBytes*3/4 {
		t.Errorf("%d bytes", n)
	}
	tiny := newCache(1, 1)
	tiny.put("token", 0, later, p)
	if tiny.len() != 0 {
		t.Error("kept what is larger than the bound")
	}
}

// What is used stays while what is not used goes.
func TestCacheSecondChance(t *testing.T) {
	t.Parallel()
	c := newCache(8*cacheShards, cacheBytes)
	later := time.Now().Add(time.Hour)
	const hot = "the hot token..."
	c.put(hot, 0, later, &quota.Principal{})
	for i := range 20 * 8 * cacheShards {
		if c.get(hot, 0, time.Now()) == nil {
			t.Fatalf("evicted after %d others", i)
		}
		c.put(fmt.Sprintf("%016d", i), 0, later, &quota.Principal{})
	}
}

// Tokens that end alike or begin alike are different tokens.
func TestNoCollision(t *testing.T) {
	t.Parallel()
	v := hmac(t)
	tokens := map[string]string{}
	for i := range 500 {
		user := fmt.Sprintf("u%d", i)
		tokens[user] = signed(map[string]any{"sub": user})
	}
	for range 2 {
		for user, token := range tokens {
			accept(t, v, token, user)
		}
	}
	// A token of the cache with another payload is not verified by it.
	a, b := strings.Split(tokens["u1"], "."), strings.Split(tokens["u2"], ".")
	_, err := bearer(t, v, a[0]+"."+b[1]+"."+a[2])
	refuse(t, err, "signature")
}

func TestConcurrentVerify(t *testing.T) {
	t.Parallel()
	v := hmac(t)
	tokens := make([]string, 20)
	for i := range tokens {
		tokens[i] = gatetest.HS256(testSecret, claims(map[string]any{"sub": i}))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i, token := range tokens {
				accept(t, v, token, fmt.Sprint(i))
			}
		})
	}
	wg.Wait()
}
