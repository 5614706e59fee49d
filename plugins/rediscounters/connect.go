package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The client's own log goes to standard error, line by line for each connection.
// What of it matters comes as errors.
func init() { logging.Disable() }

// How connections are kept. A connection whose server is silent outlives the
// calls that gave up on it: an answer that comes late still settles nothing, but
// the next call need not dial. Whoever waits always gives up before its connection
// does, and so can tell silence from an answer.
const (
	dialTimeout = time.Second
	silence     = time.Second
	slowTimeout = 5 * time.Second
	// poolSize is no number of connections: requests share one, and few others ask
	// at once. After as many failed attempts to connect the client waits for a
	// second before each, whoever asks, which would keep an outage from being over.
	poolSize = 4096
)

// base are the options of all clients. Nothing is ever sent again by the client:
// it does not know whether it ran.
func base(o *Options, timeout time.Duration) (*redis.UniversalOptions, error) {
	a := &o.Address
	config, err := a.TLS.config()
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		Addrs:      slices.Clone(a.Hosts), // the client of a Cluster appends to it
		MasterName: a.Master, DB: a.DB,
		Username: a.Username, Password: a.Password,
		SentinelUsername: a.SentinelUsername, SentinelPassword: a.SentinelPassword,
		TLSConfig: config, Protocol: 2, DisableIdentity: true,
		MaxRetries: -1, MaxRedirects: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: dialTimeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		PoolSize: poolSize, PipelinePoolSize: poolSize,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}

// connect makes the clients; nothing is dialled.
func connect(o *Options) (topology, error) {
	fast, err := base(o, max(silence, 2*o.Timeout))
	if err != nil {
		return nil, err
	}
	if o.sharing == gathers {
		fast.Dialer = gatheringDialer(fast.TLSConfig)
	}
	slow, err := base(o, max(slowTimeout, 2*o.Timeout))
	if err != nil {
		return nil, err
	}
	switch o.Address.Kind {
	case KindCluster:
		return newCluster(o, fast.Cluster(), slow.Cluster())
	case KindSentinel:
		return newSingle(o, redis.NewFailoverClient(fast.Failover()), redis.NewFailoverClient(slow.Failover()))
	case KindSingle, KindTLS, KindSocket:
		f, s := fast.Simple(), slow.Simple()
		if o.Address.Kind == KindSocket {
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
