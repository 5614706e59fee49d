// Command testrun is `go test` for people and for CI: it runs `go test -json`
// with the arguments given, prints one line for each package and the output of
// what failed, and ends with the counts. A skipped test is a failure: what was
// not run was not shown to work.
//
//	testrun [-last <package>] [flags of go test] <packages>
//
// The package that is named last is run when all others have ended: its tests
// start whole fleets, and ask for what is done within two seconds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
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
	rep := newReport(stdout)
	runs, err := inTurn(args)
	if err != nil {
		return 1, err
	}
	passed := true
	for _, args := range runs {
		ok, err := goTest(args, rep, stderr)
		if err != nil {
			return 1, err
		}
		passed = passed && ok
	}
	if ok := rep.close(); !ok || !passed {
		return 1, nil
	}
	return 0, nil
}

// inTurn are the arguments of each go test that is to be run.
func inTurn(args []string) ([][]string, error) {
	if len(args) < 2 || args[0] != "-last" {
		return [][]string{args}, nil
	}
	last, args := args[1], args[2:]
	first := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, ".") })
	if first < 0 {
		return nil, errors.New("-last wants the other packages named too, as go test does")
	}
	out, err := exec.CommandContext(context.Background(), "go", append([]string{"list"}, args[first:]...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	flags := slices.Clip(args[:first])
	others := slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return strings.HasSuffix(p, strings.TrimPrefix(last, ".")) })
	return [][]string{append(flags, others...), append(flags, last)}, nil
}

// goTest reports whether go test succeeded.
func goTest(args []string, rep *report, stderr io.Writer) (bool, error) {
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "GORACE="+raceOptions(os.Getenv("GORACE")))
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, fmt.Errorf("opening the pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("starting go test: %w", err)
	}
	readErr := rep.read(events)
	waitErr := cmd.Wait()
	if readErr != nil {
		return false, fmt.Errorf("reading what go test says: %w", readErr)
	}
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return false, fmt.Errorf("waiting for go test: %w", waitErr)
	}
	return waitErr == nil, nil
}

// raceOptions are the race detector's, by default without the second that it
// sleeps at the end of each process: the tests start hundreds.
func raceOptions(given string) string {
	return strings.TrimSpace("atexit_sleep_ms=0 " + given) // of an option that stands twice the last counts
}
