package rediscounters

import (
	"context"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/redis/go-redis/v9"
)

// topology is how the servers stand that the keys are on.
type topology interface {
	// run runs the call's script where the bucket is. kept reports that nothing
	// holds the call's memory any more; an error is a *gate.CounterError.
	run(bucket int, c *call) (kept bool, err error)
	// parts divides charges into those of one slot each, in file order; nil: all
	// are on one server.
	parts(cs []quota.Charge) [][]int32
	// masters calls f for each server that may be written to, at once.
	masters(ctx context.Context, f func(ctx context.Context, c *redis.Client) error) error
	// clientOf is the client of the server that the bucket is on, for work that
	// nobody waits for.
	clientOf(ctx context.Context, bucket int) (*redis.Client, error)
	// probe writes on each server, within the time of one call.
	probe(ctx context.Context, prefix string) error
	close() error
}

// runIn runs a call in a bucket, and gives its memory back on no path: the
// caller reads the answer first.
func (e *Engine) runIn(bucket int, c *call) (kept bool, err error) {
	kept, err = e.servers.run(bucket, c)
	if err != nil {
		e.health.failed(err)
	}
	return kept, err
}

// single is one server, or the master that Sentinels name.
type single struct {
	server *server
	// slow is the same server with time for what nobody waits for.
	slow *redis.Client
	o    *Options
}

func (s *single) run(_ int, c *call) (bool, error) { return s.server.run(c, s.o.Timeout) }

func (s *single) parts([]quota.Charge) [][]int32 { return nil }

func (s *single) masters(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	if err := f(ctx, s.slow); err != nil {
		return faultOf(err)
	}
	return nil
}

func (s *single) clientOf(context.Context, int) (*redis.Client, error) { return s.slow, nil }

func (s *single) probe(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if err := write(ctx, s.slow, string(append(appendTag(nil, prefix, 0), kindProbe...))); err != nil {
		return faultOf(err)
	}
	return nil
}

func (s *single) close() error { return closeAll(s.server.client, s.slow) }
