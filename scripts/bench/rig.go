package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sys/unix"
)

const (
	secret = "benchmark-secret-of-at-least-32-bytes"
	users  = 100
)

// answer is what the backend says: about 1 KB of JSON.
var answer = `{"items":[` + strings.Repeat(`{"id":1,"name":"an item"},`, 39) + `{"id":40}]}`

// fields are as long as those of the gateway's answers.
var fields = []string{
	`RateLimit-Policy "\"bench\";q=1000000000;w=3600, \"api_calls/month\";q=1000000000"`,
	`RateLimit "\"bench\";r=999999999;t=3600, \"api_calls/month\";r=999999999;t=1000000"`,
	`X-RateLimit-Limit 1000000000`, `X-RateLimit-Remaining 999999999`, `X-RateLimit-Reset 1790000000`,
}

// rig is the two processes, the backend and the clients.
type rig struct {
	ours, plain *process
	backend     *http.Server
	redis       *redisServer // nil: counters in the process
	tokens      []string
	clients     int
	refused     bool
	settings    string // of the runtimes, to be printed
}

type process struct {
	cmd         *exec.Cmd
	addr, admin string
}

func newRig(ctx context.Context, dir string, o options) (*rig, error) {
	r := &rig{clients: o.clients, refused: o.refuse}
	// The clients and the backend stay off the core that is measured.
	if runtime.NumCPU() > 1 {
		if err := pin(0, 1); err != nil {
			return nil, err
		}
	}
	backend, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.backend = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = r.backend.Serve(backend) }()
	for i := range users {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": fmt.Sprintf("user-%03d", i), "type": "access", "sid": fmt.Sprintf("s-%03d", i),
			"email": fmt.Sprintf("user-%03d@example.com", i),
			"iat":   time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString([]byte(secret))
		if err != nil {
			return nil, err
		}
		r.tokens = append(r.tokens, token)
	}
	if err := r.start(ctx, dir, backend.Addr().String(), o); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// start starts the processes before the backend.
func (r *rig) start(ctx context.Context, dir, backend string, o options) (err error) {
	ours := settings{env: []string{"GOGC=" + o.gogc}}
	plain := ours
	r.settings = ours.String()
	if o.release {
		if ours, err = released(); err != nil {
			return err
		}
		plain, r.settings = settings{}, ours.String()+" against none"
	}
	counters := ""
	switch o.counters {
	case "memory":
	case "redis":
		if r.redis, err = startRedis(ctx, dir, o.socket); err != nil {
			return err
		}
		counters = "counters redis " + r.redis.url + " {\n\t\t\ttimeout 10s\n\t\t}"
	default:
		return fmt.Errorf("unknown counters %q: want memory or redis", o.counters)
	}
	gateway, err := gatewayConfig(dir, backend, counters, o)
	if err != nil {
		return err
	}
	if r.ours, err = start(ctx, dir, "ours", o.ours, ours, gateway); err != nil {
		return err
	}
	r.plain, err = start(ctx, dir, "plain", o.plain, plain, config(backend, "", ""))
	return err
}

// gatewayConfig charges each request one rate and the quota of api_calls in
// two periods, with durable metering: what a site pays for its first rule. The
// stages before all of it leave the charges out (identify), the directive too
// (app), or the app as well (nothing), to tell what costs how much.
func gatewayConfig(dir, backend, counters string, o options) (string, error) {
	limit := "1000000000/1h"
	if o.refuse {
		limit = "1/1h" // what the plan makes of it is used up while it warms up
	}
	app := fmt.Sprintf(`	quota {
		records sqlite %s
		%s
		default_plan enterprise
		verify jwt {
			secret {env.JWT_SECRET}
			algorithms HS256
			require type access
		}
	}
`, filepath.Join(dir, "quota.db"), counters)
	directive := func(rule string) string { return fmt.Sprintf("\tquota {\n\t\theaders %s\n%s\t}\n", o.headers, rule) }
	switch o.stage {
	case "respond": // the least that an answer of Caddy's own costs
		return config(backend, "", "\trespond 429\n"), nil
	case "fields": // what five fields of an answer cost where Caddy's own directive sets them
		return config(backend, "", "\theader {\n\t\t"+strings.Join(fields, "\n\t\t")+"\n\t}\n"), nil
	case "nothing":
		return config(backend, "", ""), nil
	case "app":
		return config(backend, app, ""), nil
	case "identify":
		return config(backend, app, directive("")), nil
	case "all":
		return config(backend, app, directive("\t\trule api {\n\t\t\tlimit bench "+limit+"\n\t\t\tspend api_calls\n\t\t}\n")), nil
	}
	return "", fmt.Errorf("unknown stage %q: want respond, fields, nothing, app, identify or all", o.stage)
}

// config is a Caddyfile that proxies to the backend, with global options and directives before it.
func config(backend, options, directives string) string {
	return fmt.Sprintf(`{
	admin {$ADMIN}
	persist_config off
	auto_https off
	default_bind 127.0.0.1
%s}
http://:{$PORT} {
%s	reverse_proxy %s
}
`, options, directives, backend)
}

