package api

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

func openStore(t *testing.T) *store.Companion {
	t.Helper()
	db, err := sql.Open("sqlite", store.SQLiteDSN(filepath.Join(t.TempDir(), "quota.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Migrate(t.Context(), db, store.SQLite, "up", io.Discard); err != nil {
		t.Fatal(err)
	}
	return store.ForCompanion(store.New(db, store.Options{Engine: store.SQLite}))
}

type noteInput struct {
	Body struct {
		Text string `json:"text" maxLength:"10"`
	}
}

type note struct {
	ETag string `header:"ETag"`
	Body struct {
		Number int    `json:"number"`
		Text   string `json:"text"`
	}
}

// notes is a server whose POST /v1/notes counts, through hold where that is set.
type notes struct {
	*Server
	t      *testing.T
	mu     sync.Mutex
	made   int
	fails  bool
	caller gate.Caller
	hold   func()
}

func newNotes(t *testing.T, open func() (*store.Companion, error)) *notes {
	n := &notes{t: t, caller: knownCaller()}
	n.Server, _ = served(gate.Caller{})
	n.identify = func(*http.Request) (gate.Caller, error) { return n.caller, nil }
	n.Idempotent(open)
	huma.Register(n.API(), huma.Operation{
		OperationID: "make-note", Method: http.MethodPost, Path: "/v1/notes", Security: Authenticated(), DefaultStatus: http.StatusCreated,
	}, func(_ context.Context, in *noteInput) (*note, error) {
		if n.hold != nil {
			n.hold()
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.fails {
			return nil, Unavailable()
		}
		n.made++
		out := &note{ETag: ETag(in.Body.Text)}
		out.Body.Number, out.Body.Text = n.made, in.Body.Text
		return out, nil
	})
	return n
}

func (n *notes) post(key, body string) *httptest.ResponseRecorder {
	n.t.Helper()
	r := httptest.NewRequestWithContext(n.t.Context(), http.MethodPost, "/v1/notes", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	return send(n.t, n.Server, r)
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	n := newNotes(t, func() (*store.Companion, error) { return s, nil })
	first := n.post("k", `{"text":"x"}`)
	again := n.post("k", `{"text":"x"}`)
	if first.Code != 201 || again.Code != 201 || first.Body.String() != again.Body.String() || n.made != 1 ||
		again.Header().Get("ETag") != first.Header().Get("ETag") || again.Header().Get("Idempotent-Replayed") != "true" ||
		first.Header().Get("Idempotent-Replayed") != "" || again.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %s %v, then %d %s %v, made %d", first.Code, first.Body, first.Header(), again.Code, again.Body, again.Header(), n.made)
	}
	if w := n.post("k", `{"text":"y"}`); w.Code != 422 || !strings.Contains(w.Body.String(), "Idempotency-Key") {
		t.Errorf("another body: %d %s", w.Code, w.Body)
	}
	if w := n.post("", `{"text":"x"}`); w.Code != 201 || n.made != 2 {
		t.Errorf("without a key: %d, made %d", w.Code, n.made)
	}
	n.caller.Principal = &quota.Principal{Subject: "user:bob"}
	if w := n.post("k", `{"text":"y"}`); w.Code != 201 || n.made != 3 {
		t.Errorf("somebody else's key: %d, made %d", w.Code, n.made)
	}
	// What is wrong with a request is answered alike; what has failed is tried again.
	for range 2 {
		if w := n.post("bad", `{"text":"much too long"}`); w.Code != 422 {
			t.Errorf("invalid: %d", w.Code)
		}
	}
	n.fails = true
	if w := n.post("f", `{"text":"x"}`); w.Code != 503 {
		t.Errorf("failing: %d", w.Code)
	}
	n.fails = false
	if w := n.post("f", `{"text":"x"}`); w.Code != 201 || n.made != 4 {
		t.Errorf("after a failure: %d, made %d", w.Code, n.made)
	}
	for _, key := range []string{strings.Repeat("k", 256), "ü", "a\tb"} {
		if w := n.post(key, `{"text":"x"}`); w.Code != 422 {
			t.Errorf("key %q: %d", key, w.Code)
		}
	}
	if w := n.post("big", strings.Repeat(" ", maxRequestBody+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too large: %d", w.Code)
	}
}

func TestIdempotencyKeyInFlight(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	n := newNotes(t, func() (*store.Companion, error) { return s, nil })
	began, release := make(chan struct{}), make(chan struct{})
	n.hold = func() { close(began); <-release }
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- n.post("k", `{"text":"x"}`) }()
	<-began
	if w := n.post("k", `{"text":"x"}`); w.Code != 409 || !strings.Contains(w.Body.String(), "request_in_flight") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	close(release)
	if w := <-done; w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestIdempotencyKeysWhileTheRecordsAreDown(t *testing.T) {
	t.Parallel()
	n := newNotes(t, func() (*store.Companion, error) { return nil, errors.New("down") })
	if w := n.post("k", `{"text":"x"}`); w.Code != 503 || n.made != 0 {
		t.Errorf("%d %s, made %d", w.Code, w.Body, n.made)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tag := ETag("1")
	for header, want := range map[string]bool{
		"": true, "*": true, tag: true, `"x", ` + tag: true, `"x"`: false, "W/" + tag: false, ETag("2"): false,
	} {
		if got := (Match{header}).Matches(tag); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
