package profile

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const member = `{"plan":"free"}`

func found() ([]byte, bool) { return []byte(member), true }

// serve runs a backend behind a Writer on a real server.
func serve(t *testing.T, o Options, value func() ([]byte, bool), backend http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := NewWriter(rw, r, o, value)
		defer func() {
			if err := w.Release(); err != nil {
				t.Errorf("releasing: %v", err)
			}
		}()
		backend(w, Prepare(r))
		if err := w.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func fetch(t *testing.T, s *httptest.Server, method string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestWriter(t *testing.T) {
	t.Parallel()
	const doc, edited = `{"id":1}`, `{"id":1,"subscription":{"plan":"free"}}`
	tests := []struct {
		name    string
		method  string
		header  http.Header
		status  int
		body    []string // one write each
		want    string   // empty: as sent
		kept    []string // headers that must be there
		dropped []string
	}{
		{name: "edited", header: http.Header{"Content-Type": {"application/json"}, "Etag": {`"1"`}, "Last-Modified": {"x"}, "Repr-Digest": {"x"}, "Accept-Ranges": {"bytes"}, "X-Other": {"y"}}, body: []string{doc}, want: edited, kept: []string{"X-Other", "Content-Length"}, dropped: []string{"Etag", "Last-Modified", "Repr-Digest", "Accept-Ranges"}},
		{name: "with its length", header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}, "Content-Length": {"8"}}, body: []string{doc}, want: edited},
		{name: "in pieces", header: http.Header{"Content-Type": {"application/json"}}, body: []string{" ", "{", `"id"`, ":1}"}, want: " " + edited},
		{name: "identity", header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity"}}, body: []string{doc}, want: edited},
		{name: "post", method: "POST", header: http.Header{"Content-Type": {"application/json"}}, body: []string{doc}, want: edited},
		{name: "member present", header: http.Header{"Content-Type": {"application/json"}, "Etag": {`"1"`}}, body: []string{`{"subscription":1}`}, kept: []string{"Etag"}},
		{name: "array", header: http.Header{"Content-Type": {"application/json"}, "Etag": {`"1"`}}, body: []string{"\n", "[", "{}]"}, kept: []string{"Etag"}},
		{name: "no JSON", header: http.Header{"Content-Type": {"application/json"}}, body: []string{`{"id":`}},
		{name: "nothing", header: http.Header{"Content-Type": {"application/json"}}},
		{name: "another type", header: http.Header{"Content-Type": {"application/problem+json"}}, body: []string{doc}},
		{name: "another charset", header: http.Header{"Content-Type": {"application/json; charset=latin1"}}, body: []string{doc}},
		{name: "malformed type", header: http.Header{"Content-Type": {"application/json; charset"}}, body: []string{doc}},
		{name: "no type", header: http.Header{}, body: []string{doc}},
		{name: "encoded", header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, body: []string{doc}, kept: []string{"Content-Encoding"}},
		{name: "no-transform", header: http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"private, no-transform"}}, body: []string{doc}},
		{name: "another status", status: 201, header: http.Header{"Content-Type": {"application/json"}}, body: []string{doc}},
		{name: "partial", status: 206, header: http.Header{"Content-Type": {"application/json"}, "Content-Range": {"bytes 0-7/9"}}, body: []string{doc}, kept: []string{"Content-Range"}},
		{name: "range with 200", header: http.Header{"Content-Type": {"application/json"}, "Content-Range": {"bytes 0-7/9"}}, body: []string{doc}},
		{name: "no content", status: 204, header: http.Header{"Etag": {`"1"`}}, kept: []string{"Etag"}},
		{name: "not modified", status: 304, header: http.Header{"Etag": {`"1"`}}, kept: []string{"Etag"}},
		{name: "largest", header: http.Header{"Content-Type": {"application/json"}}, body: []string{`{"a":"`, strings.Repeat("x", 56), `"}`}, want: `{"a":"` + strings.Repeat("x", 56) + `","subscription":{"plan":"free"}}`},
		{name: "too large", header: http.Header{"Content-Type": {"application/json"}, "Etag": {`"1"`}}, body: []string{`{"a":"`, strings.Repeat("x", 57), `"}`, "  "}, kept: []string{"Etag"}},
		{name: "too large by its length", header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"65"}}, body: []string{`{"a":"`, strings.Repeat("x", 57), `"}`}},
		{name: "head", method: "HEAD", header: http.Header{"Content-Type": {"application/json"}, "Content-Length": {"8"}, "Etag": {`"1"`}, "X-Other": {"y"}}, kept: []string{"X-Other", "Content-Type"}, dropped: []string{"Etag", "Content-Length"}},
		{name: "head of something else", method: "HEAD", header: http.Header{"Content-Type": {"text/html"}, "Content-Length": {"8"}, "Etag": {`"1"`}}, kept: []string{"Etag", "Content-Length"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			method := tt.method
			if method == "" {
				method = "GET"
			}
			s := serve(t, Options{Field: "subscription", MaxSize: 64}, found, func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range tt.header {
					w.Header()[k] = v
				}
				if tt.status != 0 {
					w.WriteHeader(tt.status)
				}
				for _, part := range tt.body {
					if n, err := io.WriteString(w, part); err != nil || n != len(part) {
						t.Errorf("write: %d, %v", n, err)
					}
				}
			})
			resp, body := fetch(t, s, method, nil)
			want := tt.want
			if want == "" && method != "HEAD" {
				want = strings.Join(tt.body, "")
			}
			if diff := cmp.Diff(want, body); diff != "" {
				t.Error(diff)
			}
			if status := max(200, tt.status); resp.StatusCode != status {
				t.Errorf("status %d, want %d", resp.StatusCode, status)
			}
			if resp.ContentLength >= 0 && method != "HEAD" && resp.StatusCode != 304 && resp.ContentLength != int64(len(body)) {
				t.Errorf("length %d of %d bytes", resp.ContentLength, len(body))
			}
			for _, k := range tt.kept {
				if _, ok := resp.Header[k]; !ok {
					t.Errorf("%s is gone", k)
				}
			}
			for _, k := range tt.dropped {
				if _, ok := resp.Header[k]; ok {
					t.Errorf("%s was kept", k)
				}
			}
		})
	}
}

