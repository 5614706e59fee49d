package profile

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestSplice(t *testing.T) {
	t.Parallel()
	nested := func(n int) string {
		return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
	}
	const plain = `,"subscription":{"plan":"free"}`
	tests := []struct{ name, body, want string }{ // want is empty where nothing is to be inserted
		{"one member", `{"a":1}`, `{"a":1` + plain + `}`},
		{"empty", `{}`, `{` + plain[1:] + `}`},
		{"empty with space", " { \n} ", " {" + plain[1:] + " \n} "},
		{"white space is kept", "{\r\n\t\"a\" : 1 \n}\n", "{\r\n\t\"a\" : 1" + plain + " \n}\n"},
		{"big integers", `{"id":123456789012345678901234567890,"f":1.10e+5}`, `{"id":123456789012345678901234567890,"f":1.10e+5` + plain + `}`},
		{"order and escapes", `{"z":"\u00e9\/","a":null}`, `{"z":"\u00e9\/","a":null` + plain + `}`},
		{"duplicates are the backend's own", `{"a":1,"a":2}`, `{"a":1,"a":2` + plain + `}`},
		{"the key further down", `{"a":{"subscription":1},"b":[{"subscription":2}]}`, `{"a":{"subscription":1},"b":[{"subscription":2}]` + plain + `}`},
		{"another spelling", `{"Subscription":1}`, `{"Subscription":1` + plain + `}`},
		{"deep enough", nested(MaxDepth), nested(MaxDepth)[:len(nested(MaxDepth))-1] + plain + `}`},
		{"all literals", `{"a":[true,false,null,-0,0.5,"",{}]}`, `{"a":[true,false,null,-0,0.5,"",{}]` + plain + `}`},
		{"surrogates", `{"\ud83d\ude00":1,"\ud83d":2,"\ude00\ud83d":3}`, `{"\ud83d\ude00":1,"\ud83d":2,"\ude00\ud83d":3` + plain + `}`},

		{"present", `{"subscription":null}`, ""},
		{"present, escaped", `{"\u0073ubscription":1}`, ""},
		{"present, all escaped", `{"a":1,"\u0073\u0075\u0062\u0073\u0063\u0072\u0069\u0070\u0074\u0069\u006F\u006e":1}`, ""},
		{"too deep", nested(MaxDepth + 1), ""},
		{"array", `[{}]`, ""},
		{"string", `"{}"`, ""},
		{"number", `1`, ""},
		{"nothing", ``, ""},
		{"space", ` `, ""},
		{"two documents", `{}{}`, ""},
		{"lines", "{}\n{}\n", ""},
		{"cut off", `{"a":1`, ""},
		{"cut off in a string", `{"a`, ""},
		{"cut off in an escape", `{"a\`, ""},
		{"cut off in a unit", `{"a\u00`, ""},
		{"trailing comma", `{"a":1,}`, ""},
		{"leading comma", `{,"a":1}`, ""},
		{"trailing comma in an array", `{"a":[1,]}`, ""},
		{"no colon", `{"a" 1}`, ""},
		{"no value", `{"a":}`, ""},
		{"no quotes", `{a:1}`, ""},
		{"leading zero", `{"a":01}`, ""},
		{"bare point", `{"a":1.}`, ""},
		{"no exponent", `{"a":1e}`, ""},
		{"plus", `{"a":+1}`, ""},
		{"NaN", `{"a":NaN}`, ""},
		{"word", `{"a":truth}`, ""},
		{"control character", "{\"a\":\"\n\"}", ""},
		{"unknown escape", `{"a":"\x"}`, ""},
		{"not UTF-8", "{\"a\":\"\xff\"}", ""},
		{"byte order mark", "\ufeff{}", ""},
		{"comment", `{/**/}`, ""},
		{"NUL", "{}\x00", ""},
		{"NUL inside", "{\x00}", ""},
		{"form feed", "{\f}", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := Splice([]byte(tt.body), "subscription", []byte(`{"plan":"free"}`))
			want := tt.want
			if want == "" {
				want = tt.body
			}
			if string(got) != want || ok != (tt.want != "") {
				t.Errorf("got %s, %v", got, ok)
			}
		})
	}
}

func TestSpliceArguments(t *testing.T) {
	t.Parallel()
	if got, ok := Splice([]byte(`{}`), `a"b`, []byte(`1`)); !ok || string(got) != `{"a\"b":1}` {
		t.Errorf("a key is not escaped: %s", got)
	}
	if _, ok := Splice([]byte(`{"a\"b\n\r\t\b\f\/\\":1}`), "a\"b\n\r\t\b\f/\\", []byte(`1`)); ok {
		t.Error("an escaped key counts as absent")
	}
	if _, ok := Splice([]byte(`{"\ud83d\ude00":1}`), "\U0001f600", []byte(`1`)); ok {
		t.Error("a key in surrogates counts as absent")
	}
	if _, ok := Splice([]byte(`{"\ud83dx":1}`), "\ufffdx", []byte(`1`)); ok {
		t.Error("a half surrogate counts as absent")
	}
	for _, value := range []string{"", "{", "1 2", "nul"} {
		if _, ok := Splice([]byte(`{}`), "a", []byte(value)); ok {
			t.Errorf("the value %q was inserted", value)
		}
	}
	if _, ok := Splice([]byte(`{}`), "\xff", []byte(`1`)); ok {
		t.Error("a key that is no UTF-8 was inserted")
	}
	body := []byte(`{"a":1}   `)[:7]
	if _, ok := Splice(body, "b", []byte("2")); !ok || string(body[:10]) != `{"a":1}   ` {
		t.Errorf("the body's array was written to: %q", body[:10])
	}
}

// members are the raw members of an object, in order.
func members(t *testing.T, doc []byte) (names []string, values []json.RawMessage) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(doc))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		t.Fatalf("%s is no object: %v", doc, err)
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err)
		}
		name, _ := tok.(string)
		names, values = append(names, name), append(values, v)
	}
	return names, values
}

