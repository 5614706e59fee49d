package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxJSON bounds the JSON that a stand-in reads.
const maxJSON = 1 << 20

// detail is FastAPI's error body.
type detail struct {
	Detail any `json:"detail"`
}

// invalid is one entry of FastAPI's 422 answer.
type invalid struct {
	Type string   `json:"type"`
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The status is out: a client that has gone is nobody to tell.
	_ = json.NewEncoder(w).Encode(body)
}

func writeError(w http.ResponseWriter, status int, message string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, status, detail{message})
}

func writeMissing(w http.ResponseWriter, fields ...string) {
	list := make([]invalid, len(fields))
	for i, f := range fields {
		list[i] = invalid{Type: "missing", Loc: []string{"body", f}, Msg: "Field required"}
	}
	writeJSON(w, http.StatusUnprocessableEntity, detail{list})
}

// readFields reads a JSON object's or a form's strings. It answers 422 itself
// and reports false where there are none to read, or one of required is missing.
func readFields(w http.ResponseWriter, r *http.Request, required ...string) (map[string]string, bool) {
	fields := map[string]string{}
	r.Body = http.MaxBytesReader(w, r.Body, maxJSON)
	switch {
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded"):
		if err := r.ParseForm(); err != nil {
			writeError(w, http.StatusBadRequest, "There was an error parsing the body")
			return nil, false
		}
		for name := range r.PostForm {
			fields[name] = r.PostForm.Get(name)
		}
	default:
		var object map[string]any
		if err := json.NewDecoder(r.Body).Decode(&object); err != nil && !errors.Is(err, io.EOF) {
			writeJSON(w, http.StatusUnprocessableEntity, detail{[]invalid{{Type: "json_invalid", Loc: []string{"body"}, Msg: "JSON decode error"}}})
			return nil, false
		}
		for name, v := range object {
			if s, ok := v.(string); ok {
				fields[name] = s
			}
		}
	}
	var missing []string
	for _, name := range required {
		if fields[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		writeMissing(w, missing...)
		return nil, false
	}
	return fields, true
}

// claims are those of the auth backend's tokens.
type claims struct {
	Type  string `json:"type"` // "access" or "refresh"
	SID   string `json:"sid"`
	Email string `json:"email"`
	jwt.RegisteredClaims
}

// bearer is the credential in the Authorization header, empty where there is none.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// verify reads a token of the kind wanted; both backends share the secret.
func verify(secret []byte, token string, kinds ...string) (*claims, error) {
	c := new(claims)
	_, err := jwt.ParseWithClaims(token, c, func(*jwt.Token) (any, error) { return secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, c.Type) {
		return nil, errors.New("a token of another type")
	}
	return c, nil
}

// requireUser hands requests with a valid access token on, with whose it is.
func requireUser(secret []byte, next func(http.ResponseWriter, *http.Request, *claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := verify(secret, bearer(r), "access")
		if err != nil {
			writeError(w, http.StatusUnauthorized, "Could not validate credentials")
			return
		}
		next(w, r, c)
	}
}

// router is a mux that treats unknown paths and methods as FastAPI does.
type router struct{ mux *http.ServeMux }

func (rt router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != path.Clean(r.URL.Path) {
		rt.unclean(w, r)
		return
	}
	if _, pattern := rt.mux.Handler(r); pattern != "" {
		rt.mux.ServeHTTP(w, r)
		return
	}
	if method := rt.known(r, r.URL.Path); method != "" {
		w.Header().Set("Allow", method)
		writeError(w, http.StatusMethodNotAllowed, "Method Not Allowed")
		return
	}
	writeError(w, http.StatusNotFound, "Not Found")
}

// unclean redirects a path with a slash too many at its end, and knows no other
// spelling: FastAPI does not merge slashes or dots.
func (rt router) unclean(w http.ResponseWriter, r *http.Request) {
	trimmed := strings.TrimSuffix(r.URL.Path, "/")
	if trimmed != path.Clean(trimmed) || rt.known(r, trimmed) == "" {
		writeError(w, http.StatusNotFound, "Not Found")
		return
	}
	to := url.URL{Scheme: "http", Host: r.Host, Path: trimmed, RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// known is a method that is served at the path, empty where there is none.
func (rt router) known(r *http.Request, at string) string {
	other := r.Clone(r.Context())
	other.URL.Path, other.URL.RawPath = at, ""
	for _, other.Method = range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if _, pattern := rt.mux.Handler(other); pattern != "" {
			return other.Method
		}
	}
	return ""
}

// timestamp is a time as Pydantic writes it.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }
