package gatetest_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/quotagate/quotagate/caddymodule/gatetest"
)

// do sends one request and answers the status and the body, as far as it came.
func do(t *testing.T, method, url, id, body string) (status int, got string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(gatetest.IDHeader, id)
	req.Header.Set("Authorization", "Bearer x.eyJzdWIiOiJ1MSJ9.y") // {"sub":"u1"}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	content, err := io.ReadAll(res.Body)
	return res.StatusCode, string(content), errors.Join(err, res.Body.Close())
}

func TestBackendKeepsALedger(t *testing.T) {
	t.Parallel()
	b := gatetest.NewBackend(func(r *http.Request) gatetest.Answer {
		switch r.URL.Path {
		case "/created":
			return gatetest.Answer{Status: http.StatusCreated, Body: []byte("made"), Header: http.Header{"X-Made": {"1"}}}
		case "/sized":
			return gatetest.Answer{Size: 3}
		case "/before":
			return gatetest.Answer{Abort: gatetest.AbortBefore}
		case "/middle":
			return gatetest.Answer{Size: 8, Abort: gatetest.AbortMiddle}
		}
		return gatetest.Answer{}
	})
	url := b.Serve(t).URL
	tests := []struct {
		target, body string
		status       int
		got          string
		broken       bool
		entry        gatetest.Entry
	}{
		{target: "/created?a=%2f", body: "12345", status: 201, got: "made", entry: gatetest.Entry{Received: 5, Status: 201, Complete: true}},
		{target: "/sized", status: 200, got: "xxx", entry: gatetest.Entry{Status: 200, Complete: true}},
		{target: "/before", broken: true},
		{target: "/middle", status: 200, got: "xxxx", broken: true, entry: gatetest.Entry{Status: 200}},
		{target: "/plain", status: 200, entry: gatetest.Entry{Status: 200, Complete: true}},
	}
	for i, tt := range tests {
		status, got, err := do(t, "POST", url+tt.target, tt.target, tt.body)
		if status != tt.status || got != tt.got || (err != nil) != tt.broken {
			t.Errorf("%s: %d %q %v", tt.target, status, got, err)
		}
		ended := func(e gatetest.Entry) bool { return !e.Ended.IsZero() }
		if err := b.Await(t.Context(), i+1, ended); err != nil {
			t.Fatal(err)
		}
		tt.entry.ID, tt.entry.Target, tt.entry.Method, tt.entry.Subject = tt.target, tt.target, "POST", "u1"
		entry := b.Entries()[i]
		if diff := cmp.Diff(tt.entry, entry, cmpopts.IgnoreFields(gatetest.Entry{}, "Host", "Header", "Began", "Ended")); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.target, diff)
		}
	}
	if n := b.Count(func(e gatetest.Entry) bool { return e.Complete }); n != 3 {
		t.Errorf("%d complete requests, want 3", n)
	}
	b.Clear()
	if n := b.Count(nil); n != 0 {
		t.Errorf("%d requests after Clear", n)
	}
}

func TestBackendHolds(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	b := gatetest.NewBackend(func(*http.Request) gatetest.Answer { return gatetest.Answer{Hold: hold} })
	url := b.Serve(t).URL
	answered := make(chan int, 1)
	go func() {
		status, _, _ := do(t, "GET", url, "held", "")
		answered <- status
	}()
	if err := b.Await(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	if e := b.Entries()[0]; !e.Ended.IsZero() {
		t.Error("answered before it was let go")
	}
	close(hold)
	select {
	case status := <-answered:
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
	}
}
