package memcounters

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// childEnv names the folder in which the test binary counts until it is killed.
const childEnv = "QUOTAGATE_TEST_COUNTERS_CHILD"

// plainEnv makes it write to its log where it would else store in it.
const plainEnv = "QUOTAGATE_TEST_COUNTERS_PLAIN"

const (
	killWorkers = 8
	killRounds  = 12
)

// The acknowledgements that the child writes: one byte for what, one for whom.
const (
	ackReserved = 'c'
	ackRefunded = 'f'
)

func killAccount(worker int) quota.Subject {
	return quota.UserSubject(fmt.Sprintf("worker-%d", worker))
}

const killShared = quota.Subject("org:shared")

func killCharges(worker int) []quota.Charge {
	account := killAccount(worker)
	return []quota.Charge{
		rateCharge(account, "api", 1<<40, 24*time.Hour),
		usageCharge(account, "jobs", quota.PeriodMonth),
		usageCharge(killShared, "calls", quota.PeriodMonth),
	}
}

// runChild counts under load, and rewrites its log all the time, until it is
// killed. It reports whether this process is a child.
func runChild() bool {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return false
	}
	o := Options{Dir: dir, SnapshotBytes: 16 << 10}
	if os.Getenv(plainEnv) != "" {
		o.open = openPlain
	}
	e, err := Open(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for w := range killWorkers {
		go childWorker(e, w)
	}
	for {
		e.maintain()
	}
}

func childWorker(e *Engine, worker int) {
	ctx := context.Background()
	cs := killCharges(worker)
	var d quota.Decision
	for i := 0; ; i++ {
		if err := e.Reserve(ctx, cs, &d); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		acknowledgeTo(os.Stdout, ackReserved, worker)
		if i%4 == 3 {
			if err := e.Refund(ctx, []quota.Receipt{cs[1].Receipt(1)}); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			acknowledgeTo(os.Stdout, ackRefunded, worker)
		}
	}
}

func acknowledgeTo(w io.Writer, what byte, worker int) {
	if _, err := w.Write([]byte{what, byte(worker)}); err != nil {
		os.Exit(1)
	}
}

// killLoad runs a child until it has acknowledged n calls, kills it, and adds
// to the counts all that it acknowledged.
func killLoad(t *testing.T, dir, plain string, n int, reserved, refunded *[killWorkers]int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, plainEnv+"="+plain)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	var ack [2]byte
	for i := 0; ; i++ {
		if i == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(r, ack[:]); err != nil {
			if i < n || !errors.Is(err, io.EOF) {
				t.Fatalf("after %d acknowledgements: %v", i, err)
			}
			break
		}
		if ack[0] == ackReserved {
			reserved[ack[1]]++
		} else {
			refunded[ack[1]]++
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the child was not killed: %v", err)
	}
}

// TestKill kills a process under load, again and again: nothing that Reserve or
// Refund has returned is lost, nothing is counted twice, and of each worker at
// most the call in flight is counted beyond that.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]string{"stored": "", "written": "1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testKill(t, plain)
		})
	}
}

func testKill(t *testing.T, plain string) {
	dir := t.TempDir()
	var reserved, refunded [killWorkers]int64
	records := make(ledger)
	for round := range killRounds {
		killLoad(t, dir, plain, 300+round*517, &reserved, &refunded)
		e, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, totals := range e.Totals() {
			records.apply(totals)
			if round%3 != 0 { // else the answer was lost: it comes again
				e.Flushed(totals)
			}
		}
		checkKilled(t, e, records, int64(round+1), &reserved, &refunded)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkKilled(t *testing.T, e *Engine, records ledger, rounds int64, reserved, refunded *[killWorkers]int64) {
	t.Helper()
	within := func(what string, got, acked, inFlight int64) {
		t.Helper()
		if got < acked {
			t.Fatalf("%s: LOST %d of %d", what, acked-got, acked)
		}
		if got > acked+inFlight {
			t.Fatalf("%s: DOUBLED %d beyond %d acknowledged and %d in flight", what, got-acked-inFlight, acked, inFlight)
		}
	}
	var sum int64
	for w := range killWorkers {
		sum += reserved[w]
		cs := killCharges(w)
		got := records.of(&cs[1])
		within("spent", got.Spent, reserved[w], rounds)
		within("refunded", got.Refunded, refunded[w], rounds)
		within("rate window", peekRate(t, e, cs[0]), reserved[w], rounds)
	}
	shared := killCharges(0)[2]
	within("shared", records.of(&shared).Spent, sum, rounds*killWorkers)
}
