package jwtverifier

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

func remoteVerifier(tb testing.TB, i *gatetest.Issuer, more ...string) *Verifier {
	tb.Helper()
	return provision(tb, "jwks "+i.URL+"\nalgorithms ES256\n"+strings.Join(more, "\n"))
}

func TestProvisionDoesNotDial(t *testing.T) {
	t.Parallel()
	issuer := gatetest.NewIssuer(t)
	v := remoteVerifier(t, issuer)
	if err := v.Validate(); err != nil {
		t.Fatal(err)
	}
	_, err := bearer(t, v, "garbage")
	if err == nil || issuer.Fetches() != 0 {
		t.Errorf("%d fetches, %v", issuer.Fetches(), err)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	a, b := gatetest.NewKey(t, "ES256", "a"), gatetest.NewKey(t, "ES256", "b")
	issuer := gatetest.NewIssuer(t, a)
	v := remoteVerifier(t, issuer)
	first, second := a.Sign(claims(nil)), b.Sign(claims(map[string]any{"sub": "u2"}))
	cached := accept(t, v, first, "u1")
	issuer.Publish(a, b)
	accept(t, v, second, "u2")
	if issuer.Fetches() != 2 {
		t.Errorf("%d fetches, want 2", issuer.Fetches())
	}
	if accept(t, v, first, "u1") != cached {
		t.Error("a key that was added emptied the cache")
	}
	// Many unknown keys: no more than one refresh in the interval.
	for range 50 {
		_, err := bearer(t, v, gatetest.NewKey(t, "ES256", "evil").Sign(claims(nil)))
		refuse(t, err, "no key for the token is known")
	}
	if n := issuer.Fetches(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// A key that is withdrawn takes its tokens out of the cache with it.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	a, b, same := gatetest.NewKey(t, "ES256", "a"), gatetest.NewKey(t, "ES256", "b"), gatetest.NewKey(t, "ES256", "a")
	for name, next := range map[string][]*gatetest.Key{"removed": {b}, "replaced": {same, b}} {
		issuer := gatetest.NewIssuer(t, a)
		v := remoteVerifier(t, issuer)
		token := a.Sign(claims(nil))
		accept(t, v, token, "u1")
		issuer.Publish(next...)
		accept(t, v, b.Sign(claims(nil)), "u1")
		_, err := bearer(t, v, token)
		if err == nil {
			t.Errorf("%s: the token still verifies", name)
		}
	}
}

func TestEndpointDown(t *testing.T) {
	t.Parallel()
	a := gatetest.NewKey(t, "ES256", "a")
	issuer := gatetest.NewIssuer(t, a)
	v := remoteVerifier(t, issuer)
	accept(t, v, a.Sign(claims(nil)), "u1")
	for _, spoil := range []func(){
		func() { issuer.Answer(http.StatusServiceUnavailable) },
		func() { issuer.Answer(http.StatusOK); issuer.PublishRaw("<html>") },
		func() { issuer.PublishRaw(gatetest.JWKS(a, a)) },
	} {
		spoil()
		if err := v.core.remote.load(); err == nil {
			t.Error("a broken answer was taken")
		}
		accept(t, v, a.Sign(claims(map[string]any{"jti": time.Now().UnixNano()})), "u1")
	}
}

// A reload with other options goes on with the keys though the endpoint is down.
func TestReloadWhileDown(t *testing.T) {
	t.Parallel()
	a := gatetest.NewKey(t, "ES256", "a")
	issuer := gatetest.NewIssuer(t, a)
	accept(t, remoteVerifier(t, issuer), a.Sign(claims(nil)), "u1")
	issuer.Answer(http.StatusInternalServerError)
	accept(t, remoteVerifier(t, issuer, "require type access"), a.Sign(claims(nil)), "u1")
	if issuer.Fetches() != 1 {
		t.Errorf("%d fetches", issuer.Fetches())
	}
}

// fake is an endpoint without a network, for a clock that is not the real one.
type fake struct {
	fetches atomic.Int64
	mu      sync.Mutex
	text    string
	err     error
	delay   time.Duration
}

func (f *fake) set(text string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text, f.err = text, err
}

func (f *fake) fetch(ctx context.Context) (string, error) {
	f.fetches.Add(1)
	f.mu.Lock()
	text, err, delay := f.text, f.err, f.delay
	f.mu.Unlock()
	select {
	case <-time.After(delay):
		return text, err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// fakeVerifier is a verifier with that endpoint.
func fakeVerifier(t *testing.T, f *fake) *Verifier {
	t.Helper()
	v, err := parse("jwks https://idp.example.com/" + t.Name() + "\nalgorithms ES256")
	if err != nil {
		t.Fatal(err)
	}
	leeway := caddy.Duration(0)
	v.Leeway, v.Scheme, v.UserClaim = &leeway, "Bearer", "sub"
	s, err := v.resolve()
	if err != nil {
		t.Fatal(err)
	}
	r := newRemote(s.jwks, f.fetch)
	t.Cleanup(func() {
		if err := r.Destruct(); err != nil {
			t.Error(err)
		}
	})
	v.core = &core{settings: s, remote: r, cache: newCache(cacheEntries, cacheBytes)}
	return v
}

func TestDownAtStart(t *testing.T) {
	t.Parallel()
	a := gatetest.NewKey(t, "ES256", "a")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: errors.New("connection refused")}
		v := fakeVerifier(t, f)
		token := a.Sign(claims(nil))
		_, err := bearer(t, v, token)
		refuse(t, err, "no key for the token is known")
		f.set(gatetest.JWKS(a), nil)
		time.Sleep(retryMin + time.Millisecond)
		synctest.Wait()
		accept(t, v, token, "u1") // the background has retried
		if n := f.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
	})
}

// With nobody asking, failures are retried ever more slowly, a success seldom.
func TestBackgroundPace(t *testing.T) {
	t.Parallel()
	a := gatetest.NewKey(t, "ES256", "a")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{err: errors.New("connection refused")}
		v := fakeVerifier(t, f)
		v.core.remote.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := f.fetches.Load(); n < 6 || n > 9 {
			t.Errorf("%d fetches in a minute of outage", n)
		}
		f.set(gatetest.JWKS(a), nil)
		time.Sleep(retryMax)
		synctest.Wait()
		before := f.fetches.Load()
		time.Sleep(3*refreshEvery + time.Second)
		synctest.Wait()
		if n := f.fetches.Load() - before; n != 3 {
			t.Errorf("%d refreshes in three intervals", n)
		}
		accept(t, v, a.Sign(claims(nil)), "u1")
		f.set(`{"keys":[]}`, nil)
		time.Sleep(refreshEvery)
		synctest.Wait()
		_, err := bearer(t, v, a.Sign(claims(nil)))
		refuse(t, err, "no key")
	})
}

