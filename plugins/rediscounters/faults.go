package rediscounters

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"

	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/redis/go-redis/v9"
)

// refusal is an error that Redis answers with, before anything was written.
type refusal struct {
	kind gate.FaultKind
	text string
}

func (e *refusal) Error() string { return e.text }

// The refusals that are met on the way to the right server.
const (
	faultMoved gate.FaultKind = "moved"
	faultAsk   gate.FaultKind = "ask"
)

// refusalKinds are the errors with which Redis refuses a command, or a script's
// first write: none of them leaves half a script behind. What is not listed may.
var refusalKinds = map[string]gate.FaultKind{
	"NOSCRIPT": gate.FaultNoScript, "READONLY": gate.FaultReadOnly, "LOADING": gate.FaultLoading,
	"OOM": gate.FaultMemory, "MISCONF": gate.FaultMisconf, "CLUSTERDOWN": gate.FaultClusterDown,
	"BUSY": gate.FaultBusy, "NOAUTH": gate.FaultDenied, "WRONGPASS": gate.FaultDenied, "NOPERM": gate.FaultDenied,
	"MASTERDOWN": gate.FaultReadOnly, "NOREPLICAS": gate.FaultMisconf, "TRYAGAIN": gate.FaultClusterDown,
	"MOVED": faultMoved, "ASK": faultAsk,
}

// answered is the error that a raw answer is, nil if it is none.
func answered(raw []byte) error {
	if len(raw) == 0 || raw[0] != '-' {
		return nil
	}
	line, _, _ := bytes.Cut(raw[1:], []byte("\r\n"))
	return refused(string(line))
}

// refused is the fault that an error's text means.
func refused(text string) *gate.CounterError {
	code, _, _ := strings.Cut(text, " ")
	if _, inner, ok := strings.Cut(text, ": -"); ok && code == "ERR" { // how Redis before 7 reports an error within a script
		code, _, _ = strings.Cut(inner, " ")
	}
	kind, ok := refusalKinds[code]
	switch {
	case ok:
	case strings.HasPrefix(text, "ERR max number of clients"):
		kind, ok = gate.FaultUnreachable, true
	default:
		kind = gate.FaultOther
	}
	return &gate.CounterError{Kind: kind, NotRun: ok, Err: &refusal{kind, text}}
}

// faultOf says what an error of the connection means for the call that got it.
// Nothing that Redis answers comes here.
func faultOf(err error) *gate.CounterError {
	if known := (*gate.CounterError)(nil); errors.As(err, &known) {
		return known
	}
	f := &gate.CounterError{Kind: gate.FaultBroken, Err: err}
	var dial *net.OpError
	var dns *net.DNSError
	var answer redis.Error
	switch {
	case errors.As(err, &dial) && dial.Op == "dial", errors.As(err, &dns),
		errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, redis.ErrClosed):
		f.Kind, f.NotRun = gate.FaultUnreachable, true
	case errors.As(err, &answer): // to what a new connection begins with
		return refused(answer.Error())
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		f.Kind = gate.FaultTimeout
	}
	return f
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// kindOf is the kind of a fault, empty for any other error.
func kindOf(err error) gate.FaultKind {
	if err == nil { // most often, and then nothing is allocated
		return ""
	}
	var f *gate.CounterError
	if errors.As(err, &f) {
		return f.Kind
	}
	return ""
}
