// Command testrun is `go test` for people and for CI: it runs `go test -json`
// with the arguments given, prints one line for each package and the output of
// what failed, and ends with the counts. A skipped test is a failure: what was
// not run was not shown to work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
	}
	os.Exit(code)
}

// run answers the process's exit code: 0 only if go test succeeded, at least
// one test ran, and none was skipped.
func run(args []string, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "GORACE="+raceOptions(os.Getenv("GORACE")))
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, fmt.Errorf("opening the pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("starting go test: %w", err)
	}
	rep := newReport(stdout)
	readErr := rep.read(events)
	waitErr := cmd.Wait()
	ok := rep.close()
	if readErr != nil {
		return 1, fmt.Errorf("reading what go test says: %w", readErr)
	}
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return 1, fmt.Errorf("waiting for go test: %w", waitErr)
	}
	if waitErr != nil || !ok {
		return 1, nil
	}
	return 0, nil
}

// raceOptions are the race detector's, by default without the second that it
// sleeps at the end of each process: the tests start hundreds.
func raceOptions(given string) string {
	return strings.TrimSpace("atexit_sleep_ms=0 " + given) // of an option that stands twice the last counts
}
