package api

import (
	"encoding/json"
	"maps"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Description is the OpenAPI document of all the handlers of one config, each of
// which has a server of its own. Handlers join it while the config is provisioned.
type Description struct {
	mu      sync.Mutex
	schemas huma.Registry
	parts   []*huma.OpenAPI
}

// NewDescription is a document of nothing yet.
func NewDescription() *Description {
	return &Description{schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)}
}

// join adds the document of one server. Servers share their schemas: two types
// of one name would describe each other wrongly, and Huma panics on them.
func (d *Description) join() *huma.OpenAPI {
	d.mu.Lock()
	defer d.mu.Unlock()
	part := d.document()
	d.parts = append(d.parts, part)
	return part
}

func (d *Description) document() *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Quotagate", Version: Version, Description: description,
			License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Components: &huma.Components{
			Schemas: d.schemas,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				Security: {
					Type: "http", Scheme: "bearer", BearerFormat: "JWT",
					Description: "An access token of the auth backend, or another credential that a configured verifier accepts.",
				},
			},
		},
	}
}

// OpenAPI is the whole document.
func (d *Description) OpenAPI() *huma.OpenAPI {
	d.mu.Lock()
	defer d.mu.Unlock()
	whole := d.document()
	whole.Paths = map[string]*huma.PathItem{}
	for _, part := range d.parts {
		for path, item := range part.Paths {
			if known := whole.Paths[path]; known != nil {
				item = merge(*known, *item)
			}
			whole.Paths[path] = item
		}
		maps.Copy(whole.Components.SecuritySchemes, part.Components.SecuritySchemes)
	}
	return whole
}

// merge is both: two handlers may serve different methods of one path.
func merge(a, b huma.PathItem) *huma.PathItem {
	for _, m := range []struct {
		to   **huma.Operation
		from *huma.Operation
	}{{&a.Get, b.Get}, {&a.Post, b.Post}, {&a.Put, b.Put}, {&a.Patch, b.Patch}, {&a.Delete, b.Delete}} {
		if m.from != nil {
			*m.to = m.from
		}
	}
	return &a
}

// JSON is the document as it is served.
func (d *Description) JSON() ([]byte, error) { return json.Marshal(d.OpenAPI()) }
