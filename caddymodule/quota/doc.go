// Package quota is the domain: who asks, what the plan allows, what a request
// costs, and what was decided. It is pure (standard library only, no I/O, no
// clock of its own) so that every rule of admission can be tested as a
// function. Storing counters, loading plans and speaking HTTP are left to the
// packages above it.
//
// Amounts are int64 in 0..MaxAmount: they pass through JSON, SQL and Lua
// unchanged (IEEE 754 doubles hold integers exactly up to 2^53).
package quota

import "fmt"

// MaxAmount is the largest limit, cost or counter value: 2^53.
const MaxAmount = 1 << 53

// CheckAmount reports whether n may be stored or compared: 0..MaxAmount.
func CheckAmount(what string, n int64) error {
	if n < 0 {
		return fmt.Errorf("%s is negative: %d", what, n)
	}
	if n > MaxAmount {
		return fmt.Errorf("%s is above 2^53: %d", what, n)
	}
	return nil
}
