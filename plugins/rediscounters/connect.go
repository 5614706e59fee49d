package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"github.com/redis/go-redis/v9"
)

// How connections are kept. A connection whose server is silent outlives the
// calls that gave up on it: an answer that comes late still settles nothing, but
// the next call need not dial. Whoever waits always gives up before its connection
// does, and so can tell silence from an answer.
const (
	silence     = time.Second
	slowTimeout = 5 * time.Second
)

// connect makes the clients; nothing is dialled.
func connect(o *Options) (topology, error) {
	fast, err := o.Address.Options(max(silence, 2*o.Timeout))
	if err != nil {
		return nil, err
	}
	if o.sharing == gathers {
		fast.Dialer = gatheringDialer(fast.TLSConfig)
	}
	slow, err := o.Address.Options(max(slowTimeout, 2*o.Timeout))
	if err != nil {
		return nil, err
	}
	switch o.Address.Kind {
	case address.KindCluster:
		return newCluster(o, fast.Cluster(), slow.Cluster())
	case address.KindSentinel:
		return newSingle(o, redis.NewFailoverClient(fast.Failover()), redis.NewFailoverClient(slow.Failover()))
	case address.KindSingle, address.KindTLS, address.KindSocket:
		f, s := fast.Simple(), slow.Simple()
		if o.Address.Kind == address.KindSocket {
			f.Network, s.Network = "unix", "unix"
		}
		return newSingle(o, redis.NewClient(f), redis.NewClient(s))
	}
	return nil, fmt.Errorf("unknown kind of address %q", o.Address.Kind)
}

func newSingle(o *Options, fast, slow *redis.Client) (topology, error) {
	s, err := newServer(fast, o.sharing)
	if err != nil {
		return nil, errors.Join(err, closeAll(fast, slow))
	}
	return &single{server: s, slow: slow, o: o}, nil
}

func closeAll(cs ...*redis.Client) error {
	var errs []error
	for _, c := range cs {
		if err := c.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// write is what a probe does: a write that leaves nothing behind.
func write(ctx context.Context, c *redis.Client, key string) error {
	return c.Set(ctx, key, "1", time.Second).Err()
}
