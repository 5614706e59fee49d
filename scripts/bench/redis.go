package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a Redis of the benchmark's own, which keeps nothing on disk. It
// shares the other core with the clients and the backend.
type redisServer struct {
	process
	url    string // by which ours reaches it
	client *redis.Client
}

func startRedis(ctx context.Context, dir string, socket bool) (*redisServer, error) {
	s := &redisServer{}
	var err error
	if s.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(s.addr, ":")
	args := []string{"--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no"}
	s.url = "redis://" + s.addr
	if socket {
		file := filepath.Join(dir, "redis.sock")
		args = append(args, "--unixsocket", file)
		s.url = "unix://" + file
	}
	s.cmd = exec.CommandContext(ctx, "redis-server", args...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting redis-server: %w", err)
	}
	s.client = redis.NewClient(&redis.Options{Addr: s.addr})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := s.client.Ping(ctx).Err()
		if err == nil {
			return s, nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("redis-server did not start: %w", err)
		}
	}
}

func (s *redisServer) stop() {
	if s == nil {
		return
	}
	_ = s.client.Close() // nothing of it is needed any more
	s.end()
}

// scripts is how many scripts the server has run.
func (s *redisServer) scripts(ctx context.Context) (n int64, err error) {
	info, err := s.client.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, fmt.Errorf("asking redis: %w", err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(line, ":calls=")
		if name != "cmdstat_evalsha" && name != "cmdstat_eval" {
			continue
		}
		value, _, _ = strings.Cut(value, ",")
		calls, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("asking redis: %w", err)
		}
		n += calls
	}
	return n, nil
}

// counting begins to count; the report is of what the server has done since.
func (s *redisServer) counting(ctx context.Context) (report func(requests int) error, err error) {
	if s == nil {
		return func(int) error { return nil }, nil
	}
	calls, err := s.scripts(ctx)
	cpu := cpuTime(&s.process)
	if err != nil {
		return nil, err
	}
	return func(requests int) error {
		after, err := s.scripts(ctx)
		if err != nil {
			return err
		}
		n := float64(requests)
		fmt.Printf("redis, a request: %.4f scripts, %.1f µs of CPU\n", float64(after-calls)/n, micros(cpuTime(&s.process)-cpu)/n)
		return nil
	}, nil
}

// end asks a process to end, and waits for it.
func (p *process) end() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}
