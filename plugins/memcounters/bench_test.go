package memcounters

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// benchCharges are a request's usual three: a rate, a quota, and the month for display.
func benchCharges(user int) []quota.Charge {
	account := quota.UserSubject(fmt.Sprintf("user-%d", user))
	return []quota.Charge{
		rateCharge(account, "api", 1<<40, time.Minute),
		usageCharge(account, "calls", quota.PeriodDay),
		usageCharge(account, "calls", quota.PeriodMonth),
	}
}

func TestReserveDoesNotAllocate(t *testing.T) {
	e := openTest(t, Options{Dir: t.TempDir()})
	cs := benchCharges(1)
	var d quota.Decision
	call := func() {
		if err := e.Reserve(t.Context(), cs, &d); err != nil {
			t.Fatal(err)
		}
	}
	call()
	if n := testing.AllocsPerRun(200, call); n > 0 {
		t.Fatalf("%v allocations in a Reserve of known counters, want none", n)
	}
}

func BenchmarkReserve(b *testing.B) { benchReserve(b, openLogFile) }

// BenchmarkReservePlain writes each record with a system call.
func BenchmarkReservePlain(b *testing.B) { benchReserve(b, openPlain) }

func benchReserve(b *testing.B, open fileOpener) {
	b.Helper()
	e, err := Open(Options{Dir: b.TempDir(), open: open})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close() // the benchmark is over
	cs := benchCharges(1)
	var d quota.Decision
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Reserve(b.Context(), cs, &d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReserveParallel(b *testing.B) {
	e, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close() // the benchmark is over
	var users atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var sets [][]quota.Charge
		for range 16 {
			sets = append(sets, benchCharges(int(users.Add(1))))
		}
		var d quota.Decision
		for i := 0; pb.Next(); i++ {
			if err := e.Reserve(b.Context(), sets[i%len(sets)], &d); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
