package gate_test

import (
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// The counters of an outage pass what all counters pass.
func TestLocalConformance(t *testing.T) {
	t.Parallel()
	gatetest.RunCounters(t, func(t *testing.T) *gatetest.Counters {
		var mu sync.Mutex
		now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}
		return &gatetest.Counters{
			Engine: gate.NewLocal(clock), Now: clock,
			Advance: func(d time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				now = now.Add(d)
			},
		}
	})
}
