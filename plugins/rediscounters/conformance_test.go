package rediscounters

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/plugins/rediscounters/address"
)

func TestMain(m *testing.M) { gatetest.VerifyNoLeaks(m) }

var prefixes atomic.Int64

// options are those of an engine with keys of its own.
func options(t testing.TB, url string) Options {
	t.Helper()
	a, err := address.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Address: a, Prefix: fmt.Sprintf("test%d", prefixes.Add(1)), Timeout: 5 * time.Second, // the machine may be busy
	}
}

// openTest opens an engine that is closed when the test ends.
func openTest(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func conforms(t *testing.T, url string) {
	t.Helper()
	gatetest.RunCounters(t, func(t *testing.T) *gatetest.Counters {
		return &gatetest.Counters{Engine: openTest(t, options(t, url)), Now: time.Now, Advance: time.Sleep, Real: true}
	})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conforms(t, gatetest.Redis(t).URL())
}

// TestConformanceEncrypted: through TLS, whose connections gather what is written too.
func TestConformanceEncrypted(t *testing.T) {
	t.Parallel()
	_, url := encrypted(t)
	conforms(t, url)
}

func TestConformanceSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	gatetest.Redis(t, "--unixsocket", socket)
	conforms(t, "unix://"+socket)
}

func TestConformanceSentinel(t *testing.T) {
	t.Parallel()
	conforms(t, gatetest.Sentinels(t).URL())
}

func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	conforms(t, gatetest.Cluster(t).URL())
}
