package memcounters

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

func rateCharge(s quota.Subject, scope string, limit int64, window time.Duration) quota.Charge {
	return quota.Charge{
		Key:   quota.Key{Digest: s.Digest(), Name: scope, Space: quota.SpaceRate},
		Limit: quota.Limit{Max: limit, Window: window}, Cost: 1, Status: 429,
	}
}

// usageCharge is an unlimited charge of the month that the fake clock begins in.
func usageCharge(account quota.Subject, metric string, p quota.Period) quota.Charge {
	c := quota.Charge{
		Key:     quota.Key{Digest: account.Digest(), Name: metric, Space: quota.SpaceUsage, Period: p},
		Account: account, Limit: quota.Limit{Unlimited: true}, Cost: 1, Status: 402,
	}
	if p != quota.PeriodNone {
		start, end := p.Span(newFakeClock().now(), time.Time{})
		c.Key.Start, c.End = start.Unix(), end.Unix()
	}
	return c
}

func limited(c quota.Charge, limit int64) quota.Charge {
	c.Limit = quota.Limit{Max: limit}
	return c
}

// reserve reserves; cold counters are filled from what the records say.
func reserve(t *testing.T, e *Engine, records ledger, cs ...quota.Charge) quota.Decision {
	t.Helper()
	var d quota.Decision
	err := e.Reserve(t.Context(), cs, &d)
	var cold *quota.ColdError
	if errors.As(err, &cold) {
		var bs []quota.Base
		for n, i := range cold.Charges {
			used := records.except(&cs[i], cold.Except) + cold.Carry[n]
			bs = append(bs, quota.Base{Key: cs[i].Key, Used: used, Generation: cold.Generation})
		}
		if err := e.Fill(t.Context(), bs); err != nil {
			t.Fatal(err)
		}
		err = e.Reserve(t.Context(), cs, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func peekRate(t *testing.T, e *Engine, c quota.Charge) int64 {
	t.Helper()
	c.Cost = 0
	var d quota.Decision
	if err := e.Peek(t.Context(), []quota.Charge{c}, &d); err != nil {
		t.Fatal(err)
	}
	return d.Outcomes[0].Used
}

type ledgerKey struct {
	epoch string
	key   quota.Key
}

// ledger is what the records hold: totals by epoch, never falling.
type ledger map[ledgerKey]quota.Total

func (l ledger) apply(t quota.EpochTotals) {
	for i := range t.Rows {
		r := t.Rows[i]
		k := ledgerKey{t.Epoch, r.Key()}
		r.Spent, r.Refunded = max(r.Spent, l[k].Spent), max(r.Refunded, l[k].Refunded)
		l[k] = r
	}
}

func (l ledger) flush(e *Engine) {
	for _, t := range e.Totals() {
		l.apply(t)
		e.Flushed(t)
	}
}

// of is the sum over all epochs.
func (l ledger) of(c *quota.Charge) quota.Total {
	var sum quota.Total
	for k, r := range l {
		if k.key == c.Key {
			sum.Spent += r.Spent
			sum.Refunded += r.Refunded
		}
	}
	return sum
}

func (l ledger) except(c *quota.Charge, epochs []string) int64 {
	all := l.of(c)
	used := all.Spent - all.Refunded
	for _, id := range epochs {
		r := l[ledgerKey{id, c.Key}]
		used -= r.Spent - r.Refunded
	}
	return used
}

func (l ledger) rows(epoch string) []quota.Total {
	var rows []quota.Total
	for k, r := range l {
		if k.epoch == epoch {
			rows = append(rows, r)
		}
	}
	return rows
}

// crash copies an engine's files as a kill would leave them: what another process
// can read in them now.
func crash(t *testing.T, e *Engine) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(e.opts.Dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range files {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeSparse(t, filepath.Join(dir, filepath.Base(from)), b)
	}
	return dir
}

// writeSparse writes a file without taking room for the zeros at its end.
func writeSparse(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, bytes.TrimRight(b, "\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(b))); err != nil {
		t.Fatal(err)
	}
}

// disk is a file system with a number of bytes left, and counts fsyncs.
type disk struct {
	// opener opens the files below: those that are written to, unless it is set.
	opener fileOpener
	left   atomic.Int64
	syncs  atomic.Int64
	// syncErr makes fsync fail while it is set.
	syncErr atomic.Bool
}

func newDisk(left int64) *disk {
	d := &disk{opener: openPlain}
	d.left.Store(left)
	return d
}

func (d *disk) open(path string, at, segment int64) (logFile, error) {
	f, err := d.opener(path, at, segment)
	if err != nil {
		return nil, err
	}
	return &diskFile{f, d}, nil
}

type diskFile struct {
	logFile
	disk *disk
}

// Write writes as much as there is room for, as a full disk does.
func (f *diskFile) Write(b []byte) (int, error) {
	room := min(int64(len(b)), max(0, f.disk.left.Load()))
	f.disk.left.Add(-room)
	n, err := f.logFile.Write(b[:room])
	if err == nil && n < len(b) {
		err = syscall.ENOSPC
	}
	return n, err
}

func (f *diskFile) Sync() error {
	f.disk.syncs.Add(1)
	if f.disk.syncErr.Load() {
		return io.ErrUnexpectedEOF
	}
	return f.logFile.Sync()
}
