package caddymodule

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

// statusClientGone is what reverse_proxy writes, and calls success, where the
// client left before the backend answered. At times it is another client that
// left: net/http may cancel the request that has got the connection of its request.
const statusClientGone = 499

// fate judges how the handlers ended. What is not certain is Unknown: else an
// aborted request would be a free one.
func fate(r *http.Request, status int, err error) (int, gate.Fate) {
	ctx := r.Context()
	if err == nil {
		switch {
		case status == statusClientGone, status == 0 && ctx.Err() != nil:
			return status, gate.Unknown // nobody knows what the backend did
		case status == 0:
			status = http.StatusOK // net/http sends it when a handler writes nothing
		}
		return status, gate.Answered
	}
	if unreached(r, err) {
		return status, gate.Unreached
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok && r.ContentLength <= tooLarge.Limit {
		return status, gate.Unknown // the backend had the head of it, and as much of the body
	}
	var he caddyhttp.HandlerError
	if status == 0 && errors.As(err, &he) && he.StatusCode < 500 && he.StatusCode != statusClientGone && ctx.Err() == nil {
		return he.StatusCode, gate.Answered // a handler before the backend has refused
	}
	return status, gate.Unknown
}

// unreached reports whether the backend certainly never saw the request.
func unreached(r *http.Request, err error) bool {
	var dial reverseproxy.DialError
	if (errors.As(err, &dial) || noHandshake(err)) && !answeredBefore(r) {
		// What net/http may send twice may have been sent on a connection that broke,
		// before the client left while another was made.
		return r.Context().Err() == nil || !replayable(r)
	}
	// Caddy keeps this error to itself; its text is what tells it from others.
	return strings.HasSuffix(err.Error(), "no upstreams available")
}

// noHandshake reports whether TLS was not agreed on with the backend: nothing is
// sent before that.
func noHandshake(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &untrusted) || errors.As(err, &record) || strings.Contains(err.Error(), "TLS handshake timeout")
}

// answeredBefore reports whether a backend has answered an earlier attempt, which
// lb_retry_match tried again.
func answeredBefore(r *http.Request) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	_, answered := repl.Get("http.reverse_proxy.status_code")
	return answered
}

// replayable reports whether http.Transport sends the request again by itself
// where a connection broke before the answer.
func replayable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return len(r.Header["Idempotency-Key"]) > 0 || len(r.Header["X-Idempotency-Key"]) > 0
}
