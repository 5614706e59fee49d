package stripefake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// maxBody is the largest request that is read, in bytes.
const maxBody = 1 << 20

// endpoint is an address of the API with the parameters that it acts on.
type endpoint struct {
	method, path string
	params       string // separated by spaces; lists as x[].y, hashes as x.y, free ones as x.*
	serve        func(*call) (object, *apiError)
}

// call is one request that is being answered.
type call struct {
	*mode
	reader
	id string // in the address
}

// endpoints are all addresses of the API.
func endpoints() []endpoint {
	var all []endpoint
	for _, some := range [][]endpoint{
		customerEndpoints(), catalogueEndpoints(), methodEndpoints(), checkoutEndpoints(), subscriptionEndpoints(),
		scheduleEndpoints(), invoiceEndpoints(), paymentEndpoints(), eventEndpoints(),
	} {
		all = append(all, some...)
	}
	return all
}

func (f *Fake) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, e := range endpoints() {
		declared := map[string]bool{"expand[]": true}
		for _, name := range strings.Fields(e.params) {
			declared[name] = true
		}
		mux.HandleFunc(e.method+" "+e.path, func(w http.ResponseWriter, r *http.Request) {
			f.answer(w, r, func(m *mode, v *values) (object, *apiError) {
				if u := v.unknown(declared); u != nil {
					bad := invalid(u.path, "Received unknown parameter: %s", u.path)
					bad.Code = "parameter_unknown"
					return nil, bad
				}
				return e.run(&call{mode: m, reader: newReader(v), id: r.PathValue("id")})
			})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f.answer(w, r, func(*mode, *values) (object, *apiError) {
			e := invalid("", "Unrecognized request URL (%s: %s).", r.Method, r.URL.Path)
			e.Status = http.StatusNotFound
			return nil, e
		})
	})
	return mux
}

// run answers the endpoint, expanded as the request asks. What cannot be
// expanded is found out before anything is changed where that is possible, and
// after otherwise, as at Stripe.
func (e endpoint) run(c *call) (object, *apiError) {
	expand := c.texts("expand")
	for _, path := range expand {
		if bad := checkExpand(path); bad != nil {
			return nil, bad
		}
	}
	o, bad := e.serve(c)
	if bad != nil {
		return nil, bad
	}
	for _, path := range expand {
		if bad := c.expand(o, path); bad != nil {
			return nil, bad
		}
	}
	return o, nil
}

// serveAPI is a request's way to its endpoint: what is injected, then whose it
// is, then what is asked.
func (f *Fake) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, no-store")
	w.Header().Set("Stripe-Version", APIVersion)
	fault := f.fault(r)
	if fault == nil {
		f.api.ServeHTTP(w, r)
		return
	}
	if fault.Delay > 0 {
		// Only when the body was read does the server notice that a client leaves.
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case fault.Lost:
		f.api.ServeHTTP(discard{http.Header{}}, r)
		panic(http.ErrAbortHandler) // the connection breaks off
	case fault.Status != 0:
		f.write(w, fault.Status, f.requestID(), fault.error().body(""), fault.header())
	default:
		f.api.ServeHTTP(w, r)
	}
}

