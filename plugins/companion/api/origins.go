package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"go.uber.org/zap"
)

// askTimeout bounds how long a backend is waited for that is asked about an
// origin: it says nothing of an answer that it takes no part in.
const askTimeout = time.Second

// origins lets scripts of other origins read our answers where the site's
// backend lets them read its own, and never otherwise. Whose origin that is the
// backend is asked as a browser would ask it, by a preflight; a browser itself
// may not ask again for minutes, so that listening alone would not do.
type origins struct {
	known answer.CORS
	log   *zap.Logger
}

// apply adds to the headers of an answer what the backend says of the request's
// origin. Headers that stand there already win.
func (o *origins) apply(h http.Header, r *http.Request, next caddyhttp.Handler) {
	sent := r.Header["Origin"]
	if len(sent) != 1 || sent[0] == "" || strings.HasSuffix(sent[0], "://"+r.Host) {
		return // no script, or one of this very site
	}
	if o.known.Apply(h, r); h.Get("Access-Control-Allow-Origin") != "" {
		return
	}
	o.ask(r, sent[0], next)
	o.known.Apply(h, r)
}

// ask sends the preflight of the request to the handlers behind.
func (o *origins) ask(r *http.Request, origin string, next caddyhttp.Handler) {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	p := r.Clone(ctx)
	p.Method, p.Body, p.ContentLength = http.MethodOptions, http.NoBody, 0
	p.TransferEncoding, p.Trailer = nil, nil
	// Nothing of the request's own, a credential least of all.
	p.Header = http.Header{
		"Origin":                         {origin},
		"Access-Control-Request-Method":  {r.Method},
		"Access-Control-Request-Headers": {"authorization"},
	}
	w := &headersOnly{header: http.Header{}}
	if err := pass(w, p, next); err != nil {
		o.log.Debug("the backend could not be asked for its CORS policy", zap.Error(err))
		return
	}
	o.known.Observe(origin, w.header)
}

// pass calls the handlers behind. A proxy panics when a backend breaks off: that
// ends the preflight, not the request.
func pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the answer broke off")
		default:
			panic(p)
		}
	}()
	return next.ServeHTTP(w, r)
}

// headersOnly keeps the headers of an answer and drops its body.
type headersOnly struct{ header http.Header }

func (h *headersOnly) Header() http.Header         { return h.header }
func (h *headersOnly) WriteHeader(int)             {}
func (h *headersOnly) Write(b []byte) (int, error) { return len(b), nil }
func (h *headersOnly) Flush()                      {}

// Interface guards.
var (
	_ http.ResponseWriter = (*headersOnly)(nil)
	_ http.Flusher        = (*headersOnly)(nil)
)
