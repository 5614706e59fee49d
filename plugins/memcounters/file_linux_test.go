package memcounters

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// openWith opens mapped files for which a makes room, and which are mapped
// whatever file system the tests run on.
func openWith(a allocator) fileOpener {
	return func(path string, at, segment int64) (logFile, error) {
		f, err := openMapped(path, at, segment, a)
		if err == nil {
			f.(*mappedFile).plain = false
		}
		return f, err
	}
}

// TestMapped: the files are stored in wherever that is as good as writing, and
// have blocks of the disk for all that is mapped.
func TestMapped(t *testing.T) {
	t.Parallel()
	e := openTest(t, Options{Dir: t.TempDir()})
	m := e.shards[0].log.file.(*mappedFile)
	if mappable(m.File) != (m.mem != nil) {
		t.Fatalf("mappable %v, %d bytes are mapped", mappable(m.File), len(m.mem))
	}
	if m.mem == nil {
		return // the rest is TestCannotMap's
	}
	info, err := os.Stat(m.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Blocks * 512; got < int64(len(m.mem)) || len(m.mem) != maxSegment {
		t.Errorf("%d bytes of the disk are taken, %d are mapped, want %d", got, len(m.mem), maxSegment)
	}
}

// TestNoRoomToReserve: where no room can be reserved, counting goes on in memory,
// no record is torn, and the log is whole when there is room again. That is so
// while files are made, too.
func TestNoRoomToReserve(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]bool{"from the start": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var full atomic.Bool
			full.Store(begin)
			open := openWith(func(f *os.File, used, size int64) error {
				if full.Load() {
					return syscall.ENOSPC
				}
				return allocate(f, used, size)
			})
			clock := newFakeClock()
			e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now, SnapshotBytes: minSegment, open: open})
			full.Store(true)
			c := usageCharge("user:a", "jobs", quota.PeriodMonth)
			for range 1000 { // more than is reserved
				reserve(t, e, nil, c)
			}
			core, logs := observer.New(zapcore.WarnLevel)
			openTest(t, Options{Dir: crash(t, e), Now: clock.now, Log: zap.New(core)})
			if logs.Len() != 0 {
				t.Errorf("a kill leaves a corrupt log: %v", logs.All())
			}
			for range 2 {
				e.maintain()
				if err := e.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") {
					t.Fatalf("ping while the disk is full: %v", err)
				}
			}
			full.Store(false)
			e.maintain()
			if err := e.Ping(t.Context()); err != nil {
				t.Fatalf("ping after there is room again: %v", err)
			}
			reserve(t, e, nil, c)
			again, records := openTest(t, Options{Dir: crash(t, e), Now: clock.now}), make(ledger)
			records.flush(again)
			if got := records.of(&c).Spent; got != 1001 {
				t.Fatalf("spent %d, want 1001", got)
			}
		})
	}
}

// TestCannotMap: a file for which there is no room to be had in advance, or none
// but by writing zeros, is kept all the same.
func TestCannotMap(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	for name, a := range map[string]allocator{
		"zeros": writeZeros,
		"never": func(*os.File, int64, int64) error { return syscall.EPERM },
		"not again": func(f *os.File, used, size int64) error {
			if calls.Add(1) > shards {
				return syscall.EPERM
			}
			return allocate(f, used, size)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newFakeClock()
			e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now, SnapshotBytes: minSegment, open: openWith(a)})
			c := rateCharge("user:a", "api", 1000, day)
			for range 200 {
				reserve(t, e, nil, c)
			}
			if err := e.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			mapped := e.shard(c.Key.Digest).log.file.(*mappedFile).mem != nil
			if want := name == "zeros"; mapped != want {
				t.Errorf("mapped: %v, want %v", mapped, want)
			}
			again := openTest(t, Options{Dir: crash(t, e), Now: clock.now})
			if got := peekRate(t, again, c); got != 200 {
				t.Errorf("used %d after a kill, want 200", got)
			}
		})
	}
}

// TestTruncatedUnderneath: what another program does to the files ends no
// request, and is healed.
func TestTruncatedUnderneath(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now, open: openWith(allocate)})
	c := rateCharge("user:a", "api", 9, day)
	reserve(t, e, nil, c)
	e.maintaining.Lock() // it is not healed before it is looked at
	if err := os.Truncate(e.shard(c.Key.Digest).log.path, 0); err != nil {
		t.Fatal(err)
	}
	reserve(t, e, nil, c)
	wantMessage(t, e.Ping(t.Context()), fmt.Sprintf("1 of %d log files", shards), "was it truncated")
	e.maintaining.Unlock()
	e.maintain()
	if err := e.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := openTest(t, Options{Dir: crash(t, e), Now: clock.now})
	if got := peekRate(t, again, c); got != 2 {
		t.Errorf("used %d after a kill, want 2", got)
	}
}

// TestOtherPanicsGoOn: only faults of the mapping become errors.
func TestOtherPanicsGoOn(t *testing.T) {
	t.Parallel()
	cause := errors.New("another")
	defer func() {
		if diff := cmp.Diff(any(cause), recover(), cmp.Comparer(errors.Is)); diff != "" {
			t.Errorf("recovered (-want +got):\n%s", diff)
		}
	}()
	_ = faultError(cause)
}
