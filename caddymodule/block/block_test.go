package block

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
)

// values are what the options of the tests set.
type values struct {
	Text, Key, Place string
	For              caddy.Duration
	Many             []string
}

func (v *values) options() map[string]Option {
	return map[string]Option{
		"text": One("text <text>", Text(&v.Text)),
		"key":  Secret("key <key>", Text(&v.Key)),
		"for":  One("for <duration>", Duration(&v.For)),
		"many": {Usage: "many <a> [<b>]", Min: 1, Max: 2, Repeat: true, Set: func(args []string) error { v.Many = append(v.Many, args...); return nil }},
		"at":   {Usage: "at", SetAt: func(place string, _ []string) error { v.Place = place; return nil }},
		"own":  {Parse: func(d *caddyfile.Dispenser) error { return d.Errf("read by %s itself", d.Val()) }},
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		block, fault string
		want         values
	}{
		{block: ""},
		{block: "text a\nkey b\nfor 1d\nmany x\nmany y z\nat", want: values{Text: "a", Key: "b", For: caddy.Duration(24 * time.Hour), Many: []string{"x", "y", "z"}, Place: "Testfile:7"}},
		{block: "texts a", fault: `unknown option "texts" in the test: want one of at, for, key, many, own, text, at Testfile:2`},
		{block: "text a\n\ntext b", fault: `duplicate option "text" in the test: it stands in line 2 already; keep one of them, at Testfile:4`},
		{block: "text a {\n}", fault: `unexpected block in the test: the option before it takes none, at Testfile:2`},
		{block: "text", fault: `option "text": an argument is missing; write: text <text>, at Testfile:2`},
		{block: `text ""`, fault: `option "text": the argument is empty; write: text <text>, at Testfile:2`},
		{block: "text a b", fault: `option "text": unexpected argument "b"; write: text <text>, at Testfile:2`},
		{block: "key a b", fault: `option "key": unexpected argument; write: key <key>, at Testfile:2`},
		{block: "many", fault: `option "many": an argument is missing; write: many <a> [<b>], at Testfile:2`},
		{block: "at home", fault: `option "at": unexpected argument "home"; write: at, at Testfile:2`},
		{block: "for 0s", fault: `option "for": "0s" is not above 0, at Testfile:2`},
		{block: "for 5", fault: `option "for": "5" is not a length of time`},
		{block: "for " + strings.Repeat("1", 65) + "s", fault: `option "for": a length of time is missing`},
		{block: "own x", fault: `read by own itself, at Testfile:2`},
	} {
		var got values
		d := caddyfile.NewTestDispenser("test {\n" + tc.block + "\n}")
		d.Next()
		err := Parse(d, "the test", got.options())
		if tc.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("%q: %v, want %s", tc.block, err, tc.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tc.block, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tc.block, diff)
		}
	}
}

func TestBare(t *testing.T) {
	t.Parallel()
	const usage = "write: alone [<matcher>], where a matcher is *, /path or @name, at Testfile:"
	for text, want := range map[string]string{
		"alone":               "",
		"alone x":             `unexpected argument "x"; ` + usage + "1",
		"alone {\n x y\n}":    `unexpected "x": alone has no options; ` + usage + "2",
		"alone {\n}\nanother": "",
	} {
		err := Bare(caddyfile.NewTestDispenser(text))
		if (err == nil) != (want == "") || (err != nil && err.Error() != want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
