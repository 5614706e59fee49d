package answer

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quotagate/quotagate/caddymodule/quota"
)

// Style is the form of a denial's body.
type Style uint8

// The styles, as in the Caddyfile.
const (
	// StyleFastAPI is the backends' own shape, {"detail": ...}; a client that
	// accepts application/problem+json at least as gladly gets that.
	StyleFastAPI Style = iota
	// StyleProblem is always application/problem+json (RFC 9457).
	StyleProblem
)

var styleNames = [...]string{"fastapi", "problem"}

// String is the style's name in the Caddyfile.
func (s Style) String() string {
	if int(s) < len(styleNames) {
		return styleNames[s]
	}
	return fmt.Sprintf("style(%d)", uint8(s))
}

// ParseStyle is the inverse of String.
func ParseStyle(s string) (Style, error) {
	for i, name := range styleNames {
		if s == name {
			return Style(i), nil
		}
	}
	return 0, fmt.Errorf("unknown errors style %q: want fastapi or problem", s)
}

// Options are what a denial's answer takes from the config.
type Options struct {
	Style Style
	// UpgradeURL is where a better plan is to be had; empty: it is not mentioned.
	UpgradeURL string
}

// The registered problem type and its title (draft-ietf-httpapi-ratelimit-headers-11).
const (
	typeQuotaExceeded  = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	titleQuotaExceeded = "Request cannot be satisfied as assigned quota has been exceeded"
)

// detail401 is the one text of all 401 answers, as FastAPI backends write it:
// it does not tell a guesser what was wrong.
const detail401 = "Could not validate credentials"

// HeaderDecisionID carries a denial's ID, which also stands in the log.
const HeaderDecisionID = "X-Quota-Decision-Id"

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Write answers the request with the denial: status, headers and body. What
// the header map holds already stays, but for the headers of the body itself.
// The answer to HEAD has the headers of the answer to GET (RFC 9110, 9.3.2).
// The error is that of writing the body: the client has gone.
func Write(w http.ResponseWriter, r *http.Request, d *quota.Denial, o Options) error {
	buf, _ := bodies.Get().(*[]byte)
	problem := o.Style == StyleProblem || prefersProblem(r.Header["Accept"])
	if problem {
		*buf = AppendProblem((*buf)[:0], d, o)
	} else {
		*buf = AppendBody((*buf)[:0], d, o)
	}
	defer bodies.Put(buf)

	h := setter{header: w.Header()}
	if problem {
		h.set("Content-Type", "application/problem+json")
	} else {
		h.set("Content-Type", "application/json")
	}
	h.set("Content-Length", strconv.Itoa(len(*buf)))
	h.denial(d)
	w.WriteHeader(d.Status)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(*buf); err != nil {
		return fmt.Errorf("writing a denial: %w", err)
	}
	return nil
}

// SetHeaders sets the headers of a denial that do not depend on its body's
// form, so that an answer made by handle_errors can carry them too.
func SetHeaders(header http.Header, d *quota.Denial) {
	h := setter{header: header}
	h.denial(d)
}

func (h *setter) denial(d *quota.Denial) {
	h.set("Cache-Control", "no-store")
	addVary(h.header, "Accept")
	if d.ID != "" {
		h.set(HeaderDecisionID, d.ID)
	}
	if s, ok := retryAfter(d); ok {
		h.set("Retry-After", strconv.FormatInt(s, 10))
	}
	switch {
	case d.Status != http.StatusUnauthorized:
	case d.Code == quota.CodeUnauthenticated: // no credential was sent: RFC 6750, 3.1
		h.set("Www-Authenticate", "Bearer")
	default:
		h.set("Www-Authenticate", `Bearer error="invalid_token"`)
	}
}

// setter sets fields of one value each, in one allocation for all of them.
type setter struct {
	header http.Header
	values []string
}

// mostFields is how many of these a denial has at most.
const mostFields = 6

func (h *setter) set(key, value string) {
	if h.values == nil {
		h.values = make([]string, 0, mostFields)
	}
	h.values = append(h.values, value)
	n := len(h.values)
	h.header[key] = h.values[n-1 : n : n]
}

