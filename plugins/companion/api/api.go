// Package api is what all REST handlers of the companion share: the OpenAPI
// description, who asks, and errors in the backends' own (FastAPI) shape. What
// the operations do is in the packages beside it.
package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/quotagate/quotagate/caddymodule/gate"
)

// Version is that of the REST contract.
const Version = "1.0.0"

// Security is the name of the scheme by which operations demand a bearer token.
const Security = "bearer"

// New is an API on the mux, described at /v1/openapi.json.
func New(mux *http.ServeMux) huma.API {
	c := huma.DefaultConfig("Quotagate", Version)
	c.OpenAPIPath = "/v1/openapi"
	c.DocsPath = ""     // its page would load scripts from elsewhere
	c.SchemasPath = ""  // and answers carry no links to schemas
	c.CreateHooks = nil // of which this is the one that adds them
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		Security: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
	}
	return humago.New(mux, c)
}

// Authenticated marks an operation that needs a caller.
func Authenticated() []map[string][]string { return []map[string][]string{{Security: {}}} }

type callerKey struct{}

// WithCaller is the request with the caller that it comes from.
func WithCaller(r *http.Request, c *gate.Caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// Caller is who asks, or an error that answers 401.
func Caller(ctx context.Context) (*gate.Caller, error) {
	c, ok := ctx.Value(callerKey{}).(*gate.Caller)
	if !ok || c.Entitlement == nil {
		return nil, Unauthenticated()
	}
	return c, nil
}
