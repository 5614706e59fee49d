package main

import "testing"

func TestRaceOptions(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"": "atexit_sleep_ms=0", "atexit_sleep_ms=50 halt_on_error=1": "atexit_sleep_ms=0 atexit_sleep_ms=50 halt_on_error=1"} {
		if got := raceOptions(given); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}
