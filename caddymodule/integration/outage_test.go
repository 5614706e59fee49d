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

const (
	outageLimit  = 10
	outageWindow = 4 * time.Second
	// callTimeout is what a call of Redis may take by default.
	callTimeout = 50 * time.Millisecond
	// hiccup is what a busy machine may take away: bounds of time are held to it,
	// and what was measured is told.
	hiccup = 250 * time.Millisecond
	// starvation is how much of the time in which a gateway waits for a CPU that
	// others have may come on top of noticeMax.
	starvation = 3 * time.Second
)

// ordeal is something that happens to a server while gateways serve.
type ordeal struct {
	redis, dsn string // as the gateways know them
	direct     string // the database, past whatever stands before it
	// ahead is harm that was done before the gateways start; nil: none.
	ahead func()
	harm  func(t *testing.T, f fleet)
	mend  func(t *testing.T) // returns when the server is well
	// notices is whether a gateway has noticed; nil: nobody has to. well is whether
	// it goes on as if nothing had been.
	notices, well func(g *gateway) bool
	// strict is what a rule that denies in an outage answers while one is noticed.
	strict int
	// limits is how many times its limit a rate may admit in one window.
	limits int
	// slow is how much longer a request may take once the harm was noticed.
	slow time.Duration
}

// endure puts two gateways through an ordeal. Callers meet no error, usage is
// exact, limits hold within their bound, nobody waits, and what is mended is
// used again within two seconds.
func (o *ordeal) endure(t *testing.T) {
	b := gatetest.NewBackend(nil)
	config := onServers(b.Serve(t).URL, outageLimit, outageWindow)
	if o.limits == exactly { // Redis is well: it is waited for however busy the machine is
		config = patient(config)
	}
	if o.ahead != nil {
		before := runFleet(t, 1, config, o.direct, o.redis) // makes the schema
		before.unlimit()
		before.stop()
		o.ahead()
	}
	f := runFleet(t, 2, config, o.dsn, o.redis, func(_ int, g *gateway) { g.dsn = o.direct })
	if o.ahead == nil {
		f.unlimit()
	}
	tr := &traffic{g: f[0], fleet: f, users: 20, every: 20 * time.Millisecond, paths: []string{"/work", "/free"}}
	var warm, began, noticed, mended time.Time
	back, waited := make([]time.Duration, len(f)), make([]time.Duration, len(f))
	tr.during(t, 8, func() {
		tr.more(t, 200)
		warm = time.Now()
		tr.more(t, 400)
		began = time.Now()
		o.harm(t, f)
		noticed = began
		if o.notices != nil {
			for _, g := range f {
				eventually(t, patience, "the outage is noticed", func() bool { return o.notices(g) })
			}
			noticed = time.Now()
			for i, g := range f {
				if status := g.strict(); status != o.strict {
					t.Errorf("gateway %d answers %d at /strict, want %d", i, status, o.strict)
				}
			}
		}
		lasting(t, time.Duration(rounds(800, 4000))*time.Millisecond)
		for i, g := range f {
			waited[i] = g.starved(t)
		}
		o.mend(t)
		mended = time.Now()
		for i, g := range f {
			eventually(t, noticeMax+starvation, "the server is used again", func() bool { return o.well(g) })
			back[i] = time.Since(mended)
			waited[i] = g.starved(t) - waited[i]
			if back[i] > noticeMax+min(waited[i], starvation) {
				t.Errorf("gateway %d used the server again after %s, in which it waited %s for a CPU", i, back[i], waited[i])
			}
		}
		for _, g := range f { // a busy machine may take calls for another outage
			eventually(t, patience, "a rule that denies in an outage admits", func() bool { return g.strict() == 200 })
			eventually(t, patience, "readiness says so", func() bool { return ready(g) })
		}
		tr.more(t, 200)
	})
	f.stop()
	account(t, f[0], b, tr)
	tr.noServerErrors(t)
	most := overAdmitted(t, b, tr, o.limits*outageLimit, outageWindow)

	usual := quantile(tr.took("/free", warm, began), 0.99)
	first, later := tr.took("/free", began, noticed), tr.took("/free", noticed, mended)
	added := func(ds []time.Duration, part float64) time.Duration { return max(0, quantile(ds, part)-usual) }
	if d := added(first, 0.99); d > callTimeout+hiccup {
		t.Errorf("before it was noticed a request took %s longer", d)
	}
	if d := added(later, 0.5); d > 5*time.Millisecond+o.slow {
		t.Errorf("after it was noticed half of the requests took %s longer", d)
	}
	t.Logf("| %s | %d | %d | 0, 0 | %s | %s | %s | %s | %d of %d |", t.Name(), len(tr.sent), f.outages(), ms(usual), ms(added(first, 0.99)),
		ms(added(later, 0.99)), ms(max(back[0], back[1])), most, outageLimit)
	t.Logf("gateways waited for a CPU meanwhile: %s", waited)
}

// strict is what the rule that denies in an outage answers.
func (g *gateway) strict() int { return g.do("GET", "/strict", access("strict")).StatusCode }

// starved is how long the threads of a gateway have waited for a CPU, all together,
// as Linux counts it. On a machine that has CPUs to spare it hardly grows.
func (g *gateway) starved(t *testing.T) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var sum time.Duration
	for _, file := range files {
		var ran, waited time.Duration
		text, err := os.ReadFile(file)
		if _, bad := fmt.Sscan(string(text), &ran, &waited); err != nil || bad != nil {
			continue // the thread has ended
		}
		sum += waited
	}
	return sum
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// lasting lets an outage last.
func lasting(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// ofKind is whether a gateway goes on without Redis, and says why; empty: for
// whatever reason.
func ofKind(kind string) func(g *gateway) bool {
	return func(g *gateway) bool {
		o := g.sharing().Outage
		return o != nil && (kind == "" || o.Kind == kind)
	}
}

func shares(g *gateway) bool { return g.sharing().Outage == nil }

// flushes is whether usage is written to the records each second.
func flushes(g *gateway) bool {
	usage, _ := g.status()["usage"].(map[string]any)
	lag, ok := usage["lag_seconds"].(float64)
	return ok && lag < 1
}

// degraded and ready are what a gateway's readiness says.
func degraded(g *gateway) bool { return !ready(g) }

func ready(g *gateway) bool {
	return strings.Contains(string(g.do("GET", "/readyz", "").want(g.t, 200).body), `"status":"ready"`)
}

// ofRedis is an ordeal of one Redis.
func ofRedis(t *testing.T, url string, limits int, notices func(*gateway) bool) *ordeal {
	dsn := gatetest.Postgres(t).Database(t)
	return &ordeal{redis: url, dsn: dsn, direct: dsn, limits: limits, strict: 503, notices: notices, well: shares}
}
