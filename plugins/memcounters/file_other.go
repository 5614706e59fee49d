//go:build !linux

package memcounters

// openLogFile opens a log file for appending.
func openLogFile(path string, at, segment int64) (logFile, error) {
	return openPlain(path, at, segment)
}
