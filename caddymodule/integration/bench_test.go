package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// BenchmarkChange is how long it takes from the commit of a change, made by
// hand in the records of a running gateway, until requests are judged by it.
func BenchmarkChange(b *testing.B) {
	backend := gatetest.NewBackend(nil)
	g := start(b, "", site(backend.Serve(b).URL, jobsSite))
	db := g.db()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		var seq int64
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Exec(`INSERT INTO revoked_sessions (session_id, user_id) VALUES ($1, 'u')`, fmt.Sprint("s", time.Now().UnixNano())); err != nil {
			b.Fatal(err)
		}
		if err := tx.QueryRow(`SELECT max(seq) FROM changes`).Scan(&seq); err != nil {
			b.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for {
			if applied, _ := g.status()["applied_change"].(float64); int64(applied) >= seq {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	reportTimes(b, took)
}

// BenchmarkHandler is what the handler adds to a request in the process: a
// verified token and an entitlement from the cache, three charges with durable
// metering in this process or in Redis, the headers. "baseline" is the same request
// without it.
func BenchmarkHandler(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	b.Run("baseline", func(b *testing.B) { benchHandler(b, http.StatusNoContent, next.ServeHTTP) })
	redis := map[string]any{"engine": "redis", "urls": []string{gatetest.Redis(b).URL()}, "timeout": "10s"}
	for name, counters := range map[string]map[string]any{"quota": nil, "quota on redis": redis} {
		handler := provisionHandler(b, counters, 1_000_000_000_000)
		b.Run(name, func(b *testing.B) {
			benchHandler(b, http.StatusNoContent, func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, next) })
		})
	}
}

// BenchmarkRefusal is a request that a rate limit refuses; "baseline" is an answer
// of the same status without fields and without a body.
func BenchmarkRefusal(b *testing.B) {
	baseline := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusTooManyRequests)
		return nil
	}
	b.Run("baseline", func(b *testing.B) { benchHandler(b, http.StatusTooManyRequests, baseline) })
	handler := provisionHandler(b, nil, 0)
	b.Run("quota", func(b *testing.B) {
		benchHandler(b, http.StatusTooManyRequests, func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, nil) })
	})
}

// provisionHandler is the handler of a config with one rule and its limit an hour;
// counters nil are the process's own.
func provisionHandler(b *testing.B, counters map[string]any, limit int64) caddyhttp.MiddlewareHandler {
	b.Helper()
	config := map[string]any{
		"records":      map[string]any{"engine": "sqlite", "path": b.TempDir() + "/quota.db"},
		"default_plan": "enterprise", // unlimited calls a day, counted all the same
		"verifiers":    []any{map[string]any{"kind": "jwt", "secret": secret, "algorithms": []string{"HS256"}}},
	}
	if counters != nil {
		config["counters"] = counters
	}
	quota, err := json.Marshal(config)
	if err != nil {
		b.Fatal(err)
	}
	off := false
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: &off}},
		AppsRaw: caddy.ModuleMap{"quota": quota},
	})
	if err != nil {
		b.Fatal(err)
	}
	cctx, cancel := caddy.NewContext(ctx)
	b.Cleanup(cancel)
	v, err := cctx.LoadModuleByID("http.handlers.quota", json.RawMessage(
		fmt.Appendf(nil, `{"rules":[{"name":"api","limits":[{"scope":"bench","requests":%d,"window":3600000000000}],"spends":[{"metric":"api_calls"}]}]}`, limit)))
	if err != nil {
		b.Fatal(err)
	}
	return v.(caddyhttp.MiddlewareHandler)
}

func benchHandler(b *testing.B, status int, serve caddyhttp.HandlerFunc) {
	b.Helper()
	tokens := make([]string, 100)
	for i := range tokens {
		tokens[i] = "Bearer " + gatetest.HS256(secret, gatetest.Claims(fmt.Sprint("user-", i), time.Hour))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/items", nil)
		r.Header.Set("Authorization", tokens[i%len(tokens)])
		if err := serve(w, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)); err != nil {
			b.Fatal(err)
		}
		if w.Code != status {
			b.Fatalf("status %d: %s", w.Code, w.Body)
		}
	}
}
