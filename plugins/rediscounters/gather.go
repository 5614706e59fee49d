package rediscounters

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"syscall"

	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"github.com/redis/go-redis/v9"
)

// maxGathered is how much may wait to be written; beyond it writers wait.
const maxGathered = 256 << 10

// gathering is a connection that writes what several have to say at once. Each
// write of few bytes costs more than all else that a call does, at both ends. So a
// write is put off until the goroutines that are ready to run have run: those of
// other requests, while the process is busy, and none while it is not.
type gathering struct {
	net.Conn

	mu      sync.Mutex
	changed *sync.Cond
	pending []byte
	err     error // of a write: no other follows it
}

func gather(c net.Conn) *gathering {
	g := &gathering{Conn: c}
	g.changed = sync.NewCond(&g.mu)
	go g.flush()
	return g
}

// Write implements net.Conn. An error is that of an earlier one.
func (g *gathering) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.pending) > maxGathered {
		g.changed.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.pending = append(g.pending, b...); len(g.pending) == len(b) {
		g.changed.Broadcast()
	}
	return len(b), nil
}

// flush writes until the connection is closed.
func (g *gathering) flush() {
	var spare []byte
	for {
		g.mu.Lock()
		for len(g.pending) == 0 && g.err == nil {
			g.changed.Wait()
		}
		g.mu.Unlock()
		runtime.Gosched()
		g.mu.Lock()
		b, err := g.pending, g.err
		g.pending = spare[:0]
		g.changed.Broadcast()
		g.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := g.Conn.Write(b); err != nil {
			g.fail(err)
			_ = g.Conn.Close() // whoever reads answers learns of it
			return
		}
		spare = b
	}
}

func (g *gathering) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.changed.Broadcast()
}

// Close implements net.Conn.
func (g *gathering) Close() error {
	g.fail(net.ErrClosed)
	return g.Conn.Close()
}

// SyscallConn implements syscall.Conn: the client looks whether an idle connection lives.
func (g *gathering) SyscallConn() (syscall.RawConn, error) {
	if c, ok := g.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, syscall.EINVAL
}

// gatheringDialer dials as the client does by itself.
func gatheringDialer(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{DialTimeout: address.DialTimeout, TLSConfig: config})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return gather(c), nil
	}
}
