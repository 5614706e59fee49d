package memcounters

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// logFile is what a journal needs of an open file; tests put failing ones in its
// place. Write appends a whole number of frames (or a header and frames): they
// outlive this process when it returns, and after a kill before that the file is
// read as if none of them had been written. It fails where there is no room.
type logFile interface {
	io.Writer
	// Sync brings what was written to the disk.
	Sync() error
	io.Closer
}

// fileOpener opens a log file for appending at the offset at, behind which it
// holds nothing but zeros; at 0 it begins a new file. Where room is reserved, it
// is reserved by segments of the given length.
type fileOpener func(path string, at, segment int64) (logFile, error)

// openFlags are those that a log file is opened with.
func openFlags(at int64) int {
	if at == 0 {
		return os.O_RDWR | os.O_CREATE | os.O_TRUNC
	}
	return os.O_RDWR
}

// plainFile is a log file to which each record is written with a system call of
// its own: for systems and file systems that cannot map it into memory.
type plainFile struct {
	*os.File
	end int64 // where the next record goes
}

func openPlain(path string, at, _ int64) (logFile, error) {
	f, err := os.OpenFile(path, openFlags(at), 0o600)
	if err != nil {
		return nil, err
	}
	return &plainFile{File: f, end: at}, nil
}

// Write appends b with one pwrite(2): a kill leaves it whole, absent or torn at
// the end of what was written, never mixed with another.
func (p *plainFile) Write(b []byte) (int, error) {
	n, err := p.WriteAt(b, p.end)
	p.end += int64(n)
	return n, err
}

// journal is the log of one shard. All fields are guarded by the shard's mutex.
type journal struct {
	path string
	file logFile
	// segment is by how much room is reserved.
	segment int64
	// names is how many names the file has given. A name is never given twice, so
	// that the frames since a snapshot began mean the same in both files.
	names uint64
	// frame is the frame that is being built; its memory is kept.
	frame []byte
	// size is the length of what was written, base what it was after the last
	// snapshot. The file may be longer: room is reserved in it.
	size, base int64
	// unsynced reports that the file was written to since the last fsync.
	unsynced bool
	// broken is why the file cannot be appended to: its end may be torn. Counting
	// goes on in memory; the next snapshot heals it.
	broken error
	// copying: a snapshot is being written, which needs the frames since it began.
	copying bool
	tail    []byte
}

func (j *journal) begin() { j.frame = beginFrame(j.frame) }

// commit appends the frame: a kill leaves it whole or not at all.
func (j *journal) commit() {
	if len(j.frame) <= frameHeader {
		return
	}
	j.frame = endFrame(j.frame)
	if j.copying {
		j.tail = append(j.tail, j.frame...)
	}
	j.write(j.frame)
}

func (j *journal) write(b []byte) {
	if j.broken != nil {
		return
	}
	n, err := j.file.Write(b)
	j.size += int64(n)
	j.unsynced = true
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		j.broken = fmt.Errorf("writing %s: %w", j.path, err)
	}
}

// full reports that the file is due for a snapshot: long, and twice as long as
// what a snapshot of it took the last time.
func (j *journal) full(limit int64) bool {
	return j.size > max(limit, 2*j.base)
}

func tempPath(path string) string { return path + ".tmp" }

// writeImage writes a snapshot beside the log and brings it to the disk. The
// caller holds no lock: no request waits for the disk.
func writeImage(open fileOpener, path string, segment int64, image []byte) (f logFile, err error) {
	temp := tempPath(path)
	f, err = open(temp, 0, segment)
	if err != nil {
		return nil, fmt.Errorf("opening a snapshot: %w", err)
	}
	n, err := f.Write(image)
	if err == nil && n < len(image) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing a snapshot: %w", err), discard(f, temp))
	}
	return f, nil
}

func discard(f io.Closer, path string) error {
	return errors.Join(f.Close(), os.Remove(path))
}

// swap puts the snapshot f, with the frames since it was taken, in the log's
// place. The caller holds the shard's mutex.
func (j *journal) swap(f logFile, imageSize int64) error {
	temp := tempPath(j.path)
	var err error
	if len(j.tail) > 0 {
		var n int
		if n, err = f.Write(j.tail); err == nil && n < len(j.tail) {
			err = io.ErrShortWrite
		}
	}
	if err == nil {
		err = os.Rename(temp, j.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replacing %s: %w", j.path, err), discard(f, temp))
	}
	old := j.file
	j.file, j.broken = f, nil
	j.base = imageSize
	j.size = imageSize + int64(len(j.tail))
	j.unsynced = len(j.tail) > 0
	if err := old.Close(); err != nil {
		return fmt.Errorf("closing the old %s: %w", j.path, err)
	}
	return nil
}

// syncDir brings renames in a folder to the disk.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}
