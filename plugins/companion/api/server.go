package api

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"go.uber.org/zap"
)

// Identify tells who sent a request and what that caller may do. A caller who is
// refused whatever it asks for is a *quota.Denial; another error is a fault.
type Identify func(*http.Request) (gate.Caller, error)

// Server answers the requests that an operation was registered for, and passes
// all others on. It is safe for concurrent use once its operations are registered.
type Server struct {
	api      huma.API
	mux      *http.ServeMux
	identify Identify
	log      *zap.Logger
	origins  origins
	catchUp  func(context.Context)
}

// Option changes what NewServer makes.
type Option func(*options)

type options struct {
	description *Description
	catchUp     func(context.Context)
}

// In makes the server's operations part of a description that others share.
func In(d *Description) Option { return func(o *options) { o.description = d } }

// CatchUp is called before a change is answered, so that the caller's next request
// is judged by it.
func CatchUp(f func(context.Context)) Option { return func(o *options) { o.catchUp = f } }

// NewServer is a server without operations but the one that describes them.
func NewServer(identify Identify, log *zap.Logger, opts ...Option) *Server {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.description == nil {
		o.description = NewDescription()
	}
	// Anybody can send what is refused, as often as he likes.
	log = gate.Sampled(log, time.Second, 20, 100)
	s := &Server{mux: http.NewServeMux(), identify: identify, log: log, catchUp: o.catchUp}
	s.origins.log = log
	s.api = newAPI(s.mux, o.description)
	s.api.UseMiddleware(s.authenticate)
	return s
}

// API is where operations are registered.
func (s *Server) API() huma.API { return s.api }

// Log is the server's log, which drops repeated lines under load.
func (s *Server) Log() *zap.Logger { return s.log }

// ServeHTTP answers what is of the API and passes the rest on: other paths,
// other methods (CORS preflights with them, which the backend answers). A
// request that is explained and not sent ends here, judged by nobody, as the
// real one would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !s.serves(r) {
		return next.ServeHTTP(w, r)
	}
	if caddymodule.Explaining(r.Context()) {
		return nil
	}
	w.Header().Set("Cache-Control", "no-store")
	s.origins.apply(w.Header(), r, next)
	c, err := s.identify(r)
	var d *quota.Denial
	switch {
	case errors.As(err, &d):
		s.refuse(w, r, d, &c)
	case err != nil:
		s.log.Error("identifying the caller failed", zap.Error(err))
		Write(w, Unavailable())
	default:
		if s.catchUp != nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
			w = &changeWriter{w, func() { s.catchUp(r.Context()) }}
		}
		s.mux.ServeHTTP(w, withCaller(r, &c))
	}
	return nil
}

// changeWriter answers that something was changed when this process has caught up
// with it: an answer that is repeated for an idempotency key is given so, too.
type changeWriter struct {
	http.ResponseWriter
	catchUp func()
}

func (w *changeWriter) WriteHeader(status int) {
	if status < http.StatusMultipleChoices {
		w.catchUp()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *changeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serves reports whether an operation of that method and path was registered. A
// path is compared as the client wrote it, decoded segment by segment: %2F is
// never a separator. What the mux would redirect (double slashes, dots) is
// somebody else's path.
func (s *Server) serves(r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		return false // most requests, at little cost
	}
	written := r.URL.EscapedPath()
	if path.Clean(written) != written {
		return false
	}
	_, pattern := s.mux.Handler(r)
	return pattern != ""
}

// authenticate lets nobody without an account reach an operation that demands one.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if len(ctx.Operation().Security) == 0 {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	c := caller(ctx.Context())
	if c != nil && c.Entitlement != nil {
		if forgeable(r) {
			Write(w, Refuse(http.StatusForbidden, "cross_site_request",
				"A request with a cookie must come from this site: send the token in the Authorization header"))
			return
		}
		next(ctx)
		return
	}
	code := quota.CodeUnauthenticated
	if c != nil && c.Invalid != nil {
		code = quota.CodeInvalidToken
	}
	s.Deny(ctx, code)
}

// Deny answers the request of an operation with the denial of that code.
func (s *Server) Deny(ctx huma.Context, code string) {
	r, w := humago.Unwrap(ctx)
	s.refuse(w, r, quota.Refuse(code), caller(ctx.Context()))
}

// refuse answers with a denial, which the client finds in the log by its id.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, d *quota.Denial, c *gate.Caller) {
	d.ID = caddymodule.NewDecisionID()
	fields := []zap.Field{zap.String("decision_id", d.ID), zap.String("error", d.Code), zap.Int("status", d.Status)}
	if c != nil && c.Invalid != nil {
		fields = append(fields, zap.String("reason", c.Invalid.Reason))
	}
	s.log.Info("request denied", fields...)
	if err := answer.Write(w, r, d, answer.Options{}); err != nil {
		s.log.Debug("the client left before its denial was written", zap.Error(err))
	}
}
