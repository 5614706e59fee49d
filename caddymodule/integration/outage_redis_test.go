package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// What a rate may admit in a window in which Redis was away: its limit, once more
// by the gateways themselves, and once more by a Redis that has lost its windows.
const (
	exactly = 1
	twice   = 2
	thrice  = 3
)

// Whatever becomes of Redis, see endure.
func TestRedisOutages(t *testing.T) { // alone: gateways that starve are taken for dead
	fail := func(s *gatetest.RedisServer) func(*testing.T) { return func(t *testing.T) { s.Kill(t) } }
	start := func(s *gatetest.RedisServer) func(*testing.T) { return func(t *testing.T) { s.Start(t) } }
	do := func(s *gatetest.RedisServer, args ...string) func(*testing.T) {
		return func(t *testing.T) { s.Do(t, args...) }
	}
	for name, tt := range map[string]struct {
		args       []string
		limits     int
		kind       string // as the status names it
		harm, mend func(s *gatetest.RedisServer) func(*testing.T)
	}{
		"killed, without a file": {nil, thrice, "unreachable", fail, start},
		"killed, with an append-only file": {
			[]string{"--appendonly", "yes", "--appendfsync", "everysec"}, thrice, "unreachable", fail, start,
		},
		"stopped and started with what it has saved": {
			[]string{"--save", "3600 1"}, twice, "unreachable",
			func(s *gatetest.RedisServer) func(*testing.T) { return func(t *testing.T) { s.Stop(t) } }, start,
		},
		"frozen": {
			nil, twice, "timeout",
			func(s *gatetest.RedisServer) func(*testing.T) { return func(t *testing.T) { s.Freeze(t) } },
			func(s *gatetest.RedisServer) func(*testing.T) { return func(t *testing.T) { s.Thaw(t) } },
		},
		"out of memory": {
			nil, twice, "oom",
			func(s *gatetest.RedisServer) func(*testing.T) { return do(s, "CONFIG", "SET", "maxmemory", "1") },
			func(s *gatetest.RedisServer) func(*testing.T) { return do(s, "CONFIG", "SET", "maxmemory", "0") },
		},
		"a replica": {
			nil, twice, "readonly",
			func(s *gatetest.RedisServer) func(*testing.T) { return do(s, "REPLICAOF", "127.0.0.1", "1") },
			func(s *gatetest.RedisServer) func(*testing.T) { return do(s, "REPLICAOF", "NO", "ONE") },
		},
		"unable to save":                {[]string{"--save", "3600 1"}, twice, "misconf", unsaved, saved},
		"busy with a script":            {[]string{"--lua-time-limit", "5"}, twice, "busy", busy, unbusy},
		"reading its data after a kill": {loadsSlowly, thrice, "loading", reading, hasRead},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := gatetest.Redis(t, tt.args...)
			o := ofRedis(t, s.URL(), tt.limits, ofKind(tt.kind))
			o.harm, o.mend = func(t *testing.T, _ fleet) { tt.harm(s)(t) }, tt.mend(s)
			o.endure(t)
		})
	}
}

// unsaved lets the server fail to save, upon which it refuses writes.
func unsaved(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) {
		if err := os.Mkdir(filepath.Join(s.Dir(), "dump.rdb"), 0o700); err != nil { // what it saves is renamed to that
			t.Fatal(err)
		}
		s.Do(t, "BGSAVE")
		s.Await(t, "rdb_last_bgsave_status:err", "INFO", "persistence")
	}
}

func saved(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) {
		if err := os.Remove(filepath.Join(s.Dir(), "dump.rdb")); err != nil {
			t.Fatal(err)
		}
		s.Do(t, "BGSAVE")
		s.Await(t, "rdb_last_bgsave_status:ok", "INFO", "persistence")
	}
}

// busy runs a script that does not end by itself.
func busy(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.TryDo(t, "EVAL", "while true do end", "0") // ends with SCRIPT KILL, by an error
		}()
		t.Cleanup(func() { <-ended })
		s.Await(t, "BUSY", "PING")
	}
}

func unbusy(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) {
		s.Do(t, "SCRIPT", "KILL")
		s.Await(t, "PONG", "PING")
	}
}

// loadsSlowly are arguments of a server that takes a while to read its data.
var loadsSlowly = []string{"--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no"}

// reading kills the server and starts it again: until hasRead it refuses everything.
func reading(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) {
		s.Do(t, "EVAL", "for i = 1, 1000 do redis.call('SET', 'ballast' .. i, string.rep('x', 2000), 'EX', 3600) end", "0")
		s.Do(t, "SAVE")
		s.Kill(t)
		s.Launch(t)
	}
}

