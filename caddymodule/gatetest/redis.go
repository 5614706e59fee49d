package gatetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a real server with a folder of its own. It can be killed,
// stopped and started again on the same port.
type RedisServer struct {
	host, port string
	dir        string
	args       []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Redis starts a server that keeps nothing on disk and never evicts, and stops
// it when the test ends. More arguments are its own, as on its command line.
// Without Redis on this machine the test is skipped, or fails where
// QUOTA_TEST_REQUIRE is 1.
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	for range 5 {
		s := newRedis(t, args...)
		if err := s.launch(); err != nil {
			t.Fatalf("starting redis: %v", err)
		}
		if s.listens(t) {
			s.Await(t, "PONG", "PING")
			return s
		}
	}
	t.Fatal("starting redis: each port that was free was taken by somebody else")
	return nil
}

// listens waits until this server, and not another, takes connections on its
// port; false if the port was taken since it was looked for.
func (s *RedisServer) listens(t testing.TB) bool {
	t.Helper()
	own := "process_id:" + strconv.Itoa(s.cmd.Process.Pid)
	listening := false
	Await(t, 20*time.Second, func() error {
		select {
		case <-s.done:
			if !strings.Contains(s.Log(), "Address already in use") {
				t.Fatalf("redis has ended: %s", s.Log())
			}
			return nil
		default:
		}
		out, err := s.cli(t.Context(), "INFO", "server")
		if listening = err == nil && strings.Contains(out, own+"\r"); !listening {
			return fmt.Errorf("redis does not listen: %w: %s; its log: %s", err, out, s.Log())
		}
		return nil
	})
	return listening
}

func newRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		Missing(t, "redis", err)
	}
	s := &RedisServer{host: "127.0.0.1", port: freePort(t), dir: t.TempDir()}
	s.args = append([]string{
		"--port", s.port, "--bind", s.host, "--dir", s.dir, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--maxmemory-policy", "noeviction",
	}, args...)
	t.Cleanup(func() {
		if err := s.end(syscall.SIGKILL); err != nil {
			t.Errorf("stopping redis: %v", err)
		}
	})
	return s
}

// Start starts the server, or starts it again with what it has on disk.
func (s *RedisServer) Start(t testing.TB) {
	t.Helper()
	s.Launch(t)
	s.Await(t, "PONG", "PING")
}

func (s *RedisServer) launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command("redis-server", s.args...) //nolint:noctx // it outlives the caller, and ends with the test
	s.log, s.done = new(lockedBuffer), make(chan struct{})
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test binary that is killed leaves no server behind
	started := make(chan error, 1)
	done := s.done
	go func() {
		// The death signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its log says why it ended
		}
		close(done)
	}()
	s.cmd = cmd
	return <-started
}

// end signals the server and waits until it has ended.
func (s *RedisServer) end(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	err := s.cmd.Process.Signal(signal)
	if err == nil && signal == syscall.SIGTERM { // also where it was stopped
		err = s.cmd.Process.Signal(syscall.SIGCONT)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.done
	return nil
}

// Kill ends the server as a crash does.
func (s *RedisServer) Kill(t testing.TB) {
	t.Helper()
	if err := s.end(syscall.SIGKILL); err != nil {
		t.Fatalf("killing redis: %v", err)
	}
}

// Stop ends the server as its administrator does: it saves what it is to keep.
func (s *RedisServer) Stop(t testing.TB) {
	t.Helper()
	if err := s.end(syscall.SIGTERM); err != nil {
		t.Fatalf("stopping redis: %v", err)
	}
}

// Launch starts the server again and waits only until it takes connections: it
// may still be reading its data.
func (s *RedisServer) Launch(t testing.TB) {
	t.Helper()
	if err := s.launch(); err != nil {
		t.Fatalf("starting redis: %v", err)
	}
	if !s.listens(t) {
		t.Fatalf("starting redis again: its port is taken: %s", s.Log())
	}
}

// Freeze stops the server's process until Thaw: it takes connections and answers nothing.
func (s *RedisServer) Freeze(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *RedisServer) Thaw(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *RedisServer) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("signalling redis: %v", err)
	}
}

// Addr is the server's host and port.
func (s *RedisServer) Addr() string { return net.JoinHostPort(s.host, s.port) }

// URL is the server's address for `counters redis`.
func (s *RedisServer) URL() string { return "redis://" + s.Addr() }

// Dir is the server's folder.
func (s *RedisServer) Dir() string { return s.dir }

// Log is what the server has written since it was started.
func (s *RedisServer) Log() string { return s.log.String() }

// Do runs a command with redis-cli and answers its raw output.
func (s *RedisServer) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.cli(t.Context(), args...)
	if err != nil {
		t.Fatalf("redis-cli %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// TryDo runs a command and answers the error that it gets.
func (s *RedisServer) TryDo(t testing.TB, args ...string) error {
	t.Helper()
	out, err := s.cli(t.Context(), append([]string{"-e"}, args...)...)
	if err != nil {
		return fmt.Errorf("redis-cli %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *RedisServer) cli(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", append([]string{"-h", s.host, "-p", s.port}, args...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// startWithin is how long a server may take to be as it should; the machine may be busy.
const startWithin = time.Minute

// Await repeats a command until its answer contains want.
func (s *RedisServer) Await(t testing.TB, want string, args ...string) {
	t.Helper()
	Await(t, startWithin, func() error {
		out, err := s.cli(t.Context(), args...)
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("redis-cli %s: %w: %s; its log: %s", strings.Join(args, " "), err, out, s.Log())
		}
		return nil
	})
}

// Await calls f until it succeeds, and fails the test with its error if it does
// not within the time.
func Await(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", within, err)
		}
		<-retry.C
	}
}
