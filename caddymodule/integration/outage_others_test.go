package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// While the JWKS endpoint is away, tokens of known keys go on, those of unknown
// keys are refused, and nobody asks for keys at each request.
func TestJWKSEndpointIsDown(t *testing.T) {
	t.Parallel()
	known, unknown := gatetest.NewKey(t, "ES256", "known"), gatetest.NewKey(t, "ES256", "unknown")
	issuer := gatetest.NewIssuer(t, known)
	b := gatetest.NewBackend(nil)
	config := strings.NewReplacer("secret {env.JWT_SECRET}", "jwks "+issuer.URL, "algorithms HS256", "algorithms ES256").
		Replace(site(b.Serve(t).URL, apiSite))
	g := start(t, "", config)
	by := func(key *gatetest.Key, user string) string {
		return key.Sign(gatetest.With(gatetest.Claims(user, time.Hour), map[string]any{"type": "access"}))
	}
	eventually(t, patience, "the keys are fetched", func() bool {
		return g.do("GET", "/items", by(known, "first")).StatusCode == http.StatusOK
	})
	issuer.Answer(http.StatusServiceUnavailable)
	before := issuer.Fetches()
	for i := range 20 { // each a token that no cache has seen
		g.do("GET", "/items", by(known, fmt.Sprint("u", i))).want(t, http.StatusOK)
		g.do("GET", "/items", by(unknown, fmt.Sprint("u", i))).want(t, http.StatusUnauthorized)
	}
	if n := issuer.Fetches() - before; n < 1 || n > 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
}

// A companion judges nobody: it takes no share of the limits from the gateways,
// which divide them while Redis is away.
func TestCompanionIsNoGateway(t *testing.T) {
	t.Parallel()
	backend := gatetest.NewBackend(nil).Serve(t).URL
	dsn, redis := gatetest.Postgres(t).Database(t), gatetest.Redis(t).URL()
	companion := runFleet(t, 1, fleetConfig(backend, ""), dsn, redis)[0]
	g := runFleet(t, 1, fleetConfig(backend, "\tquota {\n\t\trule all {\n\t\t\tlimit api 10/1m\n\t\t}\n\t}\n"), dsn, redis)[0]
	db := g.db()
	eventually(t, patience, "both have written, and one as a gateway", func() bool {
		var epochs, gateways int
		err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), COUNT(process) FROM gateway_epochs WHERE closed_at IS NULL").Scan(&epochs, &gateways)
		if err != nil {
			t.Fatal(err)
		}
		return epochs == 2 && gateways == 1
	})
	for _, g := range []*gateway{companion, g} {
		if n := g.sharing().Gateways; n != 1 {
			t.Errorf("%d gateways are known, want 1", n)
		}
	}
}

// A Redis that may forget counters is said to be wrong, and used.
func TestRedisThatEvicts(t *testing.T) {
	t.Parallel()
	s := gatetest.Redis(t, "--maxmemory-policy", "allkeys-lru")
	b := gatetest.NewBackend(nil)
	config := strings.Replace(site(b.Serve(t).URL, "\tquota_health\n"+apiSite),
		"records sqlite {$DIR}/quota.db", "records sqlite {$DIR}/quota.db\n\t\tcounters redis {env.QUOTA_REDIS}", 1)
	g := runFleet(t, 1, config, "", s.URL())[0]
	eventually(t, patience, "readiness shows it", func() bool {
		return strings.Contains(string(g.do("GET", "/readyz", "").want(t, 200).body), `"counters":{"status":"degraded"`)
	})
	if !strings.Contains(g.logged(), "set maxmemory-policy noeviction") {
		t.Error("the log does not say what to do")
	}
	if m := g.metric(t, "quotagate_counters_may_be_evicted"); m != "1" {
		t.Errorf("quotagate_counters_may_be_evicted = %s, want 1", m)
	}
	g.do("GET", "/items", access("u")).want(t, 200)
}
