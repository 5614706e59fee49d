// Package api is what all REST handlers of the companion share: the OpenAPI
// description, who asks, and answers in the backends' own (FastAPI) shape. What
// the operations do is in the packages beside it.
package api

import (
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Version is that of the REST contract.
const Version = "1.0.0"

// OpenAPIPath is where the description is served, as OpenAPI 3.1.
const OpenAPIPath = "/v1/openapi.json"

// Security is the name of the scheme by which operations demand a bearer token.
const Security = "bearer"

const description = "Plans, subscriptions and usage. Times are RFC 3339 in UTC. In limits null means unlimited, " +
	"and 0 means none. Errors are `{\"detail\": ...}`: a sentence, an object with `error` and `message`, " +
	"or a list of what is wrong with the input; the gateway's denials come as RFC 9457 problems to a client that " +
	"accepts application/problem+json."

// newAPI is an API on the mux that describes itself there, with all others of
// the same description.
func newAPI(mux *http.ServeMux, d *Description) huma.API {
	c := huma.DefaultConfig("", "")
	c.OpenAPI = d.join()
	c.OpenAPIPath = "" // more spellings and versions than the contract has
	c.DocsPath = ""    // its page would load scripts from elsewhere
	c.SchemasPath = "" // and answers carry no links to schemas
	c.CreateHooks = nil
	a := humago.New(mux, c)
	rendered := sync.OnceValues(d.JSON)
	mux.HandleFunc("GET "+OpenAPIPath, func(w http.ResponseWriter, _ *http.Request) {
		b, err := rendered()
		if err != nil {
			Write(w, NewError(http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError)))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // only a client that has left makes this fail
	})
	return a
}

// Authenticated marks an operation that needs a caller: without one it is
// answered with 401 before it runs.
func Authenticated() []map[string][]string { return []map[string][]string{{Security: {}}} }
