package gatetest

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// FreeAddr is an address of the loopback interface for a server that the test
// starts, as often as it likes: its port is nobody else's until the test ends.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, release, err := reservePort()
	if err != nil {
		t.Fatalf("reserving a port: %v", err)
	}
	t.Cleanup(release)
	return net.JoinHostPort("127.0.0.1", port)
}

// freePort is the port of a FreeAddr.
func freePort(t testing.TB) string {
	t.Helper()
	_, port, err := net.SplitHostPort(FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// reservePort reserves a port until it is released: a socket is bound to it and
// does not listen. The kernel gives such a port to nobody who asks for any, and
// still lets a server that names it listen, as all do that can be started again
// at once (SO_REUSEADDR) or share ports (SO_REUSEPORT, the same user only).
// A port that was merely free a moment ago may be somebody else's by the time the
// server has started, or, where both share ports, be answered by either.
func reservePort() (port string, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("making a socket: %w", err)
	}
	release = func() { _ = unix.Close(fd) } // it holds no data
	defer func() {
		if err != nil {
			release()
		}
	}()
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return "", nil, fmt.Errorf("setting an option of a socket: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", nil, fmt.Errorf("binding a socket: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", nil, fmt.Errorf("asking for a socket's name: %w", err)
	}
	bound, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return "", nil, fmt.Errorf("the socket's name is a %T", name)
	}
	return strconv.Itoa(bound.Port), release, nil
}
