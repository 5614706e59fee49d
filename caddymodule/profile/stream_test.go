package profile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWriterStreams: what passes reaches the client while the backend is still writing.
func TestWriterStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, contentType, first string }{
		{"events", "text/event-stream", "data: 1\n\n"},
		{"beyond the size", "application/json", `{"a":"` + strings.Repeat("x", 80)},
		{"array", "application/json", "[1,"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			read := make(chan struct{})
			s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				if _, err := io.WriteString(w, tt.first); err != nil {
					t.Error(err)
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
				select {
				case <-read:
				case <-r.Context().Done():
				}
				if _, err := io.WriteString(w, "end"); err != nil {
					t.Error(err)
				}
			})
			r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, len(tt.first))
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != tt.first {
				t.Fatalf("%q, %v", first, err)
			}
			close(read)
			rest, err := io.ReadAll(resp.Body)
			if err != nil || string(rest) != "end" {
				t.Errorf("%q, %v", rest, err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWriterHoldsFlushes: proxies flush each chunk of an answer without a length.
func TestWriterHoldsFlushes(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{`{"a":1}`: `{"a":1,"s":{"plan":"free"}}`, `{"s":1}`: `{"s":1}`} {
		s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			f, ok := w.(http.Flusher)
			if !ok {
				t.Error("no flusher")
				return
			}
			f.Flush()
			for _, c := range body {
				if _, err := fmt.Fprintf(w, "%c", c); err != nil {
					t.Error(err)
				}
				f.Flush()
			}
		})
		resp, got := fetch(t, s, "GET", nil)
		if got != want {
			t.Errorf("got %s", got)
		}
		if edited := body != want; edited == (resp.ContentLength < 0) {
			t.Errorf("%s: length %d", got, resp.ContentLength)
		}
	}
}

func TestWriterTrailers(t *testing.T) {
	t.Parallel()
	for _, announced := range []bool{true, false} {
		s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			name := http.TrailerPrefix + "X-Sum"
			if announced {
				name = "X-Sum"
				w.Header().Set("Trailer", name)
			}
			if _, err := io.WriteString(w, `{"a":1}`); err != nil {
				t.Error(err)
			}
			w.Header().Set(name, "7")
		})
		resp, body := fetch(t, s, "GET", nil)
		want := `{"a":1,"s":{"plan":"free"}}`
		if announced {
			want = `{"a":1}`
		}
		if body != want || resp.Trailer.Get("X-Sum") != "7" || resp.Header.Get("X-Sum") != "" {
			t.Errorf("announced %v: %s with trailer %v, header %v", announced, body, resp.Trailer, resp.Header)
		}
	}
}

func TestWriterInformational(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		if _, err := io.WriteString(w, `{}`); err != nil {
			t.Error(err)
		}
	})
	var hints []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		hints = append(hints, code)
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != `{"s":{"plan":"free"}}` {
		t.Errorf("%s, %v", body, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]int{103}, hints); diff != "" {
		t.Error(diff)
	}
}

func TestWriterHijack(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello"); err != nil {
			t.Error(err)
		}
		if err := errors.Join(rw.Flush(), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nhello") {
		t.Errorf("%q, %v", all, err)
	}
}

// TestWriterBrokenOff: an answer that ends early ends early for the client too, unedited.
func TestWriterBrokenOff(t *testing.T) {
	t.Parallel()
	for _, abort := range []bool{true, false} {
		s := serve(t, Options{Field: "s", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "20")
			if _, err := io.WriteString(w, `{"a":1}`); err != nil {
				t.Error(err)
			}
			if abort {
				panic(http.ErrAbortHandler)
			}
		})
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			continue // the connection went before the headers: broken off, and seen
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil || !strings.HasPrefix(`{"a":1}`, string(body)) {
			t.Errorf("abort %v: %q, %v", abort, body, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
