package rediscounters

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// slowConn writes one piece at a time, when it is let.
type slowConn struct {
	net.Conn
	let    chan error // what the next write answers
	wrote  chan []byte
	closed sync.Once
	done   chan struct{}
}

func newSlowConn() *slowConn {
	return &slowConn{let: make(chan error), wrote: make(chan []byte, 100), done: make(chan struct{})}
}

func (c *slowConn) Write(b []byte) (int, error) {
	if err := <-c.let; err != nil {
		return 0, err
	}
	c.wrote <- bytes.Clone(b)
	return len(b), nil
}

func (c *slowConn) Close() error {
	c.closed.Do(func() { close(c.done) })
	return nil
}

// What is written while a write is under way goes out with the next, in order.
func TestGathering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newSlowConn()
		g := gather(c)
		say := func(text string) {
			t.Helper()
			if n, err := g.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatal(n, err)
			}
		}
		say("1")
		synctest.Wait() // it is being written
		for i := range 10 {
			say(fmt.Sprint(i))
		}
		c.let <- nil
		c.let <- nil
		if first, rest := string(<-c.wrote), string(<-c.wrote); first != "1" || rest != "0123456789" {
			t.Errorf("written %q, then %q", first, rest)
		}
		synctest.Wait()
		if len(c.wrote) > 0 {
			t.Errorf("then also %q", <-c.wrote)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if _, err := g.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A writer that is far ahead waits, until there is room or the connection ends.
func TestGatheringIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newSlowConn()
		g := gather(c)
		var mu sync.Mutex
		written := 0
		var failed error
		go func() {
			for {
				n, err := g.Write(make([]byte, 1<<10))
				mu.Lock()
				written, failed = written+n, err
				mu.Unlock()
				if err != nil {
					return
				}
			}
		}()
		ahead := func() int {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return written
		}
		first := ahead()
		if first < maxGathered || first > 2*maxGathered+(4<<10) {
			t.Fatalf("%d bytes are ahead, want about %d", first, maxGathered)
		}
		c.let <- nil
		if more := ahead(); more <= first {
			t.Errorf("%d bytes before a write, %d after it", first, more)
		}
		broken := errors.New("broken")
		c.let <- broken // a write fails: the connection is closed, and so is every write after it
		ahead()
		if <-c.done; !errors.Is(failed, broken) {
			t.Errorf("a writer is told %v", failed)
		}
	})
}