func hasRead(s *gatetest.RedisServer) func(*testing.T) {
	return func(t *testing.T) { s.Await(t, "PONG", "PING") }
}

// Scripts that are flushed are sent again: nobody notices.
func TestRedisForgetsItsScripts(t *testing.T) {
	s := gatetest.Redis(t)
	o := ofRedis(t, s.URL(), exactly, nil)
	o.mend = func(t *testing.T) { s.Do(t, "SCRIPT", "FLUSH") }
	o.harm = func(t *testing.T, _ fleet) { o.mend(t) }
	o.endure(t)
}

// A network that delays answers: within the time of a call they are waited for;
// beyond it nobody waits.
func TestRedisIsSlow(t *testing.T) {
	for _, delay := range []time.Duration{5 * time.Millisecond, callTimeout, 500 * time.Millisecond} {
		t.Run(fmt.Sprint(delay), func(t *testing.T) {
			t.Parallel()
			s := gatetest.Redis(t)
			p := gatetest.NewProxy(t, s.Addr())
			o := ofRedis(t, strings.Replace(s.URL(), s.Addr(), p.Addr(), 1), twice, ofKind("timeout"))
			if delay < callTimeout {
				o.limits, o.notices, o.slow = exactly, nil, delay
			}
			o.harm = func(t *testing.T, _ fleet) { p.Delay(t, delay) }
			o.mend = func(t *testing.T) { p.Delay(t, 0) }
			o.endure(t)
		})
	}
}

// A network that is cut.
func TestRedisIsCutOff(t *testing.T) {
	s := gatetest.Redis(t)
	p := gatetest.NewProxy(t, s.Addr())
	o := ofRedis(t, strings.Replace(s.URL(), s.Addr(), p.Addr(), 1), twice, ofKind(""))
	o.harm = func(*testing.T, fleet) { p.Down() }
	o.mend = func(t *testing.T) { p.Up(t) }
	o.endure(t)
}

// The replica that takes over lacks what was counted last.
func TestRedisFailsOver(t *testing.T) {
	s := gatetest.Sentinels(t)
	o := ofRedis(t, s.URL(), thrice, ofKind(""))
	o.harm = func(t *testing.T, _ fleet) {
		s.Servers[1].Freeze(t)
		lasting(t, 300*time.Millisecond)
		s.Servers[0].Kill(t)
	}
	o.mend = func(t *testing.T) {
		s.Servers[1].Thaw(t)
		s.Servers[1].Await(t, "master", "ROLE")
	}
	o.endure(t)
}

// A Cluster of which slots are moved, or masters lost.
func TestRedisClusterOutages(t *testing.T) {
	t.Run("slots move", func(t *testing.T) {
		t.Parallel()
		c := gatetest.Cluster(t)
		// What is about to move may be refused for a moment, on which the gateways count by themselves.
		o := ofRedis(t, c.URL(), twice, nil)
		o.harm = func(t *testing.T, _ fleet) { c.Reshard(t, 0, 1, rounds(300, 3000)) }
		o.mend = func(t *testing.T) { c.Reshard(t, 1, 2, rounds(300, 3000)) }
		o.endure(t)
	})
	t.Run("a master is lost and comes back", func(t *testing.T) {
		t.Parallel()
		c := gatetest.Cluster(t)
		o := ofRedis(t, c.URL(), thrice, ofKind(""))
		o.harm = func(t *testing.T, _ fleet) { c.Masters[1].Kill(t) }
		o.mend = func(t *testing.T) {
			c.Masters[1].Start(t)
			c.Await(t, c.Masters...)
		}
		o.endure(t)
	})
	for name, lose := range map[string]func(s *gatetest.RedisServer, t *testing.T){
		"a replica takes over":                   func(s *gatetest.RedisServer, t *testing.T) { s.Kill(t) },
		"a replica takes over from a silent one": func(s *gatetest.RedisServer, t *testing.T) { s.Freeze(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := gatetest.Cluster(t)
			r := c.Replica(t, 1)
			o := ofRedis(t, c.URL(), thrice, ofKind(""))
			o.harm = func(t *testing.T, _ fleet) { lose(c.Masters[1], t) }
			o.mend = func(t *testing.T) {
				r.Await(t, "master", "ROLE")
				c.Await(t, c.Masters[0], c.Masters[2], r)
			}
			o.endure(t)
		})
	}
}