func start(ctx context.Context, dir, name, binary string, with settings, config string) (*process, error) {
	p := &process{}
	var err error
	if p.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	if p.admin, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+".Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p.cmd = exec.CommandContext(ctx, binary, "run", "--config", file, "--adapter", "caddyfile")
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "JWT_SECRET="+secret,
		"PORT="+p.addr[strings.LastIndexByte(p.addr, ':')+1:], "ADMIN="+p.admin, "XDG_DATA_HOME="+filepath.Join(dir, name), "XDG_CONFIG_HOME="+filepath.Join(dir, name))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	if err := with.start(p.cmd); err != nil {
		return nil, err
	}
	if err := pin(p.cmd.Process.Pid, 0); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
		if err == nil {
			return p, conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("%s did not start:\n%s", name, said)
}

func (r *rig) stop() {
	for _, p := range []*process{r.ours, r.plain} {
		p.end()
	}
	r.redis.stop()
	_ = r.backend.Close()
}

// measure sends n requests to each process, every client to the one and the
// other in turn.
func (r *rig) measure(ctx context.Context, n int) (ours, plain sample, err error) {
	oursBefore, plainBefore := cpuTime(r.ours), cpuTime(r.plain)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		lat  [2][]time.Duration
	)
	for c := range r.clients {
		wg.Go(func() {
			took, err := r.client(ctx, c, n/r.clients)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			lat[0] = append(lat[0], took[0]...)
			lat[1] = append(lat[1], took[1]...)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return ours, plain, err
	}
	done := time.Duration(n / r.clients * r.clients)
	ours, plain = summary(lat[0]), summary(lat[1])
	ours.cpu, plain.cpu = (cpuTime(r.ours)-oursBefore)/done, (cpuTime(r.plain)-plainBefore)/done
	return ours, plain, nil
}

func summary(took []time.Duration) sample {
	slices.Sort(took)
	return sample{p50: took[len(took)/2], p99: took[len(took)*99/100]}
}

// client keeps one connection to each process and writes prepared requests.
func (r *rig) client(ctx context.Context, number, n int) (took [2][]time.Duration, err error) {
	var conns [2]net.Conn
	var readers [2]*bufio.Reader
	for i, p := range []*process{r.ours, r.plain} {
		if conns[i], err = (&net.Dialer{}).DialContext(ctx, "tcp", p.addr); err != nil {
			return took, err
		}
		defer conns[i].Close() // done with it
		readers[i] = bufio.NewReader(conns[i])
	}
	for i := range n {
		if ctx.Err() != nil {
			return took, ctx.Err()
		}
		token := r.tokens[(number*n+i)%len(r.tokens)]
		for turn := range 2 {
			side := (turn + i) % 2 // neither is always the first
			began := time.Now()
			status, err := roundTrip(conns[side], readers[side], token)
			if err == nil && status != http.StatusOK && (side != 0 || !r.refused || status != http.StatusTooManyRequests) {
				err = fmt.Errorf("status %d", status)
			}
			if err != nil {
				return took, err
			}
			took[side] = append(took[side], time.Since(began))
		}
	}
	return took, nil
}

func roundTrip(conn net.Conn, in *bufio.Reader, token string) (status int, err error) {
	_, err = fmt.Fprintf(conn, "GET /items?page=1 HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench/1\r\n"+
		"Accept: application/json\r\nAuthorization: Bearer %s\r\n\r\n", token)
	if err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() // read to its end
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil {
		return 0, err
	}
	if res.StatusCode == http.StatusOK && n != int64(len(answer)) {
		return 0, fmt.Errorf("%d bytes: %s", n, res.Header)
	}
	return res.StatusCode, nil
}

// profile asks a process for a CPU profile while the measurements run.
func (r *rig) profile(ctx context.Context, p *process, file string, length time.Duration) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.admin, int(length.Seconds())), nil)
		if err != nil {
			return
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			fmt.Fprintln(os.Stderr, "profiling:", err)
			return
		}
		defer res.Body.Close() // read to its end
		out, err := os.Create(file)
		if err != nil {
			fmt.Fprintln(os.Stderr, "profiling:", err)
			return
		}
		defer out.Close() // copied below
		_, _ = io.Copy(out, res.Body)
	}()
	return func() { <-done }
}

// cpuTime is the CPU time of a process, all threads, user and system, in
// nanoseconds: its clock in the kernel (clock_getcpuclockid(3)).
func cpuTime(p *process) time.Duration {
	const sched = 2
	var ts unix.Timespec
	clock := int32(^p.cmd.Process.Pid<<3 | sched) // as the C library computes it
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic(fmt.Sprintf("reading the CPU clock of process %d: %v", p.cmd.Process.Pid, err))
	}
	return time.Duration(ts.Nano())
}

// pin keeps a process (0: this one) and its threads on one core.
func pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	tasks := []int{pid}
	if pid == 0 {
		pid = os.Getpid()
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range entries {
		var tid int
		if _, err := fmt.Sscan(e.Name(), &tid); err == nil {
			tasks = append(tasks, tid)
		}
	}
	for _, tid := range tasks {
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pinning process %d to core %d: %w", pid, core, err)
		}
	}
	return nil
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close() // only its port was wanted
	return l.Addr().String(), nil
}
