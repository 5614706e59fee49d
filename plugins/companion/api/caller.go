package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/store"
)

type callerKey struct{}

// asking is what the context of an operation knows of its request.
type asking struct {
	caller *gate.Caller
	actor  store.Actor
}

// withCaller is the request with the caller that it comes from.
func withCaller(r *http.Request, c *gate.Caller) *http.Request {
	a := asking{caller: c, actor: actorOf(r, c)}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, a))
}

// actorOf is what the audit log says of whoever has sent the request.
func actorOf(r *http.Request, c *gate.Caller) store.Actor {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if ip == "" {
		ip = r.RemoteAddr
		if host, _, err := net.SplitHostPort(ip); err == nil {
			ip = host
		}
	}
	a := store.Actor{Type: store.ActorUser, IP: ip, UserAgent: r.UserAgent(), RequestID: caddymodule.NewDecisionID()}
	if p := c.Principal; p != nil && !p.Anonymous() {
		a.ID, a.Label, a.Impersonator = p.Subject.ID(), p.Email, p.Impersonator
	}
	return a
}

// caller is who asks; nil where nobody knows.
func caller(ctx context.Context) *gate.Caller {
	a, _ := ctx.Value(callerKey{}).(asking)
	return a.caller
}

// Caller is who asks. There always is one in operations that are Authenticated;
// in others it is an error to ask.
func Caller(ctx context.Context) (*gate.Caller, error) {
	c := caller(ctx)
	if c == nil || c.Entitlement == nil {
		return nil, errors.New("an operation that is open to anybody asks who calls")
	}
	return c, nil
}

// Actor is whoever asks, for the audit log: with the address, the user agent and
// an id that finds the request in our log, and with the idempotency key that the
// request holds.
func Actor(ctx context.Context) store.Actor {
	a, _ := ctx.Value(callerKey{}).(asking)
	a.actor.Request = idempotentRequest(ctx)
	return a.actor
}

// browserSchemes are those that a browser sends by itself, once it has a password
// (from a link, say) or an operating system that logs in.
func browserSchemes() []string { return []string{"basic", "digest", "negotiate", "ntlm"} }

// forgeable reports whether another site could have made a browser send the
// request: it changes something, carries no Authorization that a script must be
// allowed to set, and does not say that it comes from this site.
func forgeable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if scheme != "" && !slices.Contains(browserSchemes(), strings.ToLower(scheme)) {
		return false
	}
	if len(r.Header["Cookie"]) == 0 {
		return false // an API key, or another credential that no browser keeps
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site != "same-origin"
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host)
}
