package caddymodule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// The bounds of a probe: whoever asks waits no longer than probeTimeout, and
// however often it is asked, a dependency is pinged once in probeTTL.
const (
	probeTimeout = time.Second
	probeTTL     = time.Second
)

// pinger is what records and counters have in common.
type pinger interface {
	Ping(ctx context.Context) error
}

// probe pings what a gateway depends on, and keeps the answer for a moment.
type probe struct {
	log *zap.Logger

	mu     sync.Mutex // held while pinging: those who ask meanwhile get the same answer
	at     time.Time
	latest Report
	busy   map[string]*atomic.Bool // a ping that does not return is not repeated

	noted sync.Map // the last error's text by dependency, so that a change is logged once
}

func newProbe(log *zap.Logger) *probe {
	return &probe{log: log, busy: map[string]*atomic.Bool{"records": {}, "counters": {}}}
}

// report is the state of the app's dependencies, at most probeTTL old.
func (p *probe) report(app *App) Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.at.IsZero() && time.Since(p.at) < probeTTL {
		return p.latest
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	// Both at once: two slow dependencies cost the time of one.
	records := p.begin(ctx, "records", func() (pinger, error) { return app.Records() })
	counters := p.begin(ctx, "counters", func() (pinger, error) { return app.Counters() })
	checks := map[string]Check{
		"records": p.end(ctx, "records", records), "counters": p.end(ctx, "counters", counters),
	}
	if checks["records"].Status == statusOK && app.flushFailing() {
		checks["records"] = Check{Status: statusDegraded, Detail: "usage cannot be written; it stays in the counters, and the error is in the log"}
	}
	if o := app.outage(); o != nil && checks["counters"].Status == statusOK {
		checks["counters"] = Check{Status: statusDegraded, Detail: "out of reach (" + string(o.Kind) + "); limits are kept in this process"}
	}
	p.latest = Report{Status: statusReady, Checks: checks}
	for _, c := range checks {
		if c.Status != statusOK {
			p.latest.Status = statusDegraded
		}
	}
	p.at = time.Now()
	return p.latest
}

// errBusy says that an earlier ping has not returned yet.
var errBusy = errors.New("an earlier ping has not returned")

// begin pings in the background: a guest that ignores its context holds up nobody.
func (p *probe) begin(ctx context.Context, name string, open func() (pinger, error)) <-chan error {
	done := make(chan error, 1)
	busy := p.busy[name]
	if !busy.CompareAndSwap(false, true) {
		done <- errBusy
		return done
	}
	go func() {
		defer busy.Store(false)
		dependency, err := open()
		if err == nil {
			err = dependency.Ping(ctx)
		}
		done <- err
	}()
	return done
}

func (p *probe) end(ctx context.Context, name string, done <-chan error) Check {
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.note(name, err)
	switch {
	case err == nil:
		return Check{Status: statusOK}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errBusy):
		return Check{Status: statusDegraded, Detail: name + " do not answer within " + probeTimeout.String()}
	}
	return Check{Status: statusDegraded, Detail: name + " report an error, which is in the log"}
}

// note logs that a dependency began to fail, fails in another way, or is well again.
func (p *probe) note(name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	before, known := p.noted.Swap(name, text)
	switch {
	case err != nil && before != text:
		p.log.Warn("a dependency is failing", zap.String("dependency", name), zap.Error(err))
	case err == nil && known && before != "":
		p.log.Info("a dependency is well again", zap.String("dependency", name))
	}
}
