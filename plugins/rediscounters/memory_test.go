package rediscounters

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// TestBytesPerUser: what Redis holds of a user takes at most 300 bytes for a rate
// window of one scope, and as much for each counter of a metric in a period.
func TestBytesPerUser(t *testing.T) {
	t.Parallel()
	users := 5_000
	if os.Getenv("QUOTA_TEST_LONG") != "" {
		users = 1_000_000
	}
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	window := func(account quota.Subject) []quota.Charge {
		return []quota.Charge{rateCharge(account, "api", 60, time.Hour)}
	}
	metric := func(account quota.Subject) []quota.Charge {
		return []quota.Charge{usageCharge(account, "api_calls", quota.PeriodDay), usageCharge(account, "api_calls", quota.PeriodMonth)}
	}
	empty := usedMemory(t, s)
	fill(t, e, users, window)
	windows := usedMemory(t, s)
	fill(t, e, users, metric)
	all := usedMemory(t, s)
	scope, counter := float64(windows-empty)/float64(users), float64(all-windows)/float64(2*users)
	t.Logf("%d users: %.0f bytes for each user and scope, %.0f for each user and counter of a metric, %d MB in all",
		users, scope, counter, (all-empty)>>20)
	if scope > 300 || counter > 300 {
		t.Errorf("%.0f bytes for each user and scope, %.0f for each counter, want at most 300", scope, counter)
	}
}

// fill reserves once for each user, as many do at once.
func fill(t *testing.T, e *Engine, users int, charges func(quota.Subject) []quota.Charge) {
	t.Helper()
	const workers = 64
	failed := make(chan error, workers)
	for w := range workers {
		go func() {
			var d quota.Decision
			var err error
			for i := w; i < users && err == nil; i += workers {
				account := quota.UserSubject(fmt.Sprintf("0192f0c1-%04x-7000-8000-%012x", i%65536, i))
				if err = e.Reserve(t.Context(), charges(account), &d); err == nil && !d.Admitted() {
					err = fmt.Errorf("refused: %+v", d)
				}
			}
			failed <- err
		}()
	}
	for range workers {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

func usedMemory(t *testing.T, s *gatetest.RedisServer) int64 {
	t.Helper()
	_, rest, _ := strings.Cut(s.Do(t, "INFO", "memory"), "used_memory:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
