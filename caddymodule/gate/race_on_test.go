//go:build race

package gate

// raceEnabled: the race detector drops pooled values at random.
const raceEnabled = true
