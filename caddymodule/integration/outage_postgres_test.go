package integration

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// Whatever becomes of Postgres, see endure: known callers are judged by what is
// cached, and usage is in the counters until it can be written.
func TestPostgresOutages(t *testing.T) { // alone: gateways that starve are taken for dead
	for name, prepare := range map[string]func(o *ordeal, p *gatetest.Proxy){
		"down at the start": func(o *ordeal, p *gatetest.Proxy) {
			o.ahead, o.notices = p.Down, degraded
			o.harm = func(*testing.T, fleet) {}
			o.mend = func(t *testing.T) { p.Up(t) }
		},
		"lost in the middle": func(o *ordeal, p *gatetest.Proxy) {
			o.notices = degraded
			o.harm = func(*testing.T, fleet) { p.Down() }
			o.mend = func(t *testing.T) { p.Up(t) }
		},
		"hanging": func(o *ordeal, p *gatetest.Proxy) {
			o.notices = degraded
			o.harm = func(t *testing.T, f fleet) { p.Hang(t); f.strangers(t) }
			o.mend = func(t *testing.T) { p.Resume(t) }
		},
		"slow": func(o *ordeal, p *gatetest.Proxy) {
			o.harm = func(t *testing.T, f fleet) { p.Delay(t, 500*time.Millisecond); f.strangers(t) }
			o.mend = func(t *testing.T) { p.Delay(t, 0) }
		},
		"its connections all taken": func(o *ordeal, _ *gatetest.Proxy) {
			var tx *sql.Tx
			o.notices = degraded
			o.harm = func(t *testing.T, f fleet) {
				var err error
				if tx, err = f[0].db().Begin(); err != nil {
					t.Fatal(err)
				}
				if _, err = tx.Exec(`LOCK TABLE accounts, subscriptions, user_controls, usage_totals IN ACCESS EXCLUSIVE MODE`); err != nil {
					t.Fatal(err)
				}
				f.strangers(t)
			}
			o.mend = func(t *testing.T) {
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := gatetest.Postgres(t)
			direct := server.Database(t)
			p := gatetest.NewProxy(t, server.Addr())
			o := ordeal{
				redis: gatetest.Redis(t).URL(), dsn: strings.Replace(direct, server.Addr(), p.Addr(), 1), direct: direct,
				limits: exactly, strict: 200, well: flushes,
			}
			prepare(&o, p)
			o.endure(t)
		})
	}
}

// strangers are callers of whom nobody has heard: each is let in, and asks the
// records for what they do not answer. There are more than the gateways have
// connections.
func (f fleet) strangers(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 40 {
		for n, g := range f {
			wg.Go(func() {
				r, err := g.try(client(t), "GET", "/free", access(fmt.Sprint("stranger", i, "at", n)), nil)
				if err != nil || r.StatusCode != 200 {
					t.Errorf("a stranger: %v %v", r, err)
				}
			})
		}
	}
	wg.Wait()
}
