package api

import (
	"encoding/csv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTablesHoldNoFormula(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{
		`=HYPERLINK("https://evil.example","x")`: `'=HYPERLINK("https://evil.example","x")`,
		"+1":                                     "'+1", "-1+1": "'-1+1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1", "\n=1": "'\n=1",
		"  =1": "'  =1", "\ufeff=1": "'\ufeff=1", "\v=1": "'\v=1", "\u200b=1": "'\u200b=1", "\u00a0+1": "'\u00a0+1", "＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠x": "'＠x",
		"": "", " ": " ", "0": "0", "12": "12", "a=b": "a=b", "ann@example.com": "ann@example.com", "'=1": "'=1", "\xff=": "\xff=",
	} {
		if got := harmless(cell); got != want {
			t.Errorf("%q became %q, want %q", cell, got, want)
		}
	}
}

func TestTableIsOneThatComesBack(t *testing.T) {
	t.Parallel()
	rows := [][]string{{"a,b", `say "x"`}, {"two\nlines", "=1"}, {"", "ü"}}
	var b strings.Builder
	table := Table{Columns: []string{"one", "two"}, Rows: Slice(rows, func(r []string) []string { return r })}
	if err := table.write(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "one,two\r\n") {
		t.Errorf("begins %q", b.String())
	}
	got, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
	want := [][]string{{"one", "two"}, {"a,b", `say "x"`}, {"two\nlines", "'=1"}, {"", "ü"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func FuzzTablesHoldNoFormula(f *testing.F) {
	for _, seed := range []string{"=1", " +", "\t-", "x", "'", "\ufeff@"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cell string) {
		got := harmless(cell)
		if got != cell && got != "'"+cell {
			t.Fatalf("%q became %q", cell, got)
		}
		if seen := strings.TrimSpace(got); seen != "" && strings.ContainsRune("=+-@", rune(seen[0])) {
			t.Fatalf("%q is a formula", got)
		}
	})
}
