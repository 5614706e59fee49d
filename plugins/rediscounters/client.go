package rediscounters

import (
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Client is a client of the servers at the address, for keys that are not the
// counters': calls take at most the timeout and are never sent again. Nothing is
// dialled yet. Whoever asks for it closes it.
func (a Address) Client(timeout time.Duration) (redis.UniversalClient, error) {
	o, err := base(&Options{Address: a}, timeout)
	if err != nil {
		return nil, err
	}
	o.PoolTimeout = timeout
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
