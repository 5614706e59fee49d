package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json` and, for the
// build's, `go help buildjson`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// test names one test or subtest.
type test struct{ pkg, name string }

// report turns events into what a person reads. Output is held back until its
// test has ended, and forgotten if it passed.
type report struct {
	w       io.Writer
	output  map[test]*strings.Builder // name "" holds the package's own
	builds  map[string]*strings.Builder
	parents map[test]bool
	failing map[test]bool // tests with a failed or skipped subtest

	passed, failed int
	skipped        []test
	slow           []timed // those that took slowSeconds or more
}

// timed is a test and the seconds that it took.
type timed struct {
	test
	seconds float64
}

// Tests of slowSeconds and more are told at the end, the slowest slowest of them:
// where a run's time has gone.
const (
	slowSeconds = 5
	slowest     = 20
)

func newReport(w io.Writer) *report {
	return &report{
		w: w, output: map[test]*strings.Builder{}, builds: map[string]*strings.Builder{},
		parents: map[test]bool{}, failing: map[test]bool{},
	}
}

// read consumes the events of a run to their end. A line that is no event is
// passed on as it is.
func (r *report) read(events io.Reader) error {
	in := bufio.NewReader(events)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(r.w, "%s", line)
			} else {
				r.add(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	switch e.Action {
	case "build-output":
		builder(r.builds, e.ImportPath).WriteString(e.Output)
		return
	case "build-fail":
		fmt.Fprintf(r.w, "%s", take(r.builds, e.ImportPath))
		return
	}
	t := test{pkg: e.Package, name: e.Test}
	switch e.Action {
	case "run":
		if up, ok := t.parent(); ok {
			r.parents[up] = true
		}
	case "output":
		builder(r.output, t).WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(t, e.Action)
			if e.Elapsed >= slowSeconds && !r.parents[t] {
				r.slow = append(r.slow, timed{t, e.Elapsed})
			}
		}
	}
}

func (r *report) endTest(t test, action string) {
	out := take(r.output, t)
	if action == "pass" {
		if !r.parents[t] {
			r.passed++
		}
		return
	}
	if up, ok := t.parent(); ok {
		r.failing[up] = true
	}
	if r.failing[t] {
		// Its subtest was counted; what it printed itself may still explain.
		fmt.Fprint(r.w, out)
		return
	}
	r.failed++
	if action == "skip" {
		r.skipped = append(r.skipped, t)
	}
	fmt.Fprint(r.w, out)
}

// endPackage prints the package's line. A package without tests is not named.
func (r *report) endPackage(e event) {
	out := take(r.output, test{pkg: e.Package})
	if e.Action == "skip" {
		return
	}
	if e.Action == "fail" {
		r.flushUnfinished(e.Package)
		fmt.Fprint(r.w, out)
	}
	fmt.Fprintf(r.w, "%-4s  %s  %.1fs\n", e.Action, e.Package, e.Elapsed)
}

// flushUnfinished prints what tests said that never ended: the process died
// (a panic, the timeout). Each is a failure.
func (r *report) flushUnfinished(pkg string) {
	for t, out := range r.output {
		if t.pkg != pkg || t.name == "" {
			continue
		}
		fmt.Fprint(r.w, out.String())
		delete(r.output, t)
		if !r.parents[t] {
			r.failed++
		}
	}
}

// close prints the counts and reports whether all is well.
func (r *report) close() bool {
	for name, out := range r.builds {
		fmt.Fprint(r.w, out.String())
		delete(r.builds, name)
	}
	if len(r.skipped) > 0 {
		fmt.Fprintln(r.w, "\nskipped, which counts as failed:")
		for _, t := range r.skipped {
			fmt.Fprintf(r.w, "  %s %s\n", t.pkg, t.name)
		}
	}
	r.tellSlow()
	fmt.Fprintf(r.w, "\n%d passed, %d failed\n", r.passed, r.failed)
	return r.failed == 0 && r.passed > 0
}

func (r *report) tellSlow() {
	if len(r.slow) == 0 {
		return
	}
	slices.SortStableFunc(r.slow, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	fmt.Fprintln(r.w, "\nslowest:")
	for _, t := range r.slow[:min(len(r.slow), slowest)] {
		fmt.Fprintf(r.w, "  %6.1fs  %s %s\n", t.seconds, t.pkg, t.name)
	}
}

// parent is the test that runs t as a subtest.
func (t test) parent() (test, bool) {
	i := strings.LastIndexByte(t.name, '/')
	if i < 0 {
		return test{}, false
	}
	return test{pkg: t.pkg, name: t.name[:i]}, true
}

func builder[K comparable](m map[K]*strings.Builder, k K) *strings.Builder {
	b := m[k]
	if b == nil {
		b = new(strings.Builder)
		m[k] = b
	}
	return b
}

func take[K comparable](m map[K]*strings.Builder, k K) string {
	b := m[k]
	if b == nil {
		return ""
	}
	delete(m, k)
	return b.String()
}
