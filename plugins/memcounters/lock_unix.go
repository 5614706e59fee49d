//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package memcounters

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the exclusive lock of f without waiting. The system gives it
// back when the process ends, however it ends.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errLocked
		default:
			return err
		}
	}
}

// unlockFile gives the lock back, also where a child that is just being forked
// still has the file open.
func unlockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}
