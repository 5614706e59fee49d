package caddymodule

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quotagate/quotagate/caddymodule/answer"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// exchange is one request on its way through the handler: the response writer
// that the next handlers see, and what placeholders tell of it. It passes
// every byte on as it comes, and adds rate limit fields to the final header.
//
// It is what the handler allocates for a request, and lives as long as the
// request's replacer: what is needed for less is in the ticket or on the stack.
type exchange struct {
	caddyhttp.ResponseWriterWrapper

	h      *Handler
	repl   *caddy.Replacer // nil outside of Caddy's server
	caller gate.Caller
	ticket *gate.Ticket // nil once settled
	fields answer.Fields
	denied *quota.Denial
	// host and origin are those of the request as it came.
	host, origin string

	status int // of the final header, 0 before it
	stream *gate.Stream

	// remaining is for placeholders after the ticket is gone. Most requests have one scope.
	remaining     []remaining
	remainingRoom [1]remaining
}

type remaining struct {
	scope string
	left  int64
}

func newExchange(h *Handler, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{h: h, host: r.Host}
	x.ResponseWriter = w
	if o := r.Header["Origin"]; len(o) > 0 {
		x.origin = o[0]
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		x.repl = repl
		repl.Map(x.placeholder)
	}
	return x
}

// WriteHeader adds the fields to the final header. Informational answers
// (RFC 9110, 15.2) pass as they are.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		x.final(status)
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) final(status int) {
	if x.status != 0 {
		return
	}
	x.status = status
	header := x.ResponseWriter.Header()
	x.fields.Apply(header, x.h.headersMode)
	if x.origin != "" {
		x.h.cors.Observe(x.host, x.origin, header)
	}
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	x.final(http.StatusOK)
	return x.ResponseWriter.Write(p)
}

// ReadFrom keeps the short way (sendfile) that the server offers.
func (x *exchange) ReadFrom(r io.Reader) (int64, error) {
	x.final(http.StatusOK)
	return x.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController calls. An answer that is flushed
// may last, so it is registered as a stream.
func (x *exchange) FlushError() error {
	x.final(http.StatusOK)
	x.lasts(x.interrupt)
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Flush implements http.Flusher, for handlers that know nothing newer.
func (x *exchange) Flush() {
	_ = x.FlushError() // the interface has no way to tell
}

// Hijack hands the connection over, and remembers how to close it.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil {
		x.endStream()
		x.lasts(func() { _ = conn.Close() }) // it is closed either way
	}
	return conn, rw, err
}

// lasts registers the answer to a known caller as a stream.
func (x *exchange) lasts(closeNow func()) {
	if x.stream != nil || x.caller.Principal == nil || x.caller.Principal.Anonymous() {
		return
	}
	g, err := x.h.app.Gate()
	if err != nil {
		return
	}
	x.stream = g.Runtime().Streams.Add(x.caller.Principal, closeNow)
}

// interrupt ends an answer from outside: its deadlines have passed, so that the
// server gives the connection (or the HTTP/2 stream) up and cancels the request.
func (x *exchange) interrupt() {
	rc := http.NewResponseController(x.ResponseWriter)
	past := time.Unix(1, 0)
	_ = rc.SetWriteDeadline(past) // where it is not supported, the other is
	_ = rc.SetReadDeadline(past)  // as above
}

func (x *exchange) endStream() {
	if x.stream != nil {
		x.stream.Done()
		x.stream = nil
	}
}

// end is called when the next handlers have returned.
func (x *exchange) end() { x.endStream() }

// placeholder implements caddy.ReplacerFunc.
func (x *exchange) placeholder(key string) (any, bool) {
	const remainingPrefix = "quota.remaining."
	switch {
	case key == "http.auth.user.id":
		return x.userID(), true
	case len(key) < len("quota.") || key[:len("quota.")] != "quota.":
		return nil, false
	case key == "quota.account":
		if x.caller.Entitlement == nil {
			return "", true
		}
		return x.caller.Entitlement.Account.ID(), true
	case key == "quota.plan":
		if x.caller.Principal == nil { // a preflight: nobody has been looked for
			return "", true
		}
		return x.caller.PlanName(), true
	case key == "quota.rule":
		if x.denied == nil {
			return "", true
		}
		return x.denied.Rule, true
	case len(key) > len(remainingPrefix) && key[:len(remainingPrefix)] == remainingPrefix:
		return x.left(key[len(remainingPrefix):])
	}
	return nil, false
}

// userID is the verified user's id, empty for an anonymous caller. Caddy's access
// log asks for it as well, and is not told unless log_subjects is on.
func (x *exchange) userID() string {
	if x.caller.Principal == nil || x.caller.Principal.Anonymous() || !x.h.app.LogSubjects && x.logging() {
		return ""
	}
	return x.caller.Principal.Subject.ID()
}

// logging reports whether the request is over and the access log is written:
// Caddy sets this placeholder for it, and for nothing else.
func (x *exchange) logging() bool {
	if x.repl == nil {
		return false
	}
	_, ok := x.repl.Get("http.response.duration_ms")
	return ok
}

func (x *exchange) left(scope string) (any, bool) {
	if x.ticket != nil {
		x.keepRemaining()
	}
	for _, r := range x.remaining {
		if r.scope == scope {
			return r.left, true
		}
	}
	return "", true
}

// keepRemaining copies what is left of the scopes out of the ticket.
func (x *exchange) keepRemaining() {
	x.remaining = x.remainingRoom[:0]
	cs, outcomes := x.ticket.Charges(), x.ticket.Decision().Outcomes
	for i := range cs {
		if i >= len(outcomes) {
			return
		}
		if cs[i].Key.Space == quota.SpaceRate {
			x.remaining = append(x.remaining, remaining{cs[i].Key.Name, max(0, cs[i].Limit.Max-outcomes[i].Used)})
		}
	}
}

// bodyCounter counts what is read of a request's body.
type bodyCounter struct {
	io.ReadCloser
	n atomic.Int64
}

func (b *bodyCounter) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// countBody counts a body of unknown length if a rule spends or frees its bytes.
func countBody(x *exchange, r *http.Request) *bodyCounter {
	if r.ContentLength >= 0 || r.Body == nil || !slices.ContainsFunc(x.ticket.Rules(), countsBytes) {
		return nil
	}
	b := &bodyCounter{ReadCloser: r.Body}
	r.Body = b
	return b
}

// guardTrailers keeps trailers that nobody has announced from telling the backend
// who asks. Without an announcement net/http passes none on.
func guardTrailers(r *http.Request) {
	if len(r.Trailer) > 0 && r.Body != nil {
		r.Body = &trailerGuard{ReadCloser: r.Body, trailer: r.Trailer}
	}
}

// trailerGuard cleans a request's trailers as soon as they were read.
type trailerGuard struct {
	io.ReadCloser
	trailer http.Header
}

func (g *trailerGuard) Read(p []byte) (int, error) {
	n, err := g.ReadCloser.Read(p)
	if err != nil {
		gate.StripTrailers(g.trailer)
	}
	return n, err
}

func countsBytes(a quota.Applied) bool {
	bytes := func(m quota.Metered) bool { return m.Kind == quota.AmountRequestBytes }
	return slices.ContainsFunc(a.Spends, bytes) || slices.ContainsFunc(a.Frees, bytes)
}
