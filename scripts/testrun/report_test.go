package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		events []string
		ok     bool
		last   string
		has    []string
		hasNot []string
	}{
		"all pass": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/x"}`,
				`{"Action":"output","Package":"p","Test":"TestA/x","Output":"noise\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/x"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p","Elapsed":1.25}`,
				`{"Action":"skip","Package":"q"}`,
			},
			ok: true, last: "1 passed, 0 failed", has: []string{"pass  p  1.2s"}, hasNot: []string{"noise", "q"},
		},
		"what is slow is told": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/x"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/x","Elapsed":5}`,
				`{"Action":"pass","Package":"p","Test":"TestA","Elapsed":5}`,
				`{"Action":"run","Package":"p","Test":"TestB"}`,
				`{"Action":"pass","Package":"p","Test":"TestB","Elapsed":61.5}`,
				`{"Action":"run","Package":"p","Test":"TestC"}`,
				`{"Action":"pass","Package":"p","Test":"TestC","Elapsed":4.9}`,
				`{"Action":"pass","Package":"p"}`,
			},
			ok: true, last: "3 passed, 0 failed", hasNot: []string{"p TestA\n", "TestC"},
			has: []string{"slowest:\n    61.5s  p TestB\n     5.0s  p TestA/x\n"},
		},
		"a skip fails": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"no server\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestB"}`,
				`{"Action":"pass","Package":"p","Test":"TestB"}`,
				`{"Action":"pass","Package":"p"}`,
			},
			last: "1 passed, 1 failed", has: []string{"no server", "p TestA"},
		},
		"a subtest fails once": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/x"}`,
				`{"Action":"output","Package":"p","Test":"TestA/x","Output":"wrong\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA/x"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			last: "0 passed, 1 failed", has: []string{"wrong", "fail  p"},
		},
		"a test that never ended fails": {
			events: []string{
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			last: "0 passed, 1 failed", has: []string{"panic: oh"},
		},
		"a build that fails is shown": {
			events: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"p.go:1: syntax error\n"}`,
				`{"ImportPath":"p","Action":"build-fail"}`,
				`{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}`,
				`{"Action":"fail","Package":"p"}`,
			},
			last: "0 passed, 0 failed", has: []string{"syntax error", "[build failed]"},
		},
		"nothing ran":          {last: "0 passed, 0 failed"},
		"foreign lines remain": {events: []string{"go: downloading x"}, last: "0 passed, 0 failed", has: []string{"go: downloading x"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			rep := newReport(&out)
			if err := rep.read(strings.NewReader(strings.Join(tt.events, "\n"))); err != nil {
				t.Fatal(err)
			}
			if ok := rep.close(); ok != tt.ok {
				t.Errorf("ok = %v, want %v", ok, tt.ok)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != tt.last {
				t.Errorf("last line %q, want %q", last, tt.last)
			}
			for _, s := range tt.has {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, out.String())
				}
			}
			for _, s := range tt.hasNot {
				if strings.Contains(out.String(), s) {
					t.Errorf("output has %q:\n%s", s, out.String())
				}
			}
		})
	}
}
