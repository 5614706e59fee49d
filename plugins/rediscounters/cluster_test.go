package rediscounters

import (
	"strconv"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Once a replica has taken over, the first probe finds it, and calls reach it. Beside
// a master that is silent, and may be asked first each time, it is one of the first.
func TestProbeFindsTheNewMaster(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lose   func(s *gatetest.RedisServer, t *testing.T)
		probes int
	}{
		"killed": {func(s *gatetest.RedisServer, t *testing.T) { s.Kill(t) }, 1},
		"frozen": {func(s *gatetest.RedisServer, t *testing.T) { s.Freeze(t) }, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := gatetest.Cluster(t)
			r := c.Replica(t, 1)
			o := options(t, c.URL())
			o.Timeout = time.Second // of a busy machine
			e := openTest(t, o)
			const users = 30 // on each server some
			var d quota.Decision
			reserve := func(user int) error {
				return e.Reserve(t.Context(), []quota.Charge{rateCharge(quota.UserSubject(strconv.Itoa(user)), "s", 100, time.Minute)}, &d)
			}
			for user := range users {
				if err := reserve(user); err != nil {
					t.Fatal(err)
				}
			}

			tt.lose(c.Masters[1], t)
			r.Await(t, "master", "ROLE")
			c.Await(t, c.Masters[0], c.Masters[2], r)
			err := e.Probe(t.Context())
			for n := 1; err != nil && n < tt.probes; n++ {
				err = e.Probe(t.Context())
			}
			if err != nil {
				t.Errorf("%d probes fail: %v", tt.probes, err)
			}
			for user := range users {
				if err := reserve(user); err != nil {
					t.Errorf("user %d: %v", user, err)
				}
			}
		})
	}
}