func FuzzSplice(f *testing.F) {
	for _, s := range []string{
		``, `{}`, ` { } `, `{"a":1}`, `{"subscription":1}`, `{"\u0073ubscription":1}`, `[{}]`, `{"a":{"subscription":[]}}`,
		`{"a":1e9,"b":-0.0,"c":"\ud800","d":"\\"}`, "{\"a\":\"\xff\"}", `{"a":1,}`, `{"a":"}"}`,
	} {
		f.Add([]byte(s), "subscription", []byte(`{"plan":"free"}`))
	}
	f.Add([]byte(`{"é":1}`), "\u00e9", []byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte, key string, value []byte) {
		before := bytes.Clone(body)
		out, ok := Splice(body, key, value)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was written to")
		}
		if !ok {
			if !bytes.Equal(out, body) {
				t.Fatalf("unchanged, but %q became %q", body, out)
			}
			return
		}
		if !json.Valid(body) || !json.Valid(out) {
			t.Fatalf("%q became %q", body, out)
		}
		was, wasValues := members(t, body)
		is, isValues := members(t, out)
		if slices.Contains(was, key) {
			t.Fatalf("%q was in %q", key, body)
		}
		if len(is) != len(was)+1 || !slices.Equal(is[:len(was)], was) || is[len(was)] != key || string(isValues[len(was)]) != string(bytes.Trim(value, " \t\r\n")) {
			t.Fatalf("%q became %q", body, out)
		}
		for i := range wasValues {
			if !bytes.Equal(wasValues[i], isValues[i]) {
				t.Fatalf("member %d of %q changed in %q", i, body, out)
			}
		}
		// All other bytes are kept: what is left and right of one cut.
		cut := 0
		for cut < len(body) && body[cut] == out[cut] {
			cut++
		}
		if extra := len(out) - len(body); !bytes.HasSuffix(out, body[cut:]) || extra <= 0 {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

// FuzzSpliceAgrees: an object is spliced exactly where encoding/json finds it
// valid, without the member and not too deep.
func FuzzSpliceAgrees(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,2,{"b":null}]}`, `{"a":1`, `{"k":1}`, `{"\u006b":1}`, `{"a":01}`, `{"a":-}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		_, ok := Splice([]byte(body), "k", []byte("1"))
		depth := strings.Count(body, "{") + strings.Count(body, "[")
		trimmed := strings.Trim(body, " \t\r\n")
		if !json.Valid([]byte(body)) || !strings.HasPrefix(trimmed, "{") || strings.ToValidUTF8(body, "") != body {
			if ok {
				t.Fatalf("%q was spliced", body)
			}
			return
		}
		if depth > MaxDepth {
			return
		}
		names, _ := members(t, []byte(body))
		if ok == slices.Contains(names, "k") {
			t.Fatalf("%q: spliced %v", body, ok)
		}
	})
}

func BenchmarkSplice(b *testing.B) {
	body := []byte(`{"id":"0197f3a0-0000-7000-8000-000000000001","email":"a@example.com","username":"a","created_at":"2026-01-01T00:00:00Z","roles":["user"],"settings":{"theme":"dark"}}`)
	value := []byte(`{"plan":"free","display_name":"Free","status":"active"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Splice(body, "subscription", value); !ok {
			b.Fatal("not spliced")
		}
	}
}
