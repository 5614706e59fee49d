package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

const (
	storeDir  = "../../caddymodule/store"
	storePath = "github.com/quotagate/quotagate/caddymodule/store"
)

// What of the store only the companion uses is in files of its own, companion*,
// and a build of this list has none of it: no function, no variable, no query.
func TestGatewayLinksNothingOfTheCompanions(t *testing.T) {
	t.Parallel()
	program := build(t)
	linked := symbols(t, program)
	for name := range linked {
		if strings.HasPrefix(name, storePath+".Companion") {
			t.Errorf("%s is linked", name)
		}
	}
	kept := 0
	called := selected(t, storeDir, "../pgrecords", "../sqliterecords")
	for name, file := range declared(t, storeDir, storePath) {
		method, ofStore := strings.CutPrefix(name, storePath+".Store.")
		switch {
		case companions(file):
			if kept++; linked[name] {
				t.Errorf("%s is linked: a gateway uses what is in %s", name, file)
			}
		case strings.HasPrefix(name, storePath+".Companion."):
			t.Errorf("%s is in %s, and not in a file of the companion's", name, file)
		case ofStore && ast.IsExported(method) && !called[method]:
			t.Errorf("%s is linked, and no gateway calls it: make it a method of Companion", name)
		}
	}
	for name, file := range declared(t, storeDir+"/sqlgen", storePath+"/sqlgen") {
		if companions(file) && linked[name] {
			t.Errorf("%s, from %s, is linked", name, file)
		}
	}
	for _, name := range []string{"Companion", "ForCompanion"} {
		if called[name] {
			t.Errorf("a gateway names store.%s", name)
		}
	}
	for _, name := range []string{".Store.Flush", ".Store.Entitlement", "/sqlgen.Queries.PutTotal"} {
		if !linked[storePath+name] {
			t.Errorf("%s is not linked: this is no gateway", name)
		}
	}
	if kept < 200 {
		t.Errorf("the companion has only %d functions and variables", kept)
	}
	checkQueries(t, program)
}

// checkQueries finds the queries of the gateway in the program, and no other.
func checkQueries(t *testing.T, program string) {
	t.Helper()
	linked := queries(t, program)
	files, err := filepath.Glob(storeDir + "/queries/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no queries: %v", err)
	}
	for _, file := range files {
		for name := range queries(t, file) {
			switch ofCompanion := companions(filepath.Base(file)); {
			case ofCompanion && linked[name]:
				t.Errorf("the query %s of %s is linked", name, file)
			case !ofCompanion && !linked[name]:
				t.Errorf("the query %s is not linked: move it from %s to a file of the companion's", name, file)
			}
		}
	}
}

// companions reports whether a file of the store is the companion's.
func companions(file string) bool { return strings.HasPrefix(file, "companion") }

// build builds a gateway as this test was built, so that most of it is compiled already.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gateway")
	args := []string{"build", "-o", program}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test does not know how it was built")
	}
	for _, s := range info.Settings {
		if (s.Key == "-race" || s.Key == "-trimpath") && s.Value == "true" {
			args = append(args, s.Key)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(args, "testdata/main.go")...).CombinedOutput(); err != nil {
		t.Fatalf("building a gateway: %v\n%s", err, out)
	}
	return program
}

// symbols are what the program links, a method as package.Type.Method.
func symbols(t *testing.T, program string) map[string]bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "nm", program).Output()
	if err != nil {
		t.Fatalf("listing what is linked: %v", err)
	}
	plain := strings.NewReplacer("(*", "", ")", "")
	names := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 { // address, kind, name
			name, _, _ := strings.Cut(f[2], "[") // of a generic function
			names[plain.Replace(name)] = true
		}
	}
	return names
}

var queryName = regexp.MustCompile(`-- name: (\w+) :`)

// queries are the names of the queries in a file.
func queries(t *testing.T, file string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range queryName.FindAllSubmatch(b, -1) {
		names[string(m[1])] = true
	}
	return names
}

// parse reads the files of a folder that are no tests.
func parse(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing in %s: %v", dir, err)
	}
	parsed := map[string]*ast.File{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed[filepath.Base(file)] = f
	}
	return parsed
}

// declared are a package's functions and variables as symbols names them, each
// with its file.
func declared(t *testing.T, dir, path string) map[string]string {
	t.Helper()
	names := map[string]string{}
	for file, f := range parse(t, dir) {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names[path+"."+receiver(d)+d.Name.Name] = file
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.VAR {
						for _, name := range v.Names {
							names[path+"."+name.Name] = file
						}
					}
				}
			}
		}
	}
	return names
}

// receiver is the type of a method and a dot; empty for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	of := d.Recv.List[0].Type
	if p, ok := of.(*ast.StarExpr); ok {
		of = p.X
	}
	return of.(*ast.Ident).Name + "."
}

// selected are the names x in all expressions a.x of a gateway's files. A method
// of the store is not selected by itself: it may be called like a query.
func selected(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range dirs {
		for file, f := range parse(t, dir) {
			if companions(file) {
				continue
			}
			for _, d := range f.Decls {
				self := ""
				if fn, ok := d.(*ast.FuncDecl); ok && receiver(fn) == "Store." {
					self = fn.Name.Name
				}
				ast.Inspect(d, func(n ast.Node) bool {
					if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name != self {
						names[s.Sel.Name] = true
					}
					return true
				})
			}
		}
	}
	return names
}
