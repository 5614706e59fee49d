package rediscounters

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// monitor is what clients send to a server: without what scripts do, and without
// what a client does on its own account: it looks at its server and its slots, and
// greets on each new connection, which may come long after it was asked for.
type monitor struct {
	s     *gatetest.RedisServer
	lines *bufio.Reader
	marks int
}

func watch(t *testing.T, s *gatetest.RedisServer) *monitor {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := &monitor{s: s, lines: bufio.NewReader(conn)}
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := m.lines.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("MONITOR: %q, %v", line, err)
	}
	return m
}

// since are the commands that came since the call before.
func (m *monitor) since(t *testing.T) (commands []string) {
	t.Helper()
	m.marks++
	mark := fmt.Sprint("mark ", m.marks)
	m.s.Do(t, "ECHO", mark)
	for {
		line, err := m.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, mark) {
			return commands
		}
		_, rest, _ := strings.Cut(line, "[")
		from, rest, _ := strings.Cut(rest, "] \"")
		name, _, _ := strings.Cut(rest, `"`)
		switch name = strings.ToLower(name); {
		case strings.HasSuffix(from, " lua"), slices.Contains([]string{"info", "command", "cluster", "ping", "hello", "client"}, name):
		default:
			commands = append(commands, name)
		}
	}
}

// TestOneCommandARequest: whatever a request is charged, it is one command, and
// none where it is known to be refused.
func TestOneCommandARequest(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	account := quota.UserSubject("1")
	jobs := usageCharge(account, "jobs", quota.PeriodMonth)
	jobs.Limit = quota.Limit{Max: 100}
	rate := rateCharge(account, "api", 3, time.Hour)
	all := []quota.Charge{
		rate, rateCharge("ip:192.0.2.1", "login", 100, time.Minute), jobs, usageCharge(account, "jobs", quota.PeriodDay),
		usageCharge(account, "api_calls", quota.PeriodDay), usageCharge(account, "api_calls", quota.PeriodMonth),
	}
	reserveWarm(t, e, newLedger(), jobs) // connected, loaded, and what was used is known
	m := watch(t, s)
	var d quota.Decision
	expect := func(what string, want string, f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := strings.Join(m.since(t), " "); got != want {
			t.Errorf("%s: commands %q, want %q", what, got, want)
		}
	}
	reserve := func() error { return e.Reserve(t.Context(), all, &d) }
	for range 3 {
		expect("a request", "evalsha", reserve)
		if !d.Admitted() {
			t.Fatalf("%+v", d)
		}
	}
	expect("giving back", "evalsha", func() error { return e.Refund(t.Context(), []quota.Receipt{jobs.Receipt(1), all[4].Receipt(1)}) })
	expect("looking", "evalsha", func() error { return e.Peek(t.Context(), []quota.Charge{rate, jobs}, &d) })
	expect("the first refusal", "evalsha", reserve)
	expect("the second refusal", "", reserve)
	if d.Admitted() || d.RetryAfter <= 0 {
		t.Errorf("%+v", d)
	}
	jobs.Limit.Max = 3
	for range 2 {
		expect("a quota's refusal", "evalsha", func() error { return e.Reserve(t.Context(), []quota.Charge{jobs}, &d) })
		if d.Admitted() {
			t.Errorf("%+v", d)
		}
	}
	s.Do(t, "SCRIPT", "FLUSH")
	m.since(t)
	expect("a script that was forgotten", "evalsha eval", func() error { return e.Peek(t.Context(), []quota.Charge{rate, jobs}, &d) })
}

// TestOneCommandASlot: on a Cluster what one account is charged is one command,
// and what is charged to another slot one more; if that refuses, what the first
// has taken is given back.
func TestOneCommandASlot(t *testing.T) {
	t.Parallel()
	c := gatetest.Cluster(t)
	e := openTest(t, options(t, c.URL()))
	account := quota.UserSubject("1")
	mine := []quota.Charge{
		rateCharge(account, "api", 100, time.Hour), usageCharge(account, "jobs", quota.PeriodDay), usageCharge(account, "jobs", quota.PeriodMonth),
	}
	address := rateCharge("ip:192.0.2.1", "login", 2, time.Hour)
	both := slices.Concat(mine, []quota.Charge{address})
	var d quota.Decision
	if err := e.Reserve(t.Context(), both, &d); err != nil || !d.Admitted() {
		t.Fatalf("%+v, %v", d, err)
	}
	var monitors []*monitor
	for _, s := range c.Masters {
		monitors = append(monitors, watch(t, s))
	}
	commands := func() (n int) {
		t.Helper()
		for _, m := range monitors {
			for _, name := range m.since(t) {
				if name == "evalsha" || name == "eval" {
					n++
				} else {
					t.Errorf("command %s", name)
				}
			}
		}
		return n
	}
	for i, test := range []struct {
		charges  []quota.Charge
		admitted bool
		want     int
	}{
		{mine, true, 1}, {both, true, 2}, {both, false, 3}, {both, false, 0}, {mine, true, 1},
	} {
		commands()
		if err := e.Reserve(t.Context(), test.charges, &d); err != nil || d.Admitted() != test.admitted {
			t.Fatalf("step %d: %+v, %v", i, d, err)
		}
		if n := commands(); n != test.want {
			t.Errorf("step %d: %d commands, want %d", i, n, test.want)
		}
	}
	// Four were admitted: what was given back is not counted.
	if err := e.Peek(t.Context(), mine[:1], &d); err != nil || d.Outcomes[0].Used-d.Outcomes[0].Charged != 4 {
		t.Errorf("%+v, %v", d, err)
	}
	l := newLedger()
	l.flush(e)
	if n := l.net("jobs"); n != 2*4 {
		t.Errorf("%d jobs in both periods, want 8", n)
	}
}
