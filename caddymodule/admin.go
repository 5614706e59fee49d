package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

func init() { caddy.RegisterModule(AdminAPI{}) }

// AdminAPI adds routes to Caddy's admin API, which is for operators on the
// same machine:
//
//	GET    /quota/status   what the gate does and how it fares
//	DELETE /quota/cache    forget all cached entitlements
//	POST   /quota/explain  what would become of a request
type AdminAPI struct{}

// Status is the answer of GET /quota/status.
type Status struct {
	// Version, Caddy and Go are the versions of this build.
	Version string `json:"version"`
	Caddy   string `json:"caddy"`
	Go      string `json:"go"`
	// AppliedChange is the number of the newest change of the records that
	// requests are judged by.
	AppliedChange int64       `json:"applied_change"`
	Cache         CacheStatus `json:"cache"`
	Usage         UsageStatus `json:"usage"`
	// OpenStreams are open event streams and hijacked connections of known callers.
	OpenStreams int           `json:"open_streams"`
	Sharing     SharingStatus `json:"sharing"`
	// Failures are counted since the process began.
	Failures FailureStatus `json:"failures"`
	// LastFault is the latest failure of a dependency; null: none yet.
	LastFault *FaultStatus `json:"last_fault"`
}

// CacheStatus is the state of the entitlement cache.
type CacheStatus struct {
	Entries   int   `json:"entries"`
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	Stale     int64 `json:"stale"`     // answers from an expired entry while the records failed
	Fallbacks int64 `json:"fallbacks"` // answers by the default plan while the records failed
}

// UsageStatus is the state of metering.
type UsageStatus struct {
	// LastFlush is when usage was last written to the records, null before the
	// first time; LagSeconds is how long ago that was.
	LastFlush      *time.Time `json:"last_flush"`
	LagSeconds     *float64   `json:"lag_seconds"`
	RollupsDropped int64      `json:"rollups_dropped"`
}

// SharingStatus is how this gateway shares limits with others.
type SharingStatus struct {
	// Gateways is how many processes share the limits, as far as this one knows.
	Gateways int `json:"gateways"`
	// Outage is set while the shared counters are out of reach.
	Outage *OutageStatus `json:"outage"`
	// What was judged in this process meanwhile, since it began.
	LocalAdmitted int64 `json:"local_admitted"`
	LocalDenied   int64 `json:"local_denied"`
	// Epochs of dead gateways that this one closed, and whose totals it copied.
	EpochsReaped int64 `json:"epochs_reaped"`
	EpochsCopied int64 `json:"epochs_copied"`
}

// OutageStatus is a time in which the counters are out of reach.
type OutageStatus struct {
	Since time.Time `json:"since"`
	Kind  string    `json:"kind"` // such as timeout, unreachable or loading
}

// FailureStatus counts failures by what has failed.
type FailureStatus struct {
	Loads     int64 `json:"loads"`      // of entitlements
	Watch     int64 `json:"watch"`      // of the records, for changes
	Counters  int64 `json:"counters"`   // reservations
	Refunds   int64 `json:"refunds"`    // what was to be given back and stays charged
	ColdLoads int64 `json:"cold_loads"` // of what was used, for cold counters
	Flushes   int64 `json:"flushes"`    // of usage; tried again
}

// FaultStatus is one failure.
type FaultStatus struct {
	Part  string    `json:"part"` // records or counters
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// CaddyModule returns the module's information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.quota", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes are the routes above. Caddy mounts them before it loads any app, so
// each request looks for the running one.
func (*AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		adminRoute("/quota/status", http.MethodGet, serveStatus),
		adminRoute("/quota/cache", http.MethodDelete, serveCache),
		adminRoute("/quota/explain", http.MethodPost, serveExplain),
	}
}

func adminRoute(path, method string, serve func(*App, http.ResponseWriter, *http.Request) error) caddy.AdminRoute {
	return caddy.AdminRoute{Pattern: path, Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method {
			w.Header().Set("Allow", method)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("%s takes %s only", path, method)}
		}
		app, err := activeApp()
		if err != nil {
			return err
		}
		return serve(app, w, r)
	})}
}

// activeApp is the app of the running config.
func activeApp() (*App, error) {
	ctx := caddy.ActiveContext()
	if ctx.Context == nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("no config is running yet")}
	}
	v, err := ctx.AppIfConfigured("quota")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, caddy.APIError{
			HTTPStatus: http.StatusNotFound,
			Err:        errors.New("the running config has neither the global option quota nor a quota directive"),
		}
	}
	if err != nil {
		return nil, fmt.Errorf("finding the app quota: %w", err)
	}
	app, ok := v.(*App)
	if !ok {
		return nil, fmt.Errorf("finding the app quota: it is a %T", v)
	}
	return app, nil
}

func serveStatus(app *App, w http.ResponseWriter, _ *http.Request) error {
	g, err := app.Gate()
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return writeAdmin(w, statusOf(g.Runtime()))
}

func statusOf(rt *gate.Runtime) Status {
	build, s := buildLabels(), rt.Stats
	st := Status{
		Version: build["version"], Caddy: build["caddy"], Go: build["go"],
		AppliedChange: rt.Entitlements.Applied(),
		Cache: CacheStatus{
			Entries: rt.Entitlements.Len(), Hits: s.CacheHits.Load(), Misses: s.CacheMisses.Load(),
			Stale: s.CacheStale.Load(), Fallbacks: s.Fallbacks.Load(),
		},
		Usage:       UsageStatus{RollupsDropped: s.RollupsDropped.Load()},
		OpenStreams: rt.Streams.Len(),
		Sharing: SharingStatus{
			Gateways: rt.Gateways(), LocalAdmitted: s.LocalAdmitted.Load(), LocalDenied: s.LocalDenied.Load(),
			EpochsReaped: s.EpochsReaped.Load(), EpochsCopied: s.EpochsCopied.Load(),
		},
		Failures: FailureStatus{
			Loads: s.LoadFailures.Load(), Watch: s.WatchFailures.Load(), Counters: s.CounterFailures.Load(),
			Refunds: s.RefundFailures.Load(), ColdLoads: s.ColdFailures.Load(), Flushes: s.FlushFailures.Load(),
		},
	}
	if at := s.LastFlush(); !at.IsZero() {
		utc, lag := at.UTC(), time.Since(at).Seconds()
		st.Usage.LastFlush, st.Usage.LagSeconds = &utc, &lag
	}
	if o := rt.Outage(); o != nil {
		st.Sharing.Outage = &OutageStatus{Since: o.Since.UTC(), Kind: string(o.Kind)}
	}
	if f := s.LastFault(); f != nil {
		st.LastFault = &FaultStatus{Part: f.Part, At: f.At.UTC(), Error: f.Err}
	}
	return st
}

func serveCache(app *App, w http.ResponseWriter, _ *http.Request) error {
	g, err := app.Gate()
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	entitlements := g.Runtime().Entitlements
	dropped := entitlements.Len()
	entitlements.Drop()
	return writeAdmin(w, struct {
		Dropped int `json:"dropped"`
	}{dropped})
}

func writeAdmin(w http.ResponseWriter, body any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// Interface guards.
var (
	_ caddy.Module      = (*AdminAPI)(nil)
	_ caddy.AdminRouter = (*AdminAPI)(nil)
)
