package stripefake

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is what goes wrong with requests that match.
type Fault struct {
	// Method and Path say which requests: the exact method and the beginning of
	// the path, such as POST and /v1/subscriptions. Empty: any.
	Method, Path string
	// Skip requests are answered first, then Times are struck: one if 0, all that
	// follow if negative.
	Skip, Times int
	// Delay is waited before anything else is done.
	Delay time.Duration
	// Status is answered instead, without doing what is asked: 429, 500, 503 and
	// the like, with RetryAfter in whole seconds if it is set.
	Status     int
	RetryAfter time.Duration
	// Lost does what is asked, and then breaks off the connection.
	Lost bool
}

// Inject adds a fault. Of several that match a request, the first counts.
func (f *Fake) Inject(fault Fault) {
	if fault.Times == 0 {
		fault.Times = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Heal takes all faults away.
func (f *Fake) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// fault is what strikes the request, or nil.
func (f *Fake) fault(r *http.Request) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.faults {
		if fault.Method != "" && fault.Method != r.Method || !strings.HasPrefix(r.URL.Path, fault.Path) {
			continue
		}
		if fault.Skip > 0 {
			fault.Skip--
			return nil
		}
		struck := *fault
		if fault.Times--; fault.Times == 0 {
			f.faults = append(f.faults[:i:i], f.faults[i+1:]...)
		}
		return &struck
	}
	return nil
}

func (f *Fault) error() *apiError {
	e := &apiError{Status: f.Status, Type: typeAPI, Message: "An unknown error occurred"}
	switch f.Status {
	case http.StatusTooManyRequests:
		e.Type, e.Code, e.Message = typeInvalidRequest, "rate_limit", "Request rate limit exceeded."
	case http.StatusConflict:
		e.Type, e.Code, e.Message = typeInvalidRequest, "lock_timeout", "This object cannot be accessed right now because another request is accessing it."
	}
	return e
}

func (f *Fault) header() map[string]string {
	if f.RetryAfter <= 0 {
		return nil
	}
	return map[string]string{"Retry-After": strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10)}
}

// discard is the writer of an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
