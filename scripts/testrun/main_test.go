package main

import (
	"slices"
	"strings"
	"testing"
)

func TestRaceOptions(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "atexit_sleep_ms=0", "atexit_sleep_ms=50 halt_on_error=1": "atexit_sleep_ms=0 atexit_sleep_ms=50 halt_on_error=1"} {
		if got := raceOptions(given); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestLast(t *testing.T) {
	t.Parallel()
	runs, err := inTurn([]string{"-last", "./scripts/load", "-race", "../load", "."})
	if err != nil || len(runs) != 2 {
		t.Fatalf("%q, %v", runs, err)
	}
	if want := []string{"-race", "./scripts/load"}; !slices.Equal(runs[1], want) {
		t.Errorf("last %q, want %q", runs[1], want)
	}
	if others := runs[0]; len(others) != 2 || others[0] != "-race" || !strings.HasSuffix(others[1], "/scripts/testrun") {
		t.Errorf("first %q", others)
	}
	if runs, err := inTurn([]string{"-race", "./..."}); err != nil || len(runs) != 1 || len(runs[0]) != 2 {
		t.Errorf("%q, %v", runs, err)
	}
	if _, err := inTurn([]string{"-last", "./scripts/load", "-race"}); err == nil {
		t.Error("nothing but the last package was accepted")
	}
}
