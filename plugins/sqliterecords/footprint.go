package sqliterecords

import (
	"os"
	"time"
)

const (
	// settled is how long after a change of the files the database is asked at each
	// poll: a commit is seen only when it is complete, which an fsync may delay.
	settled = 250 * time.Millisecond
	// askAnyway is how long the database is not asked at most: times of files may be
	// coarse, and a commit that took long is seen then.
	askAnyway = 250 * time.Millisecond
)

// footprint is what a commit changes in the files of the database: their lengths
// and times. To look at it costs a tenth of a question to the database, which is
// asked only where something may have changed.
type footprint struct {
	paths          [2]string // the database and its write-ahead log
	stamps         [2]stamp
	changed, asked time.Time
}

type stamp struct {
	size     int64
	modified time.Time
}

// quiet reports whether nothing can have been committed since quiet was false.
func (f *footprint) quiet(now time.Time) bool {
	for i, path := range f.paths {
		var s stamp // of a file that is not there
		if info, err := os.Stat(path); err == nil {
			s = stamp{info.Size(), info.ModTime()}
		}
		if s != f.stamps[i] {
			f.stamps[i], f.changed = s, now
		}
	}
	if now.Sub(f.changed) < settled || now.Sub(f.asked) >= askAnyway {
		f.asked = now
		return false
	}
	return true
}
