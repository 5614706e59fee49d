// Package gatetest is what tests of several packages share: conformance suites
// that every implementation of counters and records has to pass, credentials
// made to order, and backends that keep a ledger of what reached them. It is
// linked into tests only.
package gatetest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// IDHeader names a request in a Backend's ledger; the client sets it.
const IDHeader = "X-Test-Id"

// Answer is what a Backend does with one request.
type Answer struct {
	Status int // 0: 200
	Header http.Header
	// Body is sent as it is. Without one, Size bytes are sent.
	Body []byte
	Size int64
	// Hold, unless nil, is waited for before anything is sent: it is closed, or
	// receives, when the backend is to answer. A client that leaves ends it too.
	Hold <-chan struct{}
	// Abort breaks the connection instead of answering to the end.
	Abort Abort
}

// Abort says where a Backend breaks off.
type Abort uint8

// Where an answer breaks off.
const (
	AbortNever  Abort = iota
	AbortBefore       // the request was read, nothing is sent
	AbortMiddle       // the status, the fields and half of the body are sent
)

// Entry is one request in the ledger of a Backend.
type Entry struct {
	ID     string // of IDHeader
	Method string
	// Target is the request's target as it was received, byte for byte.
	Target string
	Host   string
	// Subject is the `sub` of the bearer token, which is not verified; empty
	// where there is none.
	Subject string
	Header  http.Header
	// Received is the size of the body that arrived.
	Received int64
	// Status is what was answered; 0 where nothing was sent.
	Status int
	// Complete is false while the request is being answered, and where the
	// answer broke off.
	Complete bool
	Began    time.Time
	Ended    time.Time // zero while the request is being answered
}

// Backend is an upstream under the test's control. It writes down every request
// that reaches it: what a gateway has counted is compared with what a backend
// has seen.
type Backend struct {
	mu      sync.Mutex
	answer  func(*http.Request) Answer
	entries []*Entry
	changed chan struct{} // closed and replaced when an entry begins or ends
}

// NewBackend is a backend that does as answer says, which is called for each
// request, concurrently; nil answers 200 with an empty body.
func NewBackend(answer func(*http.Request) Answer) *Backend {
	b := &Backend{changed: make(chan struct{})}
	b.Answer(answer)
	return b
}

// Answer replaces what is done with the requests that come.
func (b *Backend) Answer(answer func(*http.Request) Answer) {
	if answer == nil {
		answer = func(*http.Request) Answer { return Answer{} }
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// Serve serves the backend on a free local port until the test ends.
func (b *Backend) Serve(tb testing.TB) *httptest.Server {
	tb.Helper()
	server := httptest.NewServer(b)
	tb.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// ServeHTTP does as the answer says and writes it down.
func (b *Backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, answer := b.begin(r)
	var status int
	complete := false
	received := new(counter)
	defer func() { b.end(e, received.n, status, complete) }()

	_, readErr := io.Copy(received, r.Body)
	if answer.Hold != nil {
		select {
		case <-answer.Hold:
		case <-r.Context().Done():
			return
		}
	}
	if readErr != nil || answer.Abort == AbortBefore {
		panic(http.ErrAbortHandler)
	}
	status = answer.Status
	if status == 0 {
		status = http.StatusOK
	}
	if err := answer.write(w, status); err != nil {
		return // the client has left
	}
	if answer.Abort == AbortMiddle {
		panic(http.ErrAbortHandler)
	}
	complete = true
}

// write sends the answer, or the first half of it if it is to break off.
func (a *Answer) write(w http.ResponseWriter, status int) error {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	body, size := io.Reader(filler{}), a.Size
	if a.Body != nil {
		body, size = strings.NewReader(string(a.Body)), int64(len(a.Body))
	}
	if a.Abort == AbortMiddle {
		size /= 2
	}
	if _, err := io.Copy(w, io.LimitReader(body, size)); err != nil {
		return err
	}
	if a.Abort == AbortMiddle {
		return http.NewResponseController(w).Flush()
	}
	return nil
}

func (b *Backend) begin(r *http.Request) (*Entry, Answer) {
	e := &Entry{
		ID: r.Header.Get(IDHeader), Method: r.Method, Target: r.RequestURI, Host: r.Host,
		Subject: tokenSubject(r.Header.Get("Authorization")), Header: r.Header.Clone(), Began: time.Now(),
	}
	b.mu.Lock()
	b.entries = append(b.entries, e)
	answer := b.answer
	b.signal()
	b.mu.Unlock()
	return e, answer(r)
}

func (b *Backend) end(e *Entry, received int64, status int, complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Received, e.Status, e.Complete, e.Ended = received, status, complete, time.Now()
	b.signal()
}

// signal wakes whoever waits; b.mu is held.
func (b *Backend) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Entries are the requests so far, in the order in which they came.
func (b *Backend) Entries() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	es := make([]Entry, len(b.entries))
	for i, e := range b.entries {
		es[i] = *e
	}
	return es
}

// Count is how many requests match; nil matches all.
func (b *Backend) Count(match func(Entry) bool) int {
	n := 0
	for _, e := range b.Entries() {
		if match == nil || match(e) {
			n++
		}
	}
	return n
}

// Await returns when at least n requests match, with the error of ctx if it
// ends before.
func (b *Backend) Await(ctx context.Context, n int, match func(Entry) bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if b.Count(match) >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Clear forgets the requests so far.
func (b *Backend) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = nil
}

// tokenSubject reads `sub` from a compact JWT without verifying anything.
func tokenSubject(authorization string) string {
	_, token, _ := strings.Cut(authorization, " ")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Sub
}

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// filler reads as 'x', without end.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