// retryAfter is the seconds after which the request would be admitted; ok is
// false where waiting does not help or the status does not go with it.
func retryAfter(d *quota.Denial) (seconds int64, ok bool) {
	switch d.Status {
	case http.StatusServiceUnavailable:
		return wholeSeconds(d.RetryAfter), true
	case http.StatusTooManyRequests, http.StatusPaymentRequired, http.StatusRequestEntityTooLarge:
		return wholeSeconds(d.RetryAfter), d.RetryAfter > 0
	}
	return 0, false
}

// AppendBody appends the denial in the backends' own shape: {"detail": ...}.
func AppendBody(b []byte, d *quota.Denial, o Options) []byte {
	j := object{b: b}
	j.open()
	if s := sentence(d); s != "" {
		j.text("detail", s)
		j.close()
		return j.b
	}
	j.name("detail")
	j.open()
	j.text("error", d.Code)
	j.text("message", d.Message)
	appendFacts(&j, d, o)
	j.close()
	j.close()
	return j.b
}

// sentence is all that is said of a denial, as FastAPI backends write it; empty:
// more is said.
func sentence(d *quota.Denial) string {
	switch {
	case d.Status == http.StatusUnauthorized:
		return detail401
	case d.Code == quota.CodeAdmin:
		return d.Message
	}
	return ""
}

// AppendProblem appends the denial as an RFC 9457 problem: with the registered
// type for what the counters denied, else with about:blank, whose title is the
// status's own.
func AppendProblem(b []byte, d *quota.Denial, o Options) []byte {
	j := object{b: b}
	j.open()
	counted := d.Code == quota.CodeRateLimited || d.Code == quota.CodeQuotaExceeded
	if counted {
		j.text("type", typeQuotaExceeded)
		j.text("title", titleQuotaExceeded)
	} else {
		j.text("type", "about:blank")
		j.text("title", http.StatusText(d.Status))
	}
	j.integer("status", int64(d.Status))
	if d.Status == http.StatusUnauthorized {
		j.text("detail", detail401)
	} else {
		j.text("detail", d.Message)
	}
	j.text("code", d.Code)
	if counted {
		j.list("violated-policies", d.Policies)
	}
	appendFacts(&j, d, o)
	j.close()
	return j.b
}

// appendFacts appends what a program may want to know of the denial.
func appendFacts(j *object, d *quota.Denial, o Options) {
	switch d.Code {
	case quota.CodeRateLimited:
		j.text("scope", d.Scope)
		j.integer("limit", d.Limit.Max)
		j.integer("window", wholeSeconds(d.Limit.Window))
		appendRetryAfter(j, d)
	case quota.CodeQuotaExceeded:
		j.text("metric", d.Metric)
		j.integer("current", d.Used)
		j.integer("limit", d.Limit.Max)
		j.text("period", d.Period.String())
		if d.ResetAt.IsZero() {
			j.null("reset_at")
		} else {
			j.text("reset_at", d.ResetAt.UTC().Format(time.RFC3339))
		}
		if d.Status == http.StatusTooManyRequests {
			appendRetryAfter(j, d)
		}
		j.optional("plan", d.Plan)
		j.optional("upgrade_url", o.UpgradeURL)
	case quota.CodeFeature:
		j.optional("feature", d.Feature)
		j.optional("plan", d.Plan)
		j.optional("upgrade_url", o.UpgradeURL)
	}
	j.optional("decision_id", d.ID)
}

// appendRetryAfter appends the number of the Retry-After header, null where there is none.
func appendRetryAfter(j *object, d *quota.Denial) {
	if s, ok := retryAfter(d); ok {
		j.integer("retry_after", s)
	} else {
		j.null("retry_after")
	}
}

// addVary adds a field name to Vary, unless it stands there.
func addVary(h http.Header, name string) {
	for _, line := range h["Vary"] {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.TrimSpace(part); part == "*" || strings.EqualFold(part, name) {
				return
			}
		}
	}
	h["Vary"] = append(h["Vary"], name)
}
