package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// The bounds of requests with an idempotency key.
const (
	maxIdempotencyKey = 255     // bytes
	maxRequestBody    = 1 << 20 // as Huma's
)

// replayed are the headers that a repeated request gets again.
func replayed() []string { return []string{"Content-Type", "ETag", "Location"} }

type idempotentKey struct{}

// idempotentRequest is the key that the request holds; nil for none.
func idempotentRequest(ctx context.Context) *store.IdempotentRequest {
	r, _ := ctx.Value(idempotentKey{}).(*store.IdempotentRequest)
	return r
}

// Idempotent makes the server's POST operations carry a request with an
// Idempotency-Key out once: who repeats it within 24 hours gets the same answer.
// Keys belong to the caller. Call it after everything that may refuse a caller.
func (s *Server) Idempotent(open func() (*store.Companion, error)) {
	s.api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		key := ctx.Header("Idempotency-Key")
		c := caller(ctx.Context())
		if key == "" || ctx.Method() != http.MethodPost || c == nil || c.Entitlement == nil {
			next(ctx)
			return
		}
		r, w := humago.Unwrap(ctx)
		i := &idempotent{server: s, op: ctx.Operation(), next: next}
		if err := i.serve(w, r, open, store.IdempotentRequest{Owner: string(c.Principal.Subject), Key: key}); err != nil {
			Write(w, err)
		}
	})
}

// idempotent is one request with a key.
type idempotent struct {
	server *Server
	op     *huma.Operation
	next   func(huma.Context)
	store  *store.Companion
}

func (i *idempotent) serve(w http.ResponseWriter, r *http.Request, open func() (*store.Companion, error), req store.IdempotentRequest) *Error {
	if len(req.Key) > maxIdempotencyKey || !printable(req.Key) {
		return &Error{
			Detail: []Problem{{Loc: []any{"header", "Idempotency-Key"}, Msg: "want 1 to 255 printable ASCII characters", Type: "value_error"}},
			status: http.StatusUnprocessableEntity,
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody+1))
	if err != nil {
		return NewError(http.StatusUnprocessableEntity, "The request's body broke off")
	}
	if len(body) > maxRequestBody {
		return NewError(http.StatusRequestEntityTooLarge, "The request's body is too large")
	}
	req.Hash = requestHash(r, body)
	if i.store, err = open(); err != nil {
		return i.unavailable(err)
	}
	answer, err := i.store.BeginIdempotent(r.Context(), &req)
	switch {
	case errors.Is(err, store.ErrKeyReused):
		return &Error{
			Detail: []Problem{{Loc: []any{"header", "Idempotency-Key"}, Msg: err.Error(), Type: "value_error"}},
			status: http.StatusUnprocessableEntity,
		}
	case errors.Is(err, store.ErrKeyInFlight):
		return Refuse(http.StatusConflict, "request_in_flight", "A request with this Idempotency-Key is being carried out: try again later")
	case errors.Is(err, store.ErrKeyAnswerLost):
		return Refuse(http.StatusConflict, "answer_lost", "The request with this Idempotency-Key was carried out, and its answer is lost: look at the result")
	case err != nil:
		return i.unavailable(err)
	case answer != nil:
		replay(w, answer)
		return nil
	}
	i.carryOut(w, r, body, &req)
	return nil
}

// carryOutTime bounds an operation, within the time after which its key could be
// given to another.
const carryOutTime = store.IdempotencyLease - time.Minute

// carryOut runs the operation and keeps its answer, unless it has failed.
func (i *idempotent) carryOut(w http.ResponseWriter, r *http.Request, body []byte, req *store.IdempotentRequest) {
	// The client may leave: what was begun is done to its end, and written down.
	ctx := context.WithoutCancel(r.Context())
	kept := false
	defer func() {
		if kept {
			return
		}
		if err := i.store.ReleaseIdempotent(ctx, req); err != nil {
			i.server.log.Error("an idempotency key stays taken", zap.Error(err))
		}
	}()
	bounded, cancel := context.WithTimeout(context.WithValue(ctx, idempotentKey{}, req), carryOutTime)
	defer cancel()
	r = r.WithContext(bounded)
	r.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	i.next(humago.NewContext(i.op, r, rec))
	if rec.status >= http.StatusInternalServerError {
		return
	}
	answer := store.IdempotentAnswer{Status: rec.status, Headers: map[string]string{}, Body: rec.body.String()}
	for _, name := range replayed() {
		if v := w.Header().Get(name); v != "" {
			answer.Headers[name] = v
		}
	}
	if err := i.store.FinishIdempotent(ctx, req, answer); err != nil {
		i.server.log.Error("the answer of an idempotency key is lost", zap.Error(err))
		return
	}
	kept = true
}

func (i *idempotent) unavailable(err error) *Error {
	i.server.log.Error("an idempotency key cannot be looked up", zap.Error(err))
	return Unavailable()
}

func replay(w http.ResponseWriter, a *store.IdempotentAnswer) {
	for name, value := range a.Headers {
		w.Header().Set(name, value)
	}
	w.Header().Set("Idempotent-Replayed", "true")
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body) // only a client that has left makes this fail
}

// requestHash is of everything that says what a request asks for.
func requestHash(r *http.Request, body []byte) string {
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("If-Match")} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func printable(s string) bool {
	for _, c := range s {
		if c < 0x20 || c >= 0x7f || c == utf8.RuneError {
			return false
		}
	}
	return true
}

// recorder passes an answer on and keeps it.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
