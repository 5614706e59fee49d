package companion

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"github.com/redis/go-redis/v9"
)

// hostRedisTimeout bounds one call of the backends' own Redis.
const hostRedisTimeout = 2 * time.Second

// openHostRedis makes the client of the backends' own Redis. It dials nothing.
func (a *App) openHostRedis() error {
	url := a.quota.HostRedis
	if url == "" {
		return nil
	}
	at, err := address.Parse(url)
	if err != nil {
		return fmt.Errorf("host_redis: %w", err)
	}
	if a.hostRedis, err = at.Client(hostRedisTimeout); err != nil {
		return fmt.Errorf("host_redis: %w", err)
	}
	return nil
}

// HostKeys removes keys of the backends' own Redis by their names, and answers
// the indices of those that were there; nil where no host_redis is configured.
func (a *App) HostKeys() func(ctx context.Context, keys []string) ([]int, error) {
	if a.hostRedis == nil {
		return nil
	}
	return func(ctx context.Context, keys []string) ([]int, error) {
		pipe := a.hostRedis.Pipeline()
		removed := make([]*redis.IntCmd, len(keys))
		for i, key := range keys {
			removed[i] = pipe.Del(ctx, key) // one by one: in a Cluster they are in different slots
		}
		_, err := pipe.Exec(ctx)
		var there []int
		for i, cmd := range removed {
			if cmd.Err() == nil && cmd.Val() > 0 {
				there = append(there, i)
			}
		}
		if err != nil {
			err = fmt.Errorf("removing keys of the backends' Redis: %w", err)
		}
		return there, err
	}
}

// Cleanup closes what Provision has made.
func (a *App) Cleanup() error {
	if a.hostRedis == nil {
		return nil
	}
	if err := a.hostRedis.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("closing host_redis: %w", err)
	}
	return nil
}
