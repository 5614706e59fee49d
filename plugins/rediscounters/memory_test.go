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

// TestBytesPerUser: a user's rate window of one scope, and one metric counted in
// two periods, take at most 300 bytes each.
func TestBytesPerUser(t *testing.T) {
	t.Parallel()
	users := 5_000
	if os.Getenv("QUOTA_TEST_LONG") != "" {
		users = 100_000
	}
	s := gatetest.Redis(t)
	e := openTest(t, options(t, s.URL()))
	before := usedMemory(t, s)
	const workers = 32
	failed := make(chan error, workers)
	for w := range workers {
		go func() {
			var d quota.Decision
			var err error
			for i := w; i < users && err == nil; i += workers {
				account := quota.UserSubject(fmt.Sprintf("0192f0c1-%04x-7000-8000-%012x", i%65536, i))
				err = e.Reserve(t.Context(), []quota.Charge{
					rateCharge(account, "api", 60, time.Hour),
					usageCharge(account, "api_calls", quota.PeriodDay), usageCharge(account, "api_calls", quota.PeriodMonth),
				}, &d)
			}
			failed <- err
		}()
	}
	for range workers {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	const counters = 3
	each := float64(usedMemory(t, s)-before) / float64(users*counters)
	t.Logf("%d users: %.0f bytes for each user and counter", users, each)
	if each > 300 {
		t.Errorf("%.0f bytes for each user and counter, want at most 300", each)
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
