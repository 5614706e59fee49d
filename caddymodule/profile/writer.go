package profile

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Options say what is added to which answers.
type Options struct {
	// Field is the member's name.
	Field string
	// MaxSize is the largest body in bytes, as the backend sends it, that is held and edited.
	MaxSize int64
}

// Writer is a ResponseWriter that holds back an answer that may have to be
// edited, and lets any other pass from its first byte on, flushes included.
//
// Held is an answer with status 200 and application/json (in UTF-8, not
// encoded, without announced trailers, without Cache-Control: no-transform) of
// at most MaxSize bytes whose first character is a brace. A flush of it waits:
// proxies flush every chunk of an answer whose length they do not know. As soon
// as it turns out to be something else it passes on, unedited.
//
// The handler that made the Writer ends it with Close, or with Release where
// the answer broke off. A Writer serves one answer and one goroutine.
type Writer struct {
	rw      http.ResponseWriter
	head    bool
	options Options
	value   func() (value []byte, ok bool)

	state   state
	declare int64 // Content-Length as the backend sent it, -1 without
	held    []byte
	flushed bool // a flush waits
}

type state uint8

const (
	undecided state = iota // no status yet
	holding
	passing
)

// NewWriter wraps rw for the answer to r. Value is called at most once, when a
// body is there to be edited; where it answers false the body stays as it is.
func NewWriter(rw http.ResponseWriter, r *http.Request, o Options, value func() ([]byte, bool)) *Writer {
	return &Writer{rw: rw, head: r.Method == http.MethodHead, options: o, value: value}
}

// Header is the header map of the ResponseWriter below.
func (w *Writer) Header() http.Header { return w.rw.Header() }

// Unwrap serves http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.rw }

// WriteHeader decides whether the answer is held. Informational answers (1xx)
// pass at once and decide nothing.
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.rw.WriteHeader(status)
		return
	}
	if w.state == holding {
		return // the first status stands, as in net/http
	}
	if w.state == undecided && status == http.StatusOK && w.editable() {
		if !w.head {
			w.state = holding
			return
		}
		w.forgetBody()
	}
	w.state = passing
	w.rw.WriteHeader(status)
}

// editable reports whether the headers are those of an answer that may be
// edited, and notes its declared length.
func (w *Writer) editable() bool {
	h := w.rw.Header()
	if len(h["Trailer"]) > 0 || len(h["Content-Range"]) > 0 || !plainJSON(h["Content-Type"]) {
		return false
	}
	for _, coding := range h["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return false
		}
	}
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(directive), "no-transform") { // RFC 9110, 7.7
				return false
			}
		}
	}
	w.declare = -1
	if length := h.Get("Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 || n > w.options.MaxSize {
			return false
		}
		w.declare = n
	}
	return true
}

func plainJSON(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(contentType[0])
	if err != nil || media != "application/json" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// Write holds p or passes it on.
func (w *Writer) Write(p []byte) (int, error) {
	if w.state == undecided {
		w.WriteHeader(http.StatusOK)
	}
	if w.state == holding {
		if int64(len(w.held)+len(p)) <= w.options.MaxSize && beginsObject(w.held, p) {
			if w.held == nil && w.declare > int64(len(p)) {
				w.held = make([]byte, 0, w.declare)
			}
			w.held = append(w.held, p...)
			return len(p), nil
		}
		if err := w.Release(); err != nil {
			return 0, err
		}
	}
	return w.rw.Write(p)
}

// beginsObject reports whether the first character of what is held and p, if
// there is any, is a brace.
func beginsObject(held, p []byte) bool {
	for _, part := range [2][]byte{held, p} {
		for _, c := range part {
			switch c {
			case ' ', '\t', '\r', '\n':
			default:
				return c == '{'
			}
		}
	}
	return true
}

// ReadFrom lets the ResponseWriter below copy by its own means once the answer passes.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if w.state == passing {
		return io.Copy(w.rw, r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

// Flush is FlushError for http.Flusher, which cannot report that the client
// has gone: the next write does.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError flushes what passes; an answer that is held is flushed when it passes.
func (w *Writer) FlushError() error {
	if w.state == undecided {
		w.WriteHeader(http.StatusOK) // as net/http does
	}
	if w.state == holding {
		w.flushed = true
		return nil
	}
	return http.NewResponseController(w.rw).Flush()
}

// Release lets an answer that is held pass unedited. It is for answers that
// broke off (the handler below failed or panicked): the client gets as much as
// it would have got. It is harmless after Close.
func (w *Writer) Release() error {
	if w.state != holding {
		return nil
	}
	return w.pass(w.held)
}

// Close ends the answer: the member is inserted into what is held. An answer
// that was not begun is left to the server.
func (w *Writer) Close() error {
	if w.state == undecided && w.head && w.editable() {
		w.forgetBody()
	}
	if w.state != holding {
		return nil
	}
	if w.declare >= 0 && w.declare != int64(len(w.held)) {
		return w.Release() // broken off: the server below reports the missing bytes
	}
	// What cannot be edited costs no look-up.
	if _, ok := Splice(w.held, w.options.Field, []byte("null")); !ok {
		return w.Release()
	}
	value, ok := w.value()
	if !ok {
		return w.Release()
	}
	body, ok := Splice(w.held, w.options.Field, value)
	if !ok {
		return w.Release()
	}
	w.dropValidators()
	h := w.rw.Header()
	h.Del("Content-Length")
	if !trailers(h) { // they need a body in chunks
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.flushed = false
	return w.pass(body)
}

func (w *Writer) pass(body []byte) error {
	w.state, w.held = passing, nil
	w.rw.WriteHeader(http.StatusOK)
	if len(body) > 0 {
		if _, err := w.rw.Write(body); err != nil {
			return fmt.Errorf("writing a held answer: %w", err)
		}
	}
	if !w.flushed {
		return nil
	}
	if err := http.NewResponseController(w.rw).Flush(); err != nil {
		return fmt.Errorf("flushing a held answer: %w", err)
	}
	return nil
}

// dropValidators removes what the backend says of the bytes of its own body.
func (w *Writer) dropValidators() {
	h := w.rw.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		delete(h, name)
	}
}

// forgetBody serves HEAD: the answer to GET may be edited, so that its length
// and validators are not known.
func (w *Writer) forgetBody() {
	w.dropValidators()
	w.rw.Header().Del("Content-Length")
}

// trailers reports whether trailers were set that had not been announced.
func trailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}
