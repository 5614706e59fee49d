package sqliterecords

import (
	"os"
	"time"
)

const (
	// settled is how long after a change of the file the database is asked at each
	// poll: a commit is seen only when it is complete, which an fsync may delay.
	settled = 200 * time.Millisecond
	// askAnyway is how long the database is not asked at most: times of files may be
	// coarse, a commit may take long, and a database may have been taken out of WAL mode.
	askAnyway = 250 * time.Millisecond
)

// footprint is what a commit changes of the write-ahead log: its length and time.
// To look at it costs a tenth of a question to the database, which is asked only
// where something may have changed.
type footprint struct {
	path           string
	size           int64
	modified       time.Time
	changed, asked time.Time
}

// quiet reports whether nothing can have been committed since quiet was false.
func (f *footprint) quiet(now time.Time) bool {
	var size int64 // of a file that is not there
	var modified time.Time
	if info, err := os.Stat(f.path); err == nil {
		size, modified = info.Size(), info.ModTime()
	}
	if size != f.size || modified != f.modified {
		f.size, f.modified, f.changed = size, modified, now
	}
	if now.Sub(f.changed) < settled || now.Sub(f.asked) >= askAnyway {
		f.asked = now
		return false
	}
	return true
}
