package rediscounters

import (
	"context"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/redis/go-redis/v9"
)

// server is one Redis that may be written to. Calls of all requests share a
// connection, on which none waits for the answers to others.
type server struct {
	client *redis.Client
	pipe   *redis.AutoPipeliner
}

// maxInFlight bounds what waits on one connection: beyond it a request waits
// before it sends.
const maxInFlight = 16 << 10

// sharing is how calls share a connection. BenchmarkTransport compares the ways;
// all but the first are for it alone.
type sharing int

const (
	gathers sharing = iota // each call is sent as it comes, with those that come at the same time
	streams                // each call is sent as it comes
	batches                // calls that come while others are unanswered are sent together, after the answers
)

func (s sharing) options() *redis.AutoPipelineOptions {
	o := redis.DefaultAutoPipelineOptions()
	if o.FullDuplex = s != batches; o.FullDuplex {
		o.FullDuplexWindow = maxInFlight
	}
	return o
}

func newServer(c *redis.Client, how sharing) (*server, error) {
	pipe, err := c.AsyncAutoPipelineWithOptions(how.options())
	if err != nil {
		return nil, err
	}
	return &server{client: c, pipe: pipe}, nil
}

// run runs the call's script once. kept reports that nothing holds the call's
// memory any more. An error is a *gate.CounterError.
func (s *server) run(c *call, timeout time.Duration) (kept bool, err error) {
	kept, err = s.send(c, false, timeout)
	if kept && kindOf(err) == gate.FaultNoScript {
		// It certainly did not run, so it may be sent again, with its source.
		kept, err = s.send(c, true, timeout)
	}
	return kept, err
}

func (s *server) send(c *call, source bool, timeout time.Duration) (kept bool, err error) {
	d := startDeadline(timeout)
	defer d.release()
	cmd := c.command(source)
	future := s.pipe.Submit(context.Background(), cmd)
	switch err := future.WaitContext(d); {
	case err == nil:
		return true, answered(c.out.b)
	case d.Err() != nil:
		return false, faultOf(context.DeadlineExceeded)
	default:
		return true, faultOf(err)
	}
}

// ask runs the call's script on a server that a slot is moving to.
func (s *server) ask(c *call, timeout time.Duration) (kept bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	pipe := s.client.Pipeline()
	if err := pipe.Process(ctx, redis.NewStatusCmd(ctx, "asking")); err != nil {
		return true, notRun(err)
	}
	if err := pipe.Process(ctx, c.command(true)); err != nil {
		return true, notRun(err)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return true, faultOf(err)
	}
	return true, answered(c.out.b)
}