// answer runs do on the books of the caller's mode.
func (f *Fake) answer(w http.ResponseWriter, r *http.Request, do func(*mode, *values) (object, *apiError)) {
	id := f.requestID()
	live, bad := f.authenticate(r)
	if bad != nil {
		f.refuse(w, id, bad)
		return
	}
	form, bad := readForm(r)
	if bad != nil {
		f.refuse(w, id, bad)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if r.Method != http.MethodPost {
		key = ""
	}
	w.Header().Set("Request-Id", id)
	f.mu.Lock()
	status, body, header, err := f.execute(live, id, key, r.Method+" "+r.URL.Path+" "+form.canonical(), func(m *mode) (object, *apiError) {
		return do(m, form)
	})
	err = errors.Join(err, f.save())
	f.mu.Unlock()
	f.ring()
	if err != nil {
		f.options.Log.Error("the billing fake cannot answer", zap.Error(err))
		f.refuse(w, id, &apiError{Status: http.StatusInternalServerError, Type: typeAPI, Message: "the books could not be kept"})
		return
	}
	for name, value := range header {
		w.Header().Set(name, value)
	}
	if key != "" {
		w.Header().Set("Idempotency-Key", key)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // only a client that has left makes this fail
}

// execute runs a request under the lock, or answers what its idempotency key
// was answered before.
func (f *Fake) execute(live bool, id, key, fingerprint string, do func(*mode) (object, *apiError)) (int, []byte, map[string]string, error) {
	f.catchUp()
	m := f.state.Test
	if live {
		m = f.state.Live
	}
	m.now, m.by = f.unixNow(), &cause{ID: id, Key: key}
	defer func() { m.by = nil }()
	if key != "" {
		if old := m.Replays.get(key); old != nil {
			if old.Fingerprint != fingerprint {
				status, body, err := encode(nil, id, keyReused(key))
				return status, body, nil, err
			}
			return old.Status, old.Body, map[string]string{"Idempotent-Replayed": "true", "Original-Request": old.RequestID}, nil
		}
	}
	o, bad := do(m)
	status, body, err := encode(o, id, bad)
	// Bad parameters are not remembered: the request never ran.
	if err == nil && key != "" && status != http.StatusBadRequest && status != http.StatusNotFound {
		m.Replays.add(&replay{Key: key, Fingerprint: fingerprint, RequestID: id, Status: status, Body: body, Created: m.now})
	}
	return status, body, nil, err
}

func keyReused(key string) *apiError {
	return &apiError{
		Status: http.StatusBadRequest, Type: typeIdempotency,
		Message: fmt.Sprintf("Keys for idempotent requests can only be used with the same parameters they were first used with. "+
			"Try using a key other than '%s' if you meant to execute a different request.", key),
	}
}

// authenticate tells which mode the key belongs to.
func (f *Fake) authenticate(r *http.Request) (live bool, bad *apiError) {
	refuse := func(format string, args ...any) *apiError {
		e := invalid("", format, args...)
		e.Status = http.StatusUnauthorized
		return e
	}
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if user, _, ok := r.BasicAuth(); ok {
		key = user
	}
	switch {
	case key == "":
		return false, refuse("You did not provide an API key.")
	case key == f.options.Key:
	case f.options.LiveKey != "" && key == f.options.LiveKey:
		live = true
	default:
		return false, refuse("Invalid API Key provided: %s", redact(key))
	}
	if v := r.Header.Get("Stripe-Version"); v != "" && v != APIVersion {
		return false, unsupported("", "API version %s, only %s", v, APIVersion)
	}
	if r.Header.Get("Stripe-Account") != "" {
		return false, unsupported("", "connected accounts")
	}
	return live, nil
}

// redact keeps of a key what tells its kind, as Stripe's own message does.
func redact(key string) string {
	if len(key) < 16 {
		return "****"
	}
	return key[:8] + strings.Repeat("*", len(key)-12) + key[len(key)-4:]
}

// readForm reads the parameters from the address and the body.
func readForm(r *http.Request) (*values, *apiError) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, invalid("", "the request could not be read")
	}
	if len(body) > maxBody {
		return nil, invalid("", "the request is larger than %d bytes", maxBody)
	}
	if t := r.Header.Get("Content-Type"); len(body) > 0 && !strings.HasPrefix(t, "application/x-www-form-urlencoded") {
		return nil, invalid("", "Invalid request body: parameters are form-encoded, not %s", strconv.Quote(t))
	}
	return parseForm(strings.Trim(r.URL.RawQuery+"&"+string(body), "&"))
}

func (f *Fake) requestID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	return "req_" + f.state.Test.digest("req", f.requests, shortID)
}

func encode(o object, id string, bad *apiError) (int, []byte, error) {
	status := http.StatusOK
	if bad != nil {
		o, status = bad.body(id), bad.Status
	}
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return 0, nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return status, b, nil
}

func (f *Fake) refuse(w http.ResponseWriter, id string, bad *apiError) {
	f.write(w, bad.Status, id, bad.body(id), nil)
}

func (f *Fake) write(w http.ResponseWriter, status int, id string, o object, header map[string]string) {
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		f.options.Log.Error("the billing fake cannot answer", zap.Error(err))
		b, status = nil, http.StatusInternalServerError
	}
	w.Header().Set("Request-Id", id)
	for name, value := range header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // only a client that has left makes this fail
}
