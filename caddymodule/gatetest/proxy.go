package gatetest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands before a server of a test and fails as networks and servers do.
type Proxy struct {
	target string
	addr   string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
	hang     chan struct{} // closed: bytes pass
	delay    time.Duration
	opened   int
	all      sync.WaitGroup
}

// NewProxy starts a proxy before target that lasts as long as the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, addr: "127.0.0.1:0", conns: map[net.Conn]struct{}{}, hang: make(chan struct{})}
	close(p.hang)
	p.Up(t)
	t.Cleanup(func() {
		p.Resume()
		p.Down(t)
		p.all.Wait()
	})
	return p
}

// Addr is the proxy's host and port, the same whether it is up or down.
func (p *Proxy) Addr() string { return p.addr }

// Up lets clients connect, after Down.
func (p *Proxy) Up(t testing.TB) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", p.addr)
	if err != nil {
		t.Fatalf("starting a proxy: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.addr = l, l.Addr().String()
	p.all.Go(func() { p.accept(l) })
}

// Down cuts every connection and refuses new ones, as a server that was killed.
func (p *Proxy) Down(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("stopping a proxy: %v", err)
	}
	p.cut()
}

// Cut ends every connection; new ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for c := range p.conns {
		_ = c.Close() // its pumps end by that
	}
}

// Hang stops all bytes, and keeps the connections, until Resume.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hang:
		p.hang = make(chan struct{})
	default:
	}
}

// Resume lets bytes pass again.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hang:
	default:
		close(p.hang)
	}
}

// Delay holds up whatever the server answers, from now on.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Opened is how many connections were accepted so far.
func (p *Proxy) Opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	var d net.Dialer
	server, err := d.DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return // the client sees its end
	}
	defer func() { _ = server.Close() }()
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.opened++
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(server, client, false) })
	pumps.Go(func() { p.pump(client, server, true) })
	pumps.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// pump copies one direction until either end is gone, which ends both.
func (p *Proxy) pump(to, from net.Conn, answers bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		hang, delay := p.hang, p.delay
		p.mu.Unlock()
		<-hang
		if answers && delay > 0 {
			time.Sleep(delay)
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
