package rediscounters

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/redis/go-redis/v9"
)

// pooled is one server, asked as a client without pipelines does: each call has a
// connection of its own while it lasts.
type pooled struct{ single }

func (p *pooled) run(_ int, c *call) (bool, error) {
	for _, source := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(context.Background(), p.o.Timeout)
		err := p.slow.Process(ctx, c.command(source))
		cancel()
		if err != nil {
			return false, faultOf(err)
		}
		if err := answered(c.out.b); kindOf(err) != "noscript" {
			return true, err
		}
	}
	return true, nil
}

// far is the address of a server that is half a round trip away, both ways.
func far(b *testing.B, target string, half time.Duration) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	b.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { carry(server, client, half) })
			all.Go(func() { carry(client, server, half) })
		}
	})
	return l.Addr().String()
}

// carry copies one direction; each piece arrives a while after it was sent, and
// holds up none that follows.
func carry(to, from net.Conn, after time.Duration) {
	type piece struct {
		at   time.Time
		data []byte
	}
	sent := make(chan piece, 1024)
	go func() {
		defer close(sent)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				sent <- piece{time.Now().Add(after), b[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range sent {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	for range sent { // until the reader has ended
	}
}

// BenchmarkTransport compares the ways in which the calls of concurrent requests
// can share connections, on this machine and a round trip away: the time of a
// call, the processor time of this process, which is also the benchmark's own, and
// that of Redis.
func BenchmarkTransport(b *testing.B) {
	for _, trip := range []time.Duration{0, 4 * time.Millisecond} {
		for _, pause := range []time.Duration{0, 20 * time.Millisecond} {
			for _, way := range []string{"gathering", "full-duplex", "half-duplex", "pooled"} {
				b.Run(fmt.Sprintf("trip=%s/pause=%s/%s", trip, pause, way), func(b *testing.B) { benchTransport(b, way, trip, pause) })
			}
		}
	}
}

// benchTransport lets callers call one after the other, with pauses up to twice
// as long as pause between calls: without any, those who wait for the same answers
// call again at the same time.
func benchTransport(b *testing.B, way string, trip, pause time.Duration) {
	const callers = 64
	s := gatetest.Redis(b)
	addr := s.Addr()
	if trip > 0 {
		addr = far(b, addr, trip/2)
	}
	o := options(b, "redis://"+addr)
	o.sharing = map[string]sharing{"full-duplex": streams, "half-duplex": batches}[way]
	e := openTest(b, o)
	if way == "pooled" {
		config, err := o.Address.Options(o.Timeout)
		if err != nil {
			b.Fatal(err)
		}
		config.PoolSize = callers
		p := &pooled{single{slow: redis.NewClient(config.Simple()), o: &o}}
		b.Cleanup(func() { _ = p.slow.Close() })
		kept := e.servers
		e.servers = p
		b.Cleanup(func() { e.servers = kept })
	}
	took := make([][]time.Duration, callers)
	perform := func(n int) error {
		errs := make([]error, callers)
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				cs := benchCharges(i)
				var d quota.Decision
				for range n {
					begun := time.Now()
					if err := e.Reserve(b.Context(), cs, &d); err != nil {
						errs[i] = err
						return
					}
					took[i] = append(took[i], time.Since(begun))
					if pause > 0 {
						time.Sleep(rand.N(2 * pause))
					}
				}
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}
	if err := perform(20); err != nil { // connects, and loads the script
		b.Fatal(err)
	}
	clear(took)
	redisBefore, ownBefore := cpuSeconds(b, s), ownCPU(b)
	b.ResetTimer()
	if err := perform(max(1, b.N/callers)); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric((ownCPU(b)-ownBefore)*1e6/float64(len(all)), "own-µs/op")
	b.ReportMetric((cpuSeconds(b, s)-redisBefore)*1e6/float64(len(all)), "redis-µs/op")
}

// ownCPU is the processor time of this process, in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