// A slow endpoint holds up nobody longer than the bound, and known keys not at all.
func TestSlowEndpoint(t *testing.T) {
	t.Parallel()
	a, b := gatetest.NewKey(t, "ES256", "a"), gatetest.NewKey(t, "ES256", "b")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{text: gatetest.JWKS(a)}
		v := fakeVerifier(t, f)
		known, unknown := a.Sign(claims(nil)), b.Sign(claims(nil))
		accept(t, v, known, "u1")
		f.mu.Lock()
		f.delay = time.Hour
		f.mu.Unlock()
		timed := func(token string, least, most time.Duration) {
			t.Helper()
			start := time.Now()
			_, err := bearer(t, v, token)
			if took := time.Since(start); took < least || took > most {
				t.Errorf("took %s, want %s to %s (%v)", took, least, most, err)
			}
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { timed(unknown, maxWait, maxWait) })
		}
		synctest.Wait()
		timed(known, 0, 0)
		timed(a.Sign(claims(map[string]any{"jti": "fresh"})), 0, 0)
		time.Sleep(maxWait / 2)
		timed(unknown, maxWait/2, maxWait/2) // it joins late and waits no longer
		wg.Wait()
		timed(unknown, 0, 0)
		if n := f.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(fetchTimeout)
		if _, err := v.Verify(ctx, request(t, "Authorization", "Bearer "+unknown)); err == nil {
			t.Error("verified by a caller who had left")
		}
	})
}

