package gatetest

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

type line struct {
	net.Conn
	*bufio.Reader
}

func dial(t *testing.T, addr string) *line {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &line{c, bufio.NewReader(c)}
}

func (l *line) say(t *testing.T, text string) {
	t.Helper()
	if _, err := l.Conn.Write([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
}

func (l *line) hear(t *testing.T, want string, within time.Duration) error {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	got, err := l.ReadString('\n')
	if err == nil && got != want+"\n" {
		t.Fatalf("heard %q, want %q", got, want)
	}
	return err
}

const soon, never = 10 * time.Second, 50 * time.Millisecond

func TestProxy(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echo(t))
	addr := p.Addr()
	l := dial(t, addr)
	l.say(t, "a")
	if err := l.hear(t, "a", soon); err != nil {
		t.Fatal(err)
	}

	p.Delay(t, 100*time.Millisecond)
	began := time.Now()
	for _, text := range []string{"b", "c", "d"} {
		l.say(t, text)
	}
	for _, text := range []string{"b", "c", "d"} {
		if err := l.hear(t, text, soon); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("the answers took %s, want 100ms at the least", took)
	}
	p.Delay(t, 0)

	p.Hang(t)
	l.say(t, "e")
	if err := l.hear(t, "e", never); err == nil {
		t.Error("a proxy that hangs lets bytes pass")
	}
	p.Resume(t)
	if err := l.hear(t, "e", soon); err != nil {
		t.Errorf("what was held up is lost: %v", err)
	}

	p.Down()
	if err := l.hear(t, "", soon); err == nil {
		t.Error("a connection outlives its proxy")
	}
	var d net.Dialer
	if c, err := d.DialContext(t.Context(), "tcp", addr); err == nil {
		_ = c.Close()
		t.Error("a proxy that is down takes connections")
	}
	p.Up(t)
	l = dial(t, addr)
	l.say(t, "f")
	if err := l.hear(t, "f", soon); err != nil || p.Addr() != addr {
		t.Errorf("up again at %s, was at %s: %v", p.Addr(), addr, err)
	}
}
