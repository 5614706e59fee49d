package stripefake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// APIVersion is the version of Stripe's API that the fake speaks.
const APIVersion = "2026-08-26.dahlia"

// DefaultKey is the test mode key of a fake that was given none.
const DefaultKey = "sk_test_stripefake"

// What becomes of a subscription whose payment was retried in vain.
const (
	Cancel = "canceled"
	Unpaid = "unpaid"
	Leave  = "past_due"
)

// Options are how a fake behaves. The zero value is a test mode account on the
// machine's clock that keeps nothing.
type Options struct {
	// Key and LiveKey are the secret keys of the two modes. Key is DefaultKey if
	// empty; without LiveKey there is no live mode.
	Key, LiveKey string
	// Seed decides all ids. Empty: a random one, so that nobody can guess the
	// address of a page.
	Seed string
	// Start freezes the fake's clock at a time, from which only Advance moves it.
	// Zero: the clock runs with Clock, ahead of it by what Advance added.
	Start time.Time
	// Clock is what runs, and what messages are signed and retried by: time.Now,
	// or the frozen clock itself, if it is nil.
	Clock func() time.Time
	// BaseURL is what the addresses of pages begin with, without a slash at the end.
	BaseURL string
	// Receivers are told of events.
	Receivers []Receiver
	// Retries are the waits between attempts to collect a renewal, 3, 5 and 7 days
	// if nil; afterwards AfterRetries is done: Cancel (default), Unpaid or Leave.
	Retries      []time.Duration
	AfterRetries string
	// FinalizeAfter is how long a renewal's invoice stays a draft: an hour if 0,
	// not at all if negative.
	FinalizeAfter time.Duration
	// File keeps the books over restarts. Empty: they are kept in memory only.
	File string
	// Log is told of deliveries that fail and of books that cannot be written.
	Log *zap.Logger
}

// Fake is the provider: an http.Handler with Stripe's API below /v1/ and the
// pages that people see below /pay/, /portal/, /invoice/ and /thanks/. It is safe for
// concurrent use.
type Fake struct {
	options Options
	api     *http.ServeMux
	pages   *http.ServeMux
	wake    chan struct{} // a delivery waits
	// frozenClock: messages are signed by the fake's own, frozen clock.
	frozenClock bool

	mu       sync.Mutex
	state    state
	requests uint64
	saved    string // what File holds
	faults   []*Fault
}

// state is what File holds.
type state struct {
	Seed       string
	Clock      int64 // frozen: the time
	Ahead      int64 // running: seconds ahead of Options.Clock
	Test, Live *mode
}

// New is a fake with the books of its file, or with empty ones.
func New(o Options) (*Fake, error) {
	if o.Key == "" {
		o.Key = DefaultKey
	}
	if o.Retries == nil {
		const day = 24 * time.Hour
		o.Retries = []time.Duration{3 * day, 5 * day, 7 * day}
	}
	switch o.AfterRetries {
	case "":
		o.AfterRetries = Cancel
	case Cancel, Unpaid, Leave:
	default:
		return nil, fmt.Errorf("a subscription does not become %q after its retries", o.AfterRetries)
	}
	if o.FinalizeAfter == 0 {
		o.FinalizeAfter = time.Hour
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	f := &Fake{options: o, wake: make(chan struct{}, 1)}
	f.state = state{Seed: o.Seed, Test: &mode{}, Live: &mode{Livemode: true}}
	if f.state.Seed == "" {
		f.state.Seed = rand.Text()
	}
	if !o.Start.IsZero() {
		f.state.Clock = o.Start.Unix()
	}
	if o.File != "" {
		if err := f.load(); err != nil {
			return nil, err
		}
	}
	if o.Clock == nil {
		f.options.Clock, f.frozenClock = time.Now, !o.Start.IsZero()
	}
	f.state.Test.fake, f.state.Live.fake = f, f
	f.api = f.routes()
	var err error
	if f.pages, err = f.pageRoutes(); err != nil {
		return nil, fmt.Errorf("reading the billing fake's pages: %w", err)
	}
	return f, nil
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.Path) >= 4 && r.URL.Path[:4] == "/v1/" {
		f.serveAPI(w, r)
		return
	}
	f.pages.ServeHTTP(w, r)
}

// SetBaseURL changes what the addresses of pages begin with, from now on.
func (f *Fake) SetBaseURL(base string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.options.BaseURL = base
}

// Now is the fake's time.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Unix(f.unixNow(), 0).UTC()
}

// unixNow is Now under the lock.
func (f *Fake) unixNow() int64 {
	if !f.options.Start.IsZero() {
		return f.state.Clock
	}
	return f.options.Clock().Unix() + f.state.Ahead
}

// Advance moves the clock and does what falls due on the way, in order:
// renewals, trials, retries, expiries. A negative duration is an error, since
// what was done is not undone.
func (f *Fake) Advance(d time.Duration) error {
	if d < 0 {
		return errors.New("moving the clock back")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	seconds := int64(d / time.Second)
	if f.options.Start.IsZero() {
		f.state.Ahead += seconds
	} else {
		f.state.Clock += seconds
	}
	f.catchUp()
	return f.save()
}

// AdvanceTo is Advance to a time that is not in the past.
func (f *Fake) AdvanceTo(t time.Time) error { return f.Advance(t.Sub(f.Now())) }

// catchUp does what has fallen due.
func (f *Fake) catchUp() {
	now := f.unixNow()
	for _, m := range f.modes() {
		m.settle(now)
	}
}

func (f *Fake) modes() []*mode { return []*mode{f.state.Test, f.state.Live} }

// change runs what is not a request of the API on the books of test mode, or of
// live mode.
func (f *Fake) change(live bool, do func(*mode) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	m := f.state.Test
	if live {
		m = f.state.Live
	}
	m.now, m.by = f.unixNow(), nil
	defer f.ring()
	return errors.Join(do(m), f.save())
}

// Run does what falls due as time goes by and delivers events, until the context
// ends.
func (f *Fake) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		f.tick()
		f.Deliver(ctx)
		f.tick() // what was delivered
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-tick.C:
		}
	}
}

func (f *Fake) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	if err := f.save(); err != nil {
		f.options.Log.Error("the billing fake's books cannot be kept", zap.Error(err))
	}
}
