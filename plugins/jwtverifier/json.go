package jwtverifier

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Token headers, claims and key sets are read by a parser of our own:
// encoding/json folds the case of member names, keeps the last of several
// duplicates and replaces broken UTF-8, so that two parties can read one text
// differently. Here such a text is refused (RFC 8259 section 4, RFC 7519 section 4).

// maxDepth bounds the nesting of arrays and objects.
const maxDepth = 32

// kind is the type of a JSON value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is one JSON value. text is a string's content, a number's literal as
// it was written, or "true" and "false".
type value struct {
	kind    kind
	text    string
	list    []value
	members object
}

type member struct {
	name string
	value
}

// object holds the members in their order; no name stands in it twice.
type object []member

// get finds the member with exactly that name. A null is reported as absent.
func (o object) get(name string) (*value, bool) {
	for i := range o {
		if o[i].name == name {
			return &o[i].value, o[i].kind != kindNull
		}
	}
	return nil, false
}

// parseObject parses a text that is one JSON object.
func parseObject(text string) (object, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("the text is not UTF-8")
	}
	p := parser{s: text}
	p.space()
	if p.peek() != '{' {
		return nil, errors.New("the text is not a JSON object")
	}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i != len(p.s) {
		return nil, p.unexpected()
	}
	return v.members, nil
}

type parser struct {
	s string
	i int
}

// peek is the next byte, 0 at the end (a NUL is no JSON either).
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) unexpected() error {
	if p.i >= len(p.s) {
		return errors.New("the JSON ends early")
	}
	return fmt.Errorf("the JSON is malformed at byte %d", p.i)
}

func (p *parser) value(depth int) (value, error) {
	if depth > maxDepth {
		return value{}, fmt.Errorf("the JSON nests deeper than %d", maxDepth)
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		text, err := p.string()
		return value{kind: kindString, text: text}, err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	default:
		return p.word()
	}
}

func (p *parser) word() (value, error) {
	for _, w := range [...]value{
		{kind: kindBool, text: "true"}, {kind: kindBool, text: "false"}, {kind: kindNull, text: "null"},
	} {
		if len(p.s)-p.i >= len(w.text) && p.s[p.i:p.i+len(w.text)] == w.text {
			p.i += len(w.text)
			return w, nil
		}
	}
	return value{}, p.unexpected()
}

func (p *parser) object(depth int) (value, error) {
	v := value{kind: kindObject}
	var seen names
	p.i++
	p.space()
	if p.peek() == '}' {
		p.i++
		return v, nil
	}
	for {
		if p.peek() != '"' {
			return value{}, p.unexpected()
		}
		name, err := p.string()
		if err != nil {
			return value{}, err
		}
		if !seen.add(v.members, name) {
			return value{}, errors.New("a member stands twice in an object")
		}
		p.space()
		if p.peek() != ':' {
			return value{}, p.unexpected()
		}
		p.i++
		p.space()
		m, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.members = append(v.members, member{name: name, value: m})
		if more, err := p.more('}'); !more {
			return v, err
		}
	}
}

// names finds duplicates: by scanning a small object, by a map in a large one.
type names map[string]struct{}

// add reports whether name is new among the members before it.
func (n *names) add(before object, name string) bool {
	const small = 16
	if len(before) < small {
		for i := range before {
			if before[i].name == name {
				return false
			}
		}
		return true
	}
	if *n == nil {
		*n = make(names, 2*small)
		for i := range before {
			(*n)[before[i].name] = struct{}{}
		}
	}
	if _, known := (*n)[name]; known {
		return false
	}
	(*n)[name] = struct{}{}
	return true
}

// more consumes what stands between two elements; it reports false at the end
// of the array or object, or with an error.
func (p *parser) more(end byte) (bool, error) {
	p.space()
	switch p.peek() {
	case ',':
		p.i++
		p.space()
		return true, nil
	case end:
		p.i++
		return false, nil
	default:
		return false, p.unexpected()
	}
}

func (p *parser) array(depth int) (value, error) {
	v := value{kind: kindArray}
	p.i++
	p.space()
	if p.peek() == ']' {
		p.i++
		return v, nil
	}
	for {
		e, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.list = append(v.list, e)
		if more, err := p.more(']'); !more {
			return v, err
		}
	}
}

// number takes the literal as it is, in the grammar of RFC 8259 section 6.
func (p *parser) number() (value, error) {
	start := p.i
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return value{}, p.unexpected()
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return value{}, p.unexpected()
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.i++
		if c := p.peek(); c == '+' || c == '-' {
			p.i++
		}
		if !p.digits() {
			return value{}, p.unexpected()
		}
	}
	return value{kind: kindNumber, text: p.s[start:p.i]}, nil
}

func (p *parser) digits() bool {
	start := p.i
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.i++
	}
	return p.i > start
}

// string parses a string; without escapes it is a part of the text.
func (p *parser) string() (string, error) {
	p.i++
	start := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return p.s[start : p.i-1], nil
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return "", p.unexpected()
		}
		p.i++
	}
	return "", p.unexpected()
}

func (p *parser) escaped(start int) (string, error) {
	buf := append(make([]byte, 0, 2*(p.i-start)+16), p.s[start:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		switch {
		case c == '"':
			p.i++
			return string(buf), nil
		case c < 0x20:
			return "", p.unexpected()
		case c != '\\':
			buf = append(buf, c)
			p.i++
			continue
		}
		r, err := p.escape()
		if err != nil {
			return "", err
		}
		buf = utf8.AppendRune(buf, r)
	}
	return "", p.unexpected()
}

// escape parses one escape sequence. A lone surrogate is refused: parsers
// disagree about what it means.
func (p *parser) escape() (rune, error) {
	p.i++
	c := p.peek()
	for i, e := range []byte(`"\/bfnrt`) {
		if c == e {
			p.i++
			return rune("\"\\/\b\f\n\r\t"[i]), nil
		}
	}
	if c != 'u' {
		return 0, p.unexpected()
	}
	r, err := p.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.peek() == '\\' && p.i+1 < len(p.s) && p.s[p.i+1] == 'u' {
		p.i++
		low, err := p.hex()
		if err != nil {
			return 0, err
		}
		if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
			return full, nil
		}
	}
	return 0, errors.New("a lone surrogate stands in a JSON string")
}

// hex parses the four digits behind a \u; p stands at the u.
func (p *parser) hex() (rune, error) {
	p.i++
	if len(p.s)-p.i < 4 {
		return 0, errors.New("the JSON ends early")
	}
	n, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 16)
	if err != nil {
		return 0, p.unexpected()
	}
	p.i += 4
	return rune(n), nil
}
