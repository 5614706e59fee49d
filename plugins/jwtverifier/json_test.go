package jwtverifier

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// plain is a value as encoding/json has it.
func (v *value) plain() any {
	switch v.kind {
	case kindNull:
		return nil
	case kindBool:
		return v.text == "true"
	case kindNumber:
		return json.Number(v.text)
	case kindString:
		return v.text
	case kindArray:
		list := make([]any, 0, len(v.list))
		for i := range v.list {
			list = append(list, v.list[i].plain())
		}
		return list
	}
	object := make(map[string]any, len(v.members))
	for i := range v.members {
		object[v.members[i].name] = v.members[i].plain()
	}
	return object
}

func TestParseObject(t *testing.T) {
	t.Parallel()
	large := make([]string, 0, 40)
	for c := range 40 {
		large = append(large, `"`+string(rune('A'+c))+`":1`)
	}
	tests := map[string]bool{
		`{}`:           true,
		` {"a" : 1 } `: true,
		`{"a":[1,-0.5e+3,true,false,null,"x",{}]}`:   true,
		`{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`: true,
		`{"a":1,"A":2}`: true,
		`{` + strings.Join(large[:20], ",") + `}`:                         true,
		`{` + strings.Join(append(large[:20:20], large[17]), ",") + `}`:   false,
		`{` + strings.Join(append(large[:16:16], large[0]), ",") + `}`:    false,
		`{` + strings.Join(append(large[:15:15], large[0]), ",") + `}`:    false,
		`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`: true,
		`{"a":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`: false,
		``: false, `[]`: false, `1`: false, `{`: false, `{"a"}`: false, `{"a":}`: false, `{"a":1`: false,
		`{a:1}`: false, `{'a':1}`: false, `{"a":1,}`: false, `{,}`: false, `{"a":1 "b":2}`: false,
		`{"a":01}`: false, `{"a":+1}`: false, `{"a":.5}`: false, `{"a":1.}`: false, `{"a":1e}`: false, `{"a":-}`: false,
		`{"a":tru}`: false, `{"a":TRUE}`: false, `{"a":NaN}`: false, `{"a":Infinity}`: false, `{"a":[1,]}`: false,
		`{"a":"x}`: false, `{"a":"\x"}`: false, `{"a":"\u12"}`: false, `{"a":"\u12g4"}`: false, `{"a":"\`: false,
		`{"a":"\ud800"}`: false, `{"a":"\udc00"}`: false, `{"a":"\ud800\u0041"}`: false, `{"a":"\ud800\ud800"}`: false,
		"{\"a\":\"\t\"}": false, "{\"a\":\"\xff\"}": false, "{\"a\":1}\x00": false, `{"a":1}}`: false, "\ufeff{}": false,
		`{"a":1,"a":1}`: false, `{"a":1,"\u0061":1}`: false, `{"x":[{"a":1,"a":1}]}`: false,
		`{"a":"\u+123"}`: false, `{"a":"\u_123"}`: false,
	}
	for text, ok := range tests {
		object, err := parseObject(text)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err == nil {
			sameAsStandard(t, text, object)
		}
	}
}

// sameAsStandard wants encoding/json to read the same from the text.
func sameAsStandard(tb testing.TB, text string, object object) {
	tb.Helper()
	var want any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&want); err != nil {
		tb.Fatalf("encoding/json refuses %q: %v", text, err)
	}
	got := (&value{kind: kindObject, members: object}).plain()
	a, err := json.Marshal(got)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := json.Marshal(want)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		tb.Fatalf("%q: got %s, encoding/json has %s", text, a, b)
	}
}
