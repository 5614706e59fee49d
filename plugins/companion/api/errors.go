package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

func init() {
	// Huma has one constructor of errors for the process. Nothing else in it uses Huma.
	huma.NewError = newError
	// A member in other letters would pass by the rules of the one that it is
	// decoded into: encoding/json takes "ACTION" for "action".
	huma.ValidateStrictCasing = true
}

// Error is an answer with FastAPI's body: {"detail": ...}.
type Error struct {
	Detail any `json:"detail" doc:"A sentence, an object with error, message and decision_id, or a list of what is wrong with the input (loc, msg, type)."`
	status int
}

// GetStatus implements huma.StatusError.
func (e *Error) GetStatus() int { return e.status }

func (e *Error) Error() string {
	if s, ok := e.Detail.(string); ok {
		return s
	}
	return http.StatusText(e.status)
}

// Problem is one thing that is wrong with the input, in FastAPI's 422 list.
type Problem struct {
	Loc  []any  `json:"loc"` // body, query, path or header, then the field; of a list the index, a number
	Msg  string `json:"msg"`
	Type string `json:"type"`
}

// NewError answers the status with a sentence.
func NewError(status int, detail string) *Error { return &Error{Detail: detail, status: status} }

// Refuse answers the status with an object: a code that programs compare, and a
// sentence for people.
func Refuse(status int, code, message string) *Error {
	return &Error{Detail: Refusal{Code: code, Message: message}, status: status}
}

// Refusal is the detail of a request that was understood and is not carried out.
type Refusal struct {
	Code    string `json:"error"`
	Message string `json:"message"`
}

// Invalid answers 422 with what is wrong with one field of the body.
func Invalid(field, message string) *Error { return invalidIn("body", field, message) }

// InvalidQuery answers 422 with what is wrong with a parameter of the query.
func InvalidQuery(field, message string) *Error { return invalidIn("query", field, message) }

// InvalidPath answers 422 with what is wrong with a part of the path.
func InvalidPath(field, message string) *Error { return invalidIn("path", field, message) }

func invalidIn(place, field, message string) *Error {
	return &Error{
		Detail: []Problem{{Loc: []any{place, field}, Msg: message, Type: "value_error"}},
		status: http.StatusUnprocessableEntity,
	}
}

// Unavailable answers 503: what would answer is down. The reason is for the log,
// never for the client.
func Unavailable() *Error {
	return NewError(http.StatusServiceUnavailable, "This information is not available at the moment")
}

// Write answers outside of an operation.
func Write(w http.ResponseWriter, e *Error) {
	b, err := json.Marshal(e)
	if err != nil { // a detail that is no JSON: the status alone then
		b = nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_, _ = w.Write(b) // only a client that has left makes this fail
}

// newError gives Huma's own errors the same shape. What went wrong inside is
// for the log, never for the client.
func newError(status int, message string, errs ...error) huma.StatusError {
	if status >= http.StatusInternalServerError {
		return NewError(status, http.StatusText(status))
	}
	if status == http.StatusBadRequest && len(errs) == 0 {
		// FastAPI has no other answer to a body that is missing or no JSON.
		return &Error{
			Detail: []Problem{{Loc: []any{"body"}, Msg: message, Type: "value_error"}},
			status: http.StatusUnprocessableEntity,
		}
	}
	problems := make([]Problem, 0, len(errs))
	for _, err := range errs {
		var detail *huma.ErrorDetail
		if errors.As(err, &detail) {
			problems = append(problems, problem(detail))
		} else if err != nil {
			problems = append(problems, Problem{Loc: []any{"body"}, Msg: err.Error(), Type: "value_error"})
		}
	}
	if len(problems) == 0 {
		return NewError(status, message)
	}
	if status == http.StatusBadRequest {
		status = http.StatusUnprocessableEntity
	}
	return &Error{Detail: problems, status: status}
}

// unmarshaled is how encoding/json speaks of a value that is none of its field's:
// in the words of our code, which are nobody's business.
var unmarshaled = regexp.MustCompile(`^json: cannot unmarshal (.+) into Go struct field [^.]*\.(\S+) of type \S+$`)

// absent is how Huma speaks of a member that is not there: at the place of the
// object that should have it.
var absent = regexp.MustCompile(`^expected required property (\S+) to be present$`)

// problem is what Huma says is wrong, in FastAPI's shape.
func problem(d *huma.ErrorDetail) Problem {
	p := Problem{Msg: d.Message, Type: "value_error"}
	where := d.Location
	if m := unmarshaled.FindStringSubmatch(d.Message); m != nil {
		where, p.Msg = where+"."+m[2], "cannot take a "+m[1]
	}
	if m := absent.FindStringSubmatch(d.Message); m != nil {
		where, p.Msg, p.Type = where+"."+m[1], "Field required", "missing"
	}
	for part := range strings.SplitSeq(where, ".") {
		name, index, listed := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		p.Loc = append(p.Loc, name)
		if n, err := strconv.Atoi(index); listed && err == nil {
			p.Loc = append(p.Loc, n)
		}
	}
	return p
}
