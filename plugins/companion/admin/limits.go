package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"go.uber.org/zap"
)

type clearInput struct {
	UserPath
	Body *struct {
		Scopes []string `json:"scopes,omitempty" nullable:"true" maxItems:"100" doc:"Without them: all."`
		Reason string   `json:"reason,omitempty" maxLength:"2000"`
	}
}

// limitsCleared is the answer of POST /v1/admin/users/{id}/clear-rate-limits.
type limitsCleared struct {
	Message     string   `json:"message"`
	ClearedKeys []string `json:"cleared_keys" nullable:"false" doc:"quota:<scope>:user:<id> of the gateway, rate_limit:<scope>:account:<e-mail> of the backend."`
	Count       int      `json:"count" minimum:"0"`
	Reach       string   `json:"reach" enum:"all_gateways,this_process" doc:"this_process: counters in memory cannot be emptied from another process. Ask the gateway's own."`
	HostRedis   string   `json:"host_redis" enum:"cleared,unavailable,not_configured" doc:"What became of the backend's own keys."`
}

// What became of the backend's own keys.
const (
	hostCleared       = "cleared"
	hostUnavailable   = "unavailable"
	hostNotConfigured = "not_configured"
)

// clearTime bounds one clearing.
const clearTime = 15 * time.Second

// backendScopes are what a backend counts by itself, whatever plans name.
func backendScopes() []string { return []string{"login", "register", "password_reset", "2fa"} }

// clearRateLimits empties first, and tells the gateways then: whoever looks again
// finds the counters empty.
func (s *service) clearRateLimits(ctx context.Context, st *store.Companion, in *clearInput) (limitsCleared, string, error) {
	var scopes []string
	reason := ""
	if in.Body != nil {
		scopes, reason = in.Body.Scopes, in.Body.Reason
	}
	for _, scope := range scopes {
		if !quota.ValidName(scope) {
			return limitsCleared{}, "", api.Invalid("scopes", "want names of 1 to 64 of a-z, 0-9, '_', '-'")
		}
	}
	u, err := st.User(ctx, in.ID)
	if err != nil {
		return limitsCleared{}, "", err
	}
	named, err := hostScopes(ctx, st, scopes)
	if err != nil {
		return limitsCleared{}, "", err
	}
	// Counters know no transaction: who leaves now does not keep what was done to
	// them out of the audit log.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
	defer cancel()
	// Nor do records that fail in between.
	if err := st.NoteClearing(ctx, s.actor(ctx), u.ID, reason, scopes); err != nil {
		return limitsCleared{}, "", err
	}
	ours, err := s.reset(ctx, quota.UserSubject(u.ID), scopes)
	if err != nil {
		err = fmt.Errorf("emptying the counters: %w", err)
		if len(ours) > 0 { // some of them
			err = errors.Join(err, st.NoteCleared(ctx, s.actor(ctx), u.ID, reason, ours, nil))
		}
		return limitsCleared{}, "", err
	}
	out := limitsCleared{Message: "Rate limits cleared", ClearedKeys: []string{}, Reach: "all_gateways", HostRedis: hostNotConfigured}
	if s.local() {
		out.Reach = "this_process"
	}
	for _, scope := range ours {
		out.ClearedKeys = append(out.ClearedKeys, "quota:"+scope+":user:"+u.ID)
	}
	theirs := s.clearHost(ctx, u, named, &out)
	out.Count = len(out.ClearedKeys)
	return out, "", st.NoteCleared(ctx, s.actor(ctx), u.ID, reason, ours, theirs)
}

// hostScopes are those by which the backend may count: the named ones, or all
// that anybody knows of.
func hostScopes(ctx context.Context, st *store.Companion, named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	known := map[string]bool{}
	for _, scope := range backendScopes() {
		known[scope] = true
	}
	plans, err := st.ListPlans(ctx, store.PlanFilter{})
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		for scope := range p.RateLimits {
			known[scope] = true
		}
	}
	return slices.Sorted(maps.Keys(known)), nil
}

// clearHost removes the backend's own keys, by their names: nothing is searched
// for. It answers the scopes that had one.
func (s *service) clearHost(ctx context.Context, u *store.DirectoryUser, scopes []string, out *limitsCleared) []string {
	if s.hostKeys == nil || u.Email == nil || *u.Email == "" {
		return nil
	}
	keys := make([]string, len(scopes))
	for i, scope := range scopes {
		keys[i] = "rate_limit:" + scope + ":account:" + *u.Email
	}
	removed, err := s.hostKeys(ctx, keys)
	var theirs []string
	for _, i := range removed {
		out.ClearedKeys = append(out.ClearedKeys, keys[i])
		theirs = append(theirs, scopes[i])
	}
	out.HostRedis = hostCleared
	if err != nil {
		// Ours are empty by now: that is said, and why not all is.
		out.HostRedis = hostUnavailable
		s.log.Error("the backend's own rate limits cannot be cleared", zap.Error(err))
	}
	return theirs
}
