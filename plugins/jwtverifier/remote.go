package jwtverifier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// How a remote key set is kept fresh.
const (
	// refreshEvery is how long a key that its issuer has withdrawn is trusted at most.
	refreshEvery = 5 * time.Minute
	// retryMin and retryMax bound the pause after a failure; it doubles.
	retryMin = time.Second
	retryMax = 15 * time.Second
	// unknownEvery is the least time between two refreshes that tokens with an
	// unknown kid bring about: anybody can send such tokens.
	unknownEvery = 5 * time.Second
	// maxWait is how long a token of an unknown key waits for a refresh, counted
	// from the beginning of the refresh.
	maxWait = 2 * time.Second
	// fetchTimeout ends a refresh whose endpoint does not answer.
	fetchTimeout = 10 * time.Second
	maxRedirects = 3
)

// fetch gets the text of a key set.
type fetch func(ctx context.Context) (string, error)

// remote keeps a remote key set fresh: from its first use on in the background,
// and when a token names a key that is unknown. Requests with known keys never
// wait for it.
type remote struct {
	name  string // of the endpoint, for logs
	fetch fetch
	keys  atomic.Pointer[keySet] // never nil

	ctx    context.Context // of the worker; outlives requests and configs
	cancel context.CancelFunc
	work   sync.WaitGroup
	begun  sync.Once

	mu      sync.Mutex
	flight  *flight
	unknown time.Time // of the last refresh for an unknown key
	failing string    // what the last refresh failed with
}

// flight is one refresh that is under way.
type flight struct {
	began time.Time
	done  chan struct{}
	err   error // to be read when done
}

func newRemote(rawURL string, f fetch) *remote {
	r := &remote{name: endpoint(rawURL), fetch: f}
	r.keys.Store(&keySet{named: true})
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// start begins the background refresh, once; the first refresh is under way when it returns.
func (r *remote) start() {
	r.begun.Do(func() {
		first := r.refresh(func() bool { return true })
		r.work.Go(func() { r.loop(first) })
	})
}

// Destruct ends the background work and waits for it; caddy.UsagePool calls it
// when the last config that uses the keys is gone.
func (r *remote) Destruct() error {
	r.begun.Do(func() {}) // never start again
	r.mu.Lock()           // and no refresh begins any more
	r.cancel()
	r.mu.Unlock()
	r.work.Wait()
	return nil
}

func (r *remote) loop(f *flight) {
	pause := retryMin
	for f != nil {
		select {
		case <-f.done:
		case <-r.ctx.Done():
			return
		}
		wait := refreshEvery
		if f.err != nil {
			wait = pause
			pause = min(2*pause, retryMax)
		} else {
			pause = retryMin
		}
		select {
		case <-time.After(wait):
		case <-r.ctx.Done():
			return
		}
		f = r.refresh(func() bool { return true })
	}
}

// refresh joins the refresh that is under way, or begins one if it may; nil if
// it may not.
func (r *remote) refresh(may func() bool) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		return r.flight
	}
	if r.ctx.Err() != nil || !may() {
		return nil
	}
	f := &flight{began: time.Now(), done: make(chan struct{})}
	r.flight = f
	r.work.Go(func() {
		f.err = r.load()
		r.mu.Lock()
		r.flight = nil
		r.report(f.err)
		r.mu.Unlock()
		close(f.done)
	})
	return f
}

// load fetches the set and takes it into use.
func (r *remote) load() error {
	ctx, cancel := context.WithTimeout(r.ctx, fetchTimeout)
	defer cancel()
	text, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	keys, err := parseKeySet(text)
	if err != nil {
		return fmt.Errorf("reading the key set: %w", err)
	}
	r.replace(keys)
	if len(keys.keys) == 0 {
		return errors.New("the key set has no key that may verify signatures")
	}
	return nil
}

// replace takes a fresh key set into use. If a key went away or changed, the
// epoch ends and with it all that was verified before. Only one refresh is
// under way at a time.
func (r *remote) replace(next *keySet) {
	old := r.keys.Load()
	next.epoch = old.epoch
	if !old.keeps(next) {
		next.epoch++
	}
	r.keys.Store(next)
}

// report logs when the endpoint begins to fail, fails otherwise, and recovers.
// It asks Caddy for the logger each time, because a config's own ends with it.
func (r *remote) report(err error) {
	if r.ctx.Err() != nil {
		return
	}
	log := func() *zap.Logger { return caddy.Log().Named("quota.verifiers.jwt").With(zap.String("jwks", r.name)) }
	switch {
	case err != nil && err.Error() != r.failing:
		r.failing = err.Error()
		log().Warn("refreshing keys failed; the known ones go on", zap.Error(err))
	case err == nil && r.failing != "":
		r.failing = ""
		log().Info("refreshing keys works again")
	}
}

// await brings about a refresh for an unknown key, unless there was one
// lately, and waits for it a bounded time.
func (r *remote) await(ctx context.Context) {
	r.start()
	f := r.refresh(func() bool {
		now := time.Now()
		if !r.unknown.IsZero() && now.Sub(r.unknown) < unknownEvery {
			return false
		}
		r.unknown = now
		return true
	})
	if f == nil {
		return
	}
	left := maxWait - time.Since(f.began)
	if left <= 0 {
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// checkURL refuses addresses from which keys could be read or replaced on the
// way: http is for this machine only.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("it is no URL of the form https://host/path")
	case u.User != nil:
		return errors.New("a URL must not hold a user or password: it is written to logs")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("it must be https (http only to localhost): whoever can change the answer can sign tokens")
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// endpoint is the address without what may be secret.
func endpoint(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "malformed"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// httpFetch fetches over HTTP with a client of its own. Each address on the way
// keeps the rule of checkURL.
func httpFetch(rawURL string) fetch {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: fetchTimeout}).DialContext,
		TLSHandshakeTimeout: fetchTimeout,
		ForceAttemptHTTP2:   true,
		// A set is fetched every few minutes: no connection is worth keeping.
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		return checkURL(next.URL.String())
	}}
	return func(ctx context.Context) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
		if err != nil {
			return "", fmt.Errorf("making the request: %w", err)
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		resp, err := client.Do(req)
		if err != nil {
			// The outer error repeats the URL with its query.
			if ue, ok := errors.AsType[*url.Error](err); ok {
				err = ue.Err
			}
			return "", fmt.Errorf("fetching the key set: %w", err)
		}
		text, err := readKeySet(resp)
		return text, errors.Join(err, resp.Body.Close())
	}
}

func readKeySet(resp *http.Response) (text string, err error) {
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("fetching the key set: the answer is %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	if err != nil {
		return "", fmt.Errorf("fetching the key set: %w", err)
	}
	return string(body), nil
}
