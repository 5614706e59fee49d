package companion

import (
	"context"
	"database/sql"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/rediscounters/address"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

func openStore(t *testing.T, clock *gatetest.Clock) *store.Companion {
	t.Helper()
	db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	return store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite, Now: clock.Now}))
}

// gauge is the value of a gauge.
func gauge(t *testing.T, g prometheus.Gauge) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(g); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// The head is logged whole, and the metric holds its first digits exactly.
func TestAuditHeadIsShown(t *testing.T) {
	t.Parallel()
	s := openStore(t, gatetest.NewClock(time.Now()))
	if _, err := s.GrantAdmin(t.Context(), "ann", store.Actor{}); err != nil {
		t.Fatal(err)
	}
	head, err := s.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	a := &App{log: zap.New(core)}
	if err := a.showAuditHead(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"seq": int64(1), "hash": head.Hash}
	if got := logs.All()[0].ContextMap(); !cmp.Equal(got, want) {
		t.Errorf("logged %v, want %v", got, want)
	}
	if got := gauge(t, auditHeadSeq); got != 1 {
		t.Errorf("seq %v", got)
	}
	value := gauge(t, auditHeadHash)
	if value >= 1<<53 || value != math.Trunc(value) {
		t.Fatalf("%v is no number that a sample holds", value)
	}
	digits := strconv.FormatUint(uint64(value), 16)
	for len(digits) < hashDigits {
		digits = "0" + digits
	}
	known, err := store.ParseAuditHead("1:" + digits)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.VerifyAudit(t.Context(), &known); err != nil {
		t.Errorf("the metric's digits are not the head's: %v", err)
	}
}

// What is kept up is so at once, then at each interval, however long one round
// takes, until it is told to end.
func TestUpkeepIsRegular(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		var at []time.Duration
		var done sync.WaitGroup
		done.Go(func() {
			every(ctx, auditEvery, func(round context.Context) {
				at = append(at, time.Since(began))
				if len(at) == 2 {
					<-round.Done() // a database that does not answer
				}
			})
		})
		time.Sleep(4*time.Minute + time.Second)
		stop()
		done.Wait()
		want := []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute, 4 * time.Minute}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Of several companions one removes what is old.
func TestRetention(t *testing.T) {
	t.Parallel()
	clock := gatetest.NewClock(time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC))
	s := openStore(t, clock)
	a := &App{log: zap.NewNop(), AuditRetention: caddy.Duration(48 * time.Hour)}
	if _, err := s.GrantAdmin(t.Context(), "ann", store.Actor{}); err != nil {
		t.Fatal(err)
	}
	clock.Add(72 * time.Hour)
	for _, holder := range []string{"one", "two"} {
		if err := a.tidyStore(t.Context(), s, holder); err != nil {
			t.Fatal(err)
		}
	}
	head, err := s.AuditHead(t.Context())
	if err != nil || head.Seq != 2 {
		t.Fatalf("the head is %s, %v", head, err)
	}
	r, err := s.VerifyAudit(t.Context(), &head)
	if err != nil || r.Cut != 1 || r.First != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// The backends' own keys are removed by their names, and no others.
func TestHostKeys(t *testing.T) {
	t.Parallel()
	server := gatetest.Redis(t)
	a := &App{quota: &caddymodule.App{HostRedis: server.URL()}}
	if err := a.openHostRedis(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	at, err := address.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	c, err := at.Client(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	const login, other = "rate_limit:login:account:a*@example.com", "rate_limit:login:account:ab@example.com"
	for _, key := range []string{login, other} {
		if err := c.Set(t.Context(), key, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	there, err := a.HostKeys()(t.Context(), []string{"rate_limit:api:account:a*@example.com", login})
	if err != nil || !cmp.Equal(there, []int{1}) {
		t.Errorf("removed %v, %v", there, err)
	}
	if n, err := c.Exists(t.Context(), login, other).Result(); err != nil || n != 1 {
		t.Errorf("%d keys are left, want the other: %v", n, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.HostKeys()(ended, []string{other}); err == nil {
		t.Error("a call that could not be made is no error")
	}
	if (&App{}).HostKeys() != nil {
		t.Error("without host_redis there is something to ask")
	}
}