func TestWriterAsksOnlyForWhatItNeeds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, body, value string
		ok                bool
		asked             int
		want              string
	}{
		{"found", `{}`, `1`, true, 1, `{"s":1}`},
		{"not found", `{}`, ``, false, 1, `{}`},
		{"no JSON", `{}`, `{`, true, 1, `{}`},
		{"not editable", `{"s":0}`, `1`, true, 0, `{"s":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rec, asked := httptest.NewRecorder(), 0
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			w := NewWriter(rec, r, Options{Field: "s", MaxSize: 100}, func() ([]byte, bool) { asked++; return []byte(tt.value), tt.ok })
			w.Header().Set("Content-Type", "application/json")
			if _, err := io.WriteString(w, tt.body); err != nil {
				t.Fatal(err)
			}
			w.WriteHeader(500) // superfluous: the first status stands
			for range 2 {
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if asked != tt.asked || rec.Body.String() != tt.want || rec.Code != 200 {
				t.Errorf("asked %d times, %d %s", asked, rec.Code, rec.Body)
			}
		})
	}
}

type failing struct{ http.ResponseWriter }

var errGone = errors.New("gone")

func (failing) Write([]byte) (int, error) { return 0, errGone }

func TestWriterReportsALostClient(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	begin := func() *Writer {
		w := NewWriter(failing{httptest.NewRecorder()}, r, Options{Field: "s", MaxSize: 10}, found)
		w.Header().Set("Content-Type", "application/json")
		if _, err := io.WriteString(w, "{}"); err != nil {
			t.Fatal(err)
		}
		return w
	}
	if err := begin().Close(); !errors.Is(err, errGone) {
		t.Errorf("closing: %v", err)
	}
	if _, err := io.WriteString(begin(), strings.Repeat(" ", 10)); !errors.Is(err, errGone) {
		t.Errorf("writing: %v", err)
	}
}

func TestWriterReadFrom(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]string{"application/json": `{"s":{"plan":"free"}}`, "text/plain": `{}`} {
		rec := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		w := NewWriter(rec, r, Options{Field: "s", MaxSize: 64}, found)
		w.Header().Set("Content-Type", contentType)
		for _, part := range []string{"{", "}"} {
			if n, err := io.Copy(w, strings.NewReader(part)); n != 1 || err != nil {
				t.Errorf("copied %d, %v", n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if got := rec.Body.String(); got != want {
			t.Errorf("%s: %s", contentType, got)
		}
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	full := http.Header{
		"Accept-Encoding": {"gzip"}, "If-None-Match": {`"1"`}, "If-Modified-Since": {"x"}, "Range": {"bytes=0-1"},
		"If-Range": {`"1"`}, "If-Match": {`"2"`}, "If-Unmodified-Since": {"y"}, "Accept": {"*/*"},
	}
	read := http.Header{"If-Match": {`"2"`}, "If-Unmodified-Since": {"y"}, "Accept": {"*/*"}}
	write := full.Clone()
	write.Del("Accept-Encoding")
	for method, want := range map[string]http.Header{"GET": read, "HEAD": read, "PUT": write, "PATCH": write} {
		r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
		r.Header = full.Clone()
		up := Prepare(r)
		if diff := cmp.Diff(want, up.Header); diff != "" {
			t.Errorf("%s: %s", method, diff)
		}
		if diff := cmp.Diff(full, r.Header); diff != "" {
			t.Errorf("the client's request was changed: %s", diff)
		}
	}
}
