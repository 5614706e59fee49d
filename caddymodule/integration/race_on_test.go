//go:build race

package integration

// raceEnabled builds the gateway as the tests are built.
const raceEnabled = true
