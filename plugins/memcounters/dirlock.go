package memcounters

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var errLocked = errors.New("locked")

// lockDir makes this process the only one that writes to dir, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock file: %w", err)
	}
	err = lockFile(f)
	if errors.Is(err, errLocked) {
		err = fmt.Errorf("the counters' log in %s is in use by another process%s: "+
			"stop that process, or give this one a folder of its own (counters memory { log <dir> })", dir, owner(f))
		return nil, errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	// Who holds the lock is told for the error above only: a full disk must not
	// keep the counters from opening.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// unlockDir lets another process write.
func unlockDir(f *os.File) error { return errors.Join(unlockFile(f), f.Close()) }

// owner is what the lock's holder wrote about itself.
func owner(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil || len(b) == 0 {
		return ""
	}
	return " (process " + strings.TrimSpace(string(b)) + ")"
}
