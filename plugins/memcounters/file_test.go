package memcounters

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// openers are the ways in which a log is kept.
var openers = map[string]fileOpener{"default": openLogFile, "plain": openPlain}

// TestRecordIsInTheFile: what Reserve has taken can be read in the file, by
// whoever opens it, when it returns: nothing has yet been brought to the disk.
func TestRecordIsInTheFile(t *testing.T) {
	t.Parallel()
	for name, opener := range openers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { // no tick comes: nobody waits for one
				d := newDisk(roomy)
				d.opener = opener
				e := openTest(t, Options{Dir: dir, SnapshotBytes: 8 << 10, open: d.open})
				c := usageCharge("user:a", "jobs", quota.PeriodMonth)
				path := e.shard(c.Key.Digest).log.path
				for want := int64(1); want <= 1500; want++ { // through several reservations of room
					reserve(t, e, nil, c)
					if got := spentInFile(t, path, e.current, c.Key); got != want {
						t.Fatalf("the file has %d spent when Reserve returns, want %d", got, want)
					}
				}
				if got := d.syncs.Load(); got != 0 {
					t.Fatalf("%d fsyncs, want none", got)
				}
			})
		})
	}
}

// spentInFile reads a log as a start would.
func spentInFile(t *testing.T, path, epoch string, k quota.Key) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s shard
	s.init("", minSegment)
	r := newReplay(&s, &loading{epochs: map[string]bool{}})
	if end := readFrames(b, r.frame); end.torn || end.corrupt {
		t.Fatalf("%+v of %d bytes", end, len(b))
	}
	if u := s.retired[epoch][k]; u != nil {
		return u.spent
	}
	return 0
}

// TestFilesAreOneFormat: a log goes on in either way, whichever it began in.
func TestFilesAreOneFormat(t *testing.T) {
	t.Parallel()
	clock, dir := newFakeClock(), t.TempDir()
	c := rateCharge("user:a", "api", 1000, day)
	var want int64
	for range 3 {
		for name, opener := range openers {
			e, err := Open(Options{Dir: dir, Now: clock.now, SnapshotBytes: 8 << 10, open: opener})
			if err != nil {
				t.Fatal(err)
			}
			if got := peekRate(t, e, c); got != want {
				t.Fatalf("%s: used %d, want %d", name, got, want)
			}
			for range 100 {
				reserve(t, e, nil, c)
			}
			want += 100
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestUnfinishedFileIsMadeAnew: a kill while a file is made leaves it without a header.
func TestUnfinishedFileIsMadeAnew(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	e := openTest(t, Options{Dir: t.TempDir(), Now: clock.now})
	c := rateCharge("user:a", "api", 9, day)
	path := e.shard(c.Key.Digest).log.path
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string][]byte{
		"nothing": nil, "part of a header": b[:5], "room": make([]byte, len(b)),
		"room and frames": append(make([]byte, headerSize), b[headerSize:]...),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeSparse(t, filepath.Join(dir, filepath.Base(path)), left)
			var got []int64
			for range 2 {
				e, err := Open(Options{Dir: dir, Now: clock.now})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, peekRate(t, e, c))
				reserve(t, e, nil, c)
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff([]int64{0, 1}, got); diff != "" {
				t.Errorf("used after each start (-want +got):\n%s", diff)
			}
		})
	}
}