// One refresh in the interval, however many tokens name unknown keys.
func TestUnknownKeyPace(t *testing.T) {
	t.Parallel()
	a, b := gatetest.NewKey(t, "ES256", "a"), gatetest.NewKey(t, "ES256", "b")
	synctest.Test(t, func(t *testing.T) {
		f := &fake{text: gatetest.JWKS(a)}
		v := fakeVerifier(t, f)
		accept(t, v, a.Sign(claims(nil)), "u1")
		unknown := b.Sign(claims(nil))
		for range 60 {
			_, err := bearer(t, v, unknown)
			refuse(t, err, "no key")
			time.Sleep(time.Second)
		}
		if n := f.fetches.Load(); n != 1+60/int64(unknownEvery/time.Second) {
			t.Errorf("%d fetches in a minute", n)
		}
		// Tokens that are refused anyway bring about none.
		before := f.fetches.Load()
		time.Sleep(2 * unknownEvery)
		_, err := bearer(t, v, b.Sign(claims(map[string]any{"exp": 1})))
		refuse(t, err, "expired")
		if f.fetches.Load() != before {
			t.Error("an expired token made the keys be fetched")
		}
	})
}

func TestStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{delay: time.Hour}
		r := newRemote("https://idp.example.com/keys", f.fetch)
		r.start()
		synctest.Wait()
		if err := r.Destruct(); err != nil {
			t.Fatal(err)
		}
		r.await(t.Context())
		if n := f.fetches.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		unused := newRemote("https://idp.example.com/keys", f.fetch)
		if err := unused.Destruct(); err != nil {
			t.Fatal(err)
		}
		unused.start()
	})
}

func TestHTTPFetch(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/far":
			http.Redirect(w, r, "http://idp.example.com/keys?token=canary", http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/keys", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/gone":
			http.NotFound(w, r)
		case "/large":
			_, _ = w.Write([]byte(strings.Repeat(" ", maxKeySet+2)))
		default:
			_, _ = w.Write([]byte(`{"keys":[]}`))
		}
	}))
	defer server.Close()
	tests := map[string]string{
		"/keys": "", "/near": "", "/far": "must be https", "/loop": "too many redirects", "/gone": "404 Not Found",
		"/large": "larger than",
	}
	for path, want := range tests {
		r := newRemote(server.URL+path, httpFetch(server.URL+path+"?token=canary"))
		text, err := r.fetch(t.Context())
		if err == nil {
			_, err = parseKeySet(text)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error holds the query: %v", path, err)
		}
		if strings.Contains(r.name, "?") {
			t.Errorf("name %q", r.name)
		}
	}
	server.Close()
	if _, err := httpFetch(server.URL)(t.Context()); err == nil {
		t.Error("fetched from a server that is gone")
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"https://idp.example.com/keys?a=b": true, "http://localhost:8001/keys": true, "http://127.0.0.1/": true,
		"http://127.8.9.1:1/x": true, "http://[::1]:80/x": true, "HTTPS://idp.example.com/": true,
		"http://idp.example.com/": false, "http://localhost.example.com/": false, "http://10.0.0.1/": false,
		"http://2130706433/": false, "ftp://localhost/": false, "//localhost/": false, "https:///keys": false,
		"https://u@idp.example.com/": false, "https:idp.example.com": false, "https://a b/": false, "": false,
		"http://0.0.0.0/": false, "http://[::ffff:127.0.0.1]/": true,
	} {
		if err := checkURL(raw); (err == nil) != ok {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
