package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// cluster is a Redis Cluster: a bucket is in the slot of its tag, and redirections
// are followed here. The client would send again what may have run.
type cluster struct {
	o          *Options
	fast, slow *redis.ClusterClient

	mu      sync.RWMutex
	servers map[*redis.Client]*server
	// strays are servers that a redirection named and the client does not know yet.
	strays map[string]*server
}

// maxRedirects bounds how often a call is told to go elsewhere.
const maxRedirects = 4

func newCluster(o *Options, fast, slow *redis.ClusterOptions) (topology, error) {
	return &cluster{
		o: o, fast: redis.NewClusterClient(fast), slow: redis.NewClusterClient(slow),
		servers: make(map[*redis.Client]*server), strays: make(map[string]*server),
	}, nil
}

// tag is a key of the bucket, which tells its slot.
func (c *cluster) tag(bucket int) string { return string(appendTag(nil, c.o.Prefix, bucket)) }

func (c *cluster) run(bucket int, call *call) (kept bool, err error) {
	s, err := c.server(bucket)
	if err != nil {
		return true, err
	}
	asking := false
	for range maxRedirects {
		if asking {
			kept, err = s.ask(call, c.o.Timeout)
		} else {
			kept, err = s.run(call, c.o.Timeout)
		}
		kind := kindOf(err)
		if kind != faultMoved && kind != faultAsk {
			return kept, err
		}
		if kind == faultMoved {
			c.fast.ReloadState(context.Background())
			c.slow.ReloadState(context.Background())
		}
		if s, err = c.named(s, err); err != nil {
			return true, err
		}
		asking = kind == faultAsk
	}
	return true, &gate.CounterError{Kind: gate.FaultClusterDown, NotRun: true, Err: fmt.Errorf("redirected %d times: %w", maxRedirects, err)}
}

// server is the master of a bucket, as far as the client knows.
func (c *cluster) server(bucket int) (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	defer cancel()
	client, err := c.fast.MasterForKey(ctx, c.tag(bucket))
	if err != nil {
		return nil, notRun(err)
	}
	c.mu.RLock()
	s := c.servers[client]
	c.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = c.servers[client]; s != nil {
		return s, nil
	}
	if s, err = newServer(client, c.o.sharing); err != nil {
		return nil, notRun(err)
	}
	for old := range c.servers { // servers that have left
		if old.Options().Addr == client.Options().Addr {
			delete(c.servers, old)
		}
	}
	c.servers[client] = s
	return s, nil
}

// notRun is a fault that came before anything was sent.
func notRun(err error) *gate.CounterError {
	f := *faultOf(err)
	f.NotRun = true
	if f.Kind == gate.FaultBroken || f.Kind == gate.FaultTimeout {
		f.Kind = gate.FaultUnreachable
	}
	return &f
}

// named is the server that a redirection names.
func (c *cluster) named(from *server, redirection error) (*server, error) {
	var r *refusal
	if !errors.As(redirection, &r) {
		return nil, redirection
	}
	fields := strings.Fields(r.text) // MOVED slot host:port
	if len(fields) < 3 {
		return nil, redirection
	}
	addr := fields[2]
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "" { // the host that was asked
		if own, _, err := net.SplitHostPort(from.client.Options().Addr); err == nil {
			addr = net.JoinHostPort(own, port)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for client, s := range c.servers {
		if client.Options().Addr == addr {
			return s, nil
		}
	}
	if s := c.strays[addr]; s != nil {
		return s, nil
	}
	o := *from.client.Options()
	o.Addr = addr
	client := redis.NewClient(&o)
	s, err := newServer(client, c.o.sharing)
	if err != nil {
		return nil, errors.Join(notRun(err), client.Close())
	}
	c.strays[addr] = s
	return s, nil
}

// parts divides charges by bucket: nil, if one holds them all.
func (c *cluster) parts(cs []quota.Charge) [][]int32 {
	first := bucketOf(cs[0].Key.Digest)
	several := false
	for i := range cs {
		several = several || bucketOf(cs[i].Key.Digest) != first
	}
	if !several {
		return nil
	}
	var parts [][]int32
	var of []int
	for i := range cs {
		b := bucketOf(cs[i].Key.Digest)
		n := 0
		for n < len(of) && of[n] != b {
			n++
		}
		if n == len(of) {
			of, parts = append(of, b), append(parts, nil)
		}
		parts[n] = append(parts[n], int32(i))
	}
	return parts
}

func (c *cluster) masters(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	if err := c.slow.ForEachMaster(ctx, f); err != nil {
		return faultOf(err)
	}
	return nil
}

func (c *cluster) clientOf(ctx context.Context, bucket int) (*redis.Client, error) {
	client, err := c.slow.MasterForKey(ctx, c.tag(bucket))
	if err != nil {
		return nil, notRun(err)
	}
	return client, nil
}

// probe asks who the masters are, for in an outage another server may have become
// one, and writes to each at once, to a bucket of its own.
func (c *cluster) probe(ctx context.Context, prefix string) error {
	var learning errgroup.Group
	learning.Go(func() error { return c.learn(ctx, c.fast) })
	learning.Go(func() error { return c.learn(ctx, c.slow) })
	if err := learning.Wait(); err != nil {
		return faultOf(err)
	}

	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	writing, ctx := errgroup.WithContext(ctx)
	probed := make(map[*redis.Client]bool)
	for bucket := range buckets {
		client, err := c.slow.MasterForKey(ctx, c.tag(bucket))
		if err != nil {
			writing.Go(func() error { return err })
			break
		}
		if probed[client] {
			continue
		}
		probed[client] = true
		key := string(append(appendTag(nil, prefix, bucket), kindProbe...))
		writing.Go(func() error { return write(ctx, client, key) })
	}
	if err := writing.Wait(); err != nil {
		return faultOf(err)
	}
	return nil
}

// learn lets a client ask who the masters are. It asks any server that it knows: one
// that is silent takes up the time of an attempt, one that is gone none.
func (c *cluster) learn(ctx context.Context, client *redis.ClusterClient) error {
	const attempts = 3
	for range attempts {
		begun := time.Now()
		attempt, cancel := context.WithTimeout(ctx, c.o.Timeout)
		// Who they are is what the client asks before it calls anything for each.
		_ = client.ForEachMaster(attempt, func(context.Context, *redis.Client) error { return nil })
		cancel()
		if time.Since(begun) < c.o.Timeout {
			return nil
		}
	}
	return fmt.Errorf("asking who the masters are: %w", context.DeadlineExceeded)
}

func (c *cluster) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := []error{c.fast.Close(), c.slow.Close()}
	for _, s := range c.strays {
		errs = append(errs, s.client.Close())
	}
	return errors.Join(errs...)
}
