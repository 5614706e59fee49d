package gatetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// GeneratedQueries are the texts of the generated queries in a folder, by name.
func GeneratedQueries(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.sql.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no generated queries in %s: %v", folder, err)
	}
	queries := map[string]string{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && strings.Contains(lit.Value, "-- name:") {
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				queries[spec.Names[0].Name] = text
			}
			return true
		})
	}
	return queries
}
