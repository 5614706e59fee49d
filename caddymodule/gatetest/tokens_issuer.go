package gatetest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Issuer serves a JWK Set over HTTP on this machine, and fails on demand. It
// ends with the test.
type Issuer struct {
	// URL is where the set is.
	URL string

	mu      sync.Mutex
	body    string
	status  int
	hold    chan struct{}
	fetches int
}

// NewIssuer starts an issuer that publishes the keys.
func NewIssuer(tb testing.TB, keys ...*Key) *Issuer {
	tb.Helper()
	i := &Issuer{body: JWKS(keys...), status: http.StatusOK}
	server := httptest.NewServer(i)
	tb.Cleanup(server.Close)
	tb.Cleanup(i.Release) // first: a held answer would keep the server open
	i.URL = server.URL + "/.well-known/jwks.json"
	return i
}

// ServeHTTP answers with the set.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches++
	body, status, hold := i.body, i.status, i.hold
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.WriteHeader(status)
	// A client that went away is no matter of the test.
	_, _ = io.WriteString(w, body)
}

// Publish replaces the keys.
func (i *Issuer) Publish(keys ...*Key) { i.PublishRaw(JWKS(keys...)) }

// PublishRaw replaces the answer by any text.
func (i *Issuer) PublishRaw(body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.body = body
}

// Answer sets the status of answers: 200, or that of an outage.
func (i *Issuer) Answer(status int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status = status
}

// Hold keeps answers back from now on.
func (i *Issuer) Hold() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hold = make(chan struct{})
}

// Release lets the answers go that are held.
func (i *Issuer) Release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hold != nil {
		close(i.hold)
		i.hold = nil
	}
}

// Fetches counts the requests.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}
