package gatetest_test

import (
	"net"
	"testing"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// A reserved port is given to no other reservation, listener or client, and can be
// listened on by whoever has it, again and again.
func TestFreeAddrIsOnesOwn(t *testing.T) {
	t.Parallel()
	const n = 500
	reserved := map[string]bool{}
	for range n {
		reserved[gatetest.FreeAddr(t)] = true
	}
	if len(reserved) != n {
		t.Errorf("%d reservations are of %d ports", n, len(reserved))
	}
	listen := func(address string) net.Listener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for range 20_000 { // of 28,000 that the kernel chooses from
		l := listen("127.0.0.1:0")
		if reserved[l.Addr().String()] {
			t.Errorf("%s was given to a listener", l.Addr())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for own := range reserved {
		for range 2 {
			l := listen(own)
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", own)
			if err != nil {
				t.Fatal(err)
			}
			if reserved[conn.LocalAddr().String()] {
				t.Errorf("%s was given to a client", conn.LocalAddr())
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
