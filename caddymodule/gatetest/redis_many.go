package gatetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisSentinels are a master, its replica, and Sentinels that watch them.
type RedisSentinels struct {
	Name      string // of the master
	Servers   []*RedisServer
	Sentinels []*RedisServer
}

// Sentinels starts a master with a replica, and three Sentinels. More arguments
// are the servers'.
func Sentinels(t testing.TB, args ...string) *RedisSentinels {
	t.Helper()
	s := &RedisSentinels{Name: "counters"}
	master := Redis(t, args...)
	replica := newRedis(t, append(args, "--replicaof", master.host, master.port, "--repl-diskless-sync-delay", "0")...)
	replica.Start(t)
	replica.Await(t, "master_link_status:up", "INFO", "replication")
	s.Servers = []*RedisServer{master, replica}
	for range 3 {
		sentinel := newRedis(t)
		file := filepath.Join(sentinel.dir, "sentinel.conf")
		config := fmt.Sprintf("port %s\nbind %s\ndir %s\n"+
			"sentinel monitor %[4]s %[5]s %[6]s 2\nsentinel down-after-milliseconds %[4]s 500\n"+
			"sentinel failover-timeout %[4]s 2000\nsentinel parallel-syncs %[4]s 1\n",
			sentinel.port, sentinel.host, sentinel.dir, s.Name, master.host, master.port)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		sentinel.args = []string{file, "--sentinel"}
		sentinel.Start(t)
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		sentinel.Await(t, "num-other-sentinels\n2", "SENTINEL", "MASTER", s.Name)
		sentinel.Await(t, "num-slaves\n1", "SENTINEL", "MASTER", s.Name)
	}
	return s
}

// URL is the address for `counters redis`.
func (s *RedisSentinels) URL() string {
	var hosts []string
	for _, sentinel := range s.Sentinels {
		hosts = append(hosts, sentinel.Addr())
	}
	return "redis+sentinel://" + strings.Join(hosts, ",") + "/" + s.Name
}

// nodeTimeout is how long a node is silent before others take it for dead.
const nodeTimeout = 2 * time.Second

// RedisCluster are three masters without replicas.
type RedisCluster struct{ Masters []*RedisServer }

// Cluster starts a Redis Cluster of three masters. More arguments are the servers'.
func Cluster(t testing.TB, args ...string) *RedisCluster {
	t.Helper()
	c := new(RedisCluster)
	for range 3 {
		c.Masters = append(c.Masters, clusterNode(t, args))
	}
	const slots = 16384
	for i, m := range c.Masters {
		first, last := i*slots/3, (i+1)*slots/3-1
		m.Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last))
		m.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
	}
	for _, m := range c.Masters[1:] {
		m.meet(t, c.Masters[0])
	}
	for _, m := range c.Masters {
		m.Await(t, "cluster_state:ok", "CLUSTER", "INFO")
		m.Await(t, "cluster_known_nodes:3", "CLUSTER", "INFO")
	}
	return c
}

// Replica adds a replica of the i-th master, which takes over when that fails.
func (c *RedisCluster) Replica(t testing.TB, i int, args ...string) *RedisServer {
	t.Helper()
	r := clusterNode(t, args)
	r.meet(t, c.Masters[0])
	r.Await(t, "cluster_known_nodes:"+strconv.Itoa(len(c.Masters)+1), "CLUSTER", "INFO")
	// The node of its master may not be known by its name at once.
	r.Await(t, "OK", "CLUSTER", "REPLICATE", c.Masters[i].Do(t, "CLUSTER", "MYID"))
	r.Await(t, "master_link_status:up", "INFO", "replication")
	for _, m := range c.Masters { // they are to vote for it
		m.Await(t, "slave", "CLUSTER", "NODES")
	}
	return r
}

// Reshard moves n slots, with what is in them, from one master to another.
func (c *RedisCluster) Reshard(t testing.TB, from, to, n int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "redis-cli", "--cluster", "reshard", c.Masters[0].Addr(),
		"--cluster-from", c.Masters[from].Do(t, "CLUSTER", "MYID"), "--cluster-to", c.Masters[to].Do(t, "CLUSTER", "MYID"),
		"--cluster-slots", strconv.Itoa(n), "--cluster-yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("resharding: %v: %s", err, out)
	}
}

// Await waits until all masters that live say that all slots are served.
func (c *RedisCluster) Await(t testing.TB, living ...*RedisServer) {
	t.Helper()
	for _, m := range living {
		m.Await(t, "cluster_state:ok", "CLUSTER", "INFO")
	}
}

func clusterNode(t testing.TB, args []string) *RedisServer {
	t.Helper()
	return Redis(t, append([]string{
		"--cluster-enabled", "yes", "--cluster-port", freePort(t), "--cluster-node-timeout", strconv.FormatInt(nodeTimeout.Milliseconds(), 10),
	}, args...)...)
}

// meet makes two nodes known to each other. They give up when that takes longer than
// the node timeout, as it may on a busy machine: then they are told again.
func (s *RedisServer) meet(t testing.TB, other *RedisServer) {
	t.Helper()
	own, others := s.Do(t, "CLUSTER", "MYID"), other.Do(t, "CLUSTER", "MYID")
	var told time.Time
	Await(t, startWithin, func() error {
		if time.Since(told) > nodeTimeout {
			told = time.Now()
			s.Do(t, "CLUSTER", "MEET", other.host, other.port, other.busPort())
		}
		if !strings.Contains(s.Do(t, "CLUSTER", "NODES"), others) || !strings.Contains(other.Do(t, "CLUSTER", "NODES"), own) {
			return errors.New("two nodes do not know each other")
		}
		return nil
	})
}

func (s *RedisServer) busPort() string {
	for i, a := range s.args {
		if a == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

// URL is the address for `counters redis`.
func (c *RedisCluster) URL() string {
	var hosts []string
	for _, m := range c.Masters {
		hosts = append(hosts, m.Addr())
	}
	return "redis+cluster://" + strings.Join(hosts, ",")
}
