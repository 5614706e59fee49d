package companion_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/plugins/companion/accounts"
	"github.com/quotagate/quotagate/plugins/companion/admin"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/purchases"
	"go.uber.org/zap"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

// described is what the handlers of a config describe together; any of them
// serves it.
func described(t *testing.T) (*api.Description, []byte) {
	t.Helper()
	d := api.NewDescription()
	nobody := func(*http.Request) (gate.Caller, error) { return gate.Caller{}, nil }
	var first *api.Server
	for _, describe := range []func(huma.API){accounts.Describe, admin.Describe, purchases.Describe} {
		server := api.NewServer(nobody, zap.NewNop(), api.In(d))
		describe(server.API())
		if first == nil {
			first = server
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.OpenAPIPath, nil)
	if err := first.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v: %s", w.Code, w.Header(), w.Body)
	}
	return d, w.Body.Bytes()
}

func TestOpenAPIIsTheOneInTheDocs(t *testing.T) {
	t.Parallel()
	_, served := described(t)
	var got bytes.Buffer
	if err := json.Indent(&got, served, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	golden := filepath.Join("..", "..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/openapi.json is not what is served; run: go test ./plugins/companion -run OpenAPI -update (-docs +served)\n%s", diff)
	}
}

// Whatever administers demands a token, and says what it answers without one.
func TestOpenAPIOfAdminOperations(t *testing.T) {
	t.Parallel()
	d, _ := described(t)
	found := 0
	for path, item := range d.OpenAPI().Paths {
		if !strings.HasPrefix(path, "/v1/admin/") {
			continue
		}
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			found++
			if len(op.Security) == 0 || op.Responses["401"] == nil || op.Responses["403"] == nil {
				t.Errorf("%s %s is described as if anybody could use it", op.Method, path)
			}
			if op.Summary == "" || op.OperationID == "" {
				t.Errorf("%s %s has no summary or no id", op.Method, path)
			}
		}
	}
	if found == 0 {
		t.Error("no operation administers")
	}
}
