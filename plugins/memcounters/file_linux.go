package memcounters

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxStep bounds by how much a file grows at a time.
const maxStep = 1 << 20

// openLogFile opens a log file for appending.
func openLogFile(path string, at, segment int64) (logFile, error) {
	return openMapped(path, at, segment, allocate)
}

// allocator makes the file hold blocks of the disk for all of its bytes up to the
// offset size; those from the offset used on are zero.
type allocator func(f *os.File, used, size int64) error

// mappedFile is a log file that is appended to in memory: what is stored there
// is in the system's page cache, as after a write(2), and outlives the process
// without a system call. Room is reserved before it is mapped, so that a full disk
// is an error of the reservation and never a fault of a store.
type mappedFile struct {
	plainFile
	allocate allocator
	segment  int64
	mem      []byte // the file from its beginning; shorter than the file is allowed to be
	// plain: the file cannot be mapped, and is written to.
	plain bool
}

func openMapped(path string, at, segment int64, a allocator) (logFile, error) {
	f, err := os.OpenFile(path, openFlags(at), 0o600)
	if err != nil {
		return nil, err
	}
	return &mappedFile{plainFile: plainFile{File: f, end: at}, allocate: a, segment: segment, plain: !mappable(f)}, nil
}

// Write appends b, of which the first word, a header, is stored last.
func (m *mappedFile) Write(b []byte) (int, error) {
	if need := m.end + int64(len(b)); need > int64(len(m.mem)) && !m.plain {
		if err := m.grow(need); err != nil {
			return 0, err
		}
	}
	if m.plain {
		return m.plainFile.Write(b)
	}
	if err := store(m.mem[m.end:], b); err != nil {
		return 0, err
	}
	m.end += int64(len(b))
	return len(b), nil
}

// store copies b so that it ends at no moment with the first word stored and
// another not. A kill stops between two instructions; memory keeps their order.
func store(mem, b []byte) (err error) {
	// There is room on the disk, but a file that another program truncates, or a
	// disk that breaks, faults all the same: that is an error here, not the
	// process's end.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = faultError(r)
		}
	}()
	const word = frameHeader
	copy(mem[word:len(b)], b[word:])
	first := (*uint64)(unsafe.Pointer(&mem[0])) // aligned: all that is appended is a multiple of it
	atomic.StoreUint64(first, binary.NativeEndian.Uint64(b))
	return nil
}

// faultError is the error for a recovered memory fault. Any other panic goes on.
func faultError(r any) error {
	if fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		return fmt.Errorf("storing in the mapped file: was it truncated? %w", fault)
	}
	panic(r)
}

// grow reserves and maps room for need bytes and some more. It fails where there
// is no room; where the file cannot be mapped it becomes plain.
func (m *mappedFile) grow(need int64) error {
	old := int64(len(m.mem))
	size := max(old+min(old, maxStep), (need+m.segment/2+m.segment-1)/m.segment*m.segment)
	err := m.allocate(m.File, m.end, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("reserving room for %d bytes: %w", size, err)
	}
	if e := m.unmap(); e != nil {
		return e
	}
	if err == nil {
		m.mem, err = unix.Mmap(int(m.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	m.plain = err != nil
	return nil
}

func (m *mappedFile) unmap() error {
	mem := m.mem
	m.mem = nil
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmapping: %w", err)
	}
	return nil
}

// Sync brings to the disk what was written and what it takes to read it: not the
// file's times, which fsync(2) would write each time too.
func (m *mappedFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(m.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close gives the mapping back too.
func (m *mappedFile) Close() error { return errors.Join(m.unmap(), m.File.Close()) }

// allocate is the allocator of real files: fallocate(2), or zeros where the file
// system cannot do that.
func allocate(f *os.File, used, size int64) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return writeZeros(f, used, size)
		default:
			return err
		}
	}
}

func writeZeros(f *os.File, from, to int64) error {
	zeros := make([]byte, min(to-from, maxSegment))
	for from < to {
		n, err := f.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		from += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// mappable reports whether f is in a file system of which it is known that a
// store in a mapping is what write(2) is, and that bytes for which room is
// reserved can be written again and again in that room. Those that copy on
// write need more room each time, those of a network have caches of their own.
func mappable(f *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, // ext2 and ext3 too
		unix.XFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}
