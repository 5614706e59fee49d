package gate

import "time"

// NewLocal is the engine of an outage by itself, on a clock of the test's.
func NewLocal(now func() time.Time) Engine {
	l := newLocal()
	l.now = now
	return l
}
