package address

import (
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

// DialTimeout bounds the making of a connection.
const DialTimeout = time.Second

// poolSize is no number of connections: requests share one, and few others ask
// at once. After as many failed attempts to connect the client waits for a
// second before each, whoever asks, which would keep an outage from being over.
const poolSize = 4096

// Options are those of all clients of the address; a connection is given up when
// it was silent for the timeout. Nothing is ever sent again by the client: it
// does not know whether it ran.
func (a *Redis) Options(timeout time.Duration) (*redis.UniversalOptions, error) {
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
		DialTimeout: DialTimeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		PoolSize: poolSize, PipelinePoolSize: poolSize,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}

// Client is a client of the servers at the address: calls take at most the
// timeout and are never sent again. Nothing is dialled yet. Whoever asks for it
// closes it.
func (a *Redis) Client(timeout time.Duration) (redis.UniversalClient, error) {
	o, err := a.Options(timeout)
	if err != nil {
		return nil, err
	}
	switch a.Kind {
	case KindCluster:
		return redis.NewClusterClient(o.Cluster()), nil
	case KindSentinel:
		return redis.NewFailoverClient(o.Failover()), nil
	case KindSingle, KindTLS, KindSocket:
		simple := o.Simple()
		if a.Kind == KindSocket {
			simple.Network = "unix"
		}
		return redis.NewClient(simple), nil
	}
	return nil, fmt.Errorf("unknown kind of address %q", a.Kind)
}
