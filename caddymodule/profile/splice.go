package profile

import (
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep a document may be nested; one that is deeper is left alone.
const MaxDepth = 256

// Splice inserts "key":value behind the last member of body, if body is
// exactly one JSON object (RFC 8259, strictly: valid UTF-8, no byte order mark,
// nothing before or after but white space) that has no member of that name at
// its top level, in whatever spelling. All other bytes are kept. Where ok is
// false nothing was inserted and out is body itself. Value must be valid JSON,
// key valid UTF-8; anything else is not inserted.
func Splice(body []byte, key string, value []byte) (out []byte, ok bool) {
	if !utf8.Valid(body) || !utf8.ValidString(key) || !json.Valid(value) {
		return body, false
	}
	s := scanner{src: body, key: key}
	if !s.document() {
		return body, false
	}
	name, err := json.Marshal(key)
	if err != nil {
		return body, false
	}
	member := make([]byte, 0, len(name)+len(value)+2)
	if !s.empty {
		member = append(member, ',')
	}
	member = append(append(append(member, name...), ':'), value...)
	return slices.Concat(body[:s.insert], member, body[s.insert:]), true
}

// scanner checks a document and finds the place where a member can be inserted.
// Each method moves past what it is named after and reports whether it was there.
type scanner struct {
	src    []byte
	at     int
	key    string
	insert int  // behind the top level's last member, or its opening brace
	empty  bool // the top level has no members
}

func (s *scanner) document() bool {
	s.space()
	if s.peek() != '{' || !s.object(1) {
		return false
	}
	s.space()
	return s.at == len(s.src)
}

// peek is the next byte, 0 at the end: no JSON begins or goes on with it.
func (s *scanner) peek() byte {
	if s.at < len(s.src) {
		return s.src[s.at]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c || s.at == len(s.src) {
		return false
	}
	s.at++
	return true
}

func (s *scanner) space() {
	for s.at < len(s.src) {
		switch s.src[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) bool {
	switch c := s.peek(); c {
	case '{':
		return s.object(depth)
	case '[':
		return s.array(depth)
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) object(depth int) bool {
	if depth > MaxDepth || !s.take('{') {
		return false
	}
	top := depth == 1
	if top {
		s.insert, s.empty = s.at, true
	}
	s.space()
	if s.take('}') {
		return true
	}
	for {
		s.space()
		name, ok := s.text()
		if !ok || top && sameName(name, s.key) {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		if !s.value(depth + 1) {
			return false
		}
		if top {
			s.insert, s.empty = s.at, false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) array(depth int) bool {
	if depth > MaxDepth || !s.take('[') {
		return false
	}
	s.space()
	if s.take(']') {
		return true
	}
	for {
		s.space()
		if !s.value(depth + 1) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// text moves past a string and gives what stands between its quotes.
func (s *scanner) text() (raw []byte, ok bool) {
	if !s.take('"') {
		return nil, false
	}
	from := s.at
	for s.at < len(s.src) {
		c := s.src[s.at]
		switch {
		case c == '"':
			s.at++
			return s.src[from : s.at-1], true
		case c < 0x20:
			return nil, false
		case c == '\\':
			if !s.escape() {
				return nil, false
			}
		default:
			s.at++
		}
	}
	return nil, false
}

func (s *scanner) escape() bool {
	s.at++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return true
	case 'u':
		s.at++
		for range 4 {
			if !isHex(s.peek()) {
				return false
			}
			s.at++
		}
		return true
	}
	return false
}

func (s *scanner) literal(word string) bool {
	if len(s.src)-s.at < len(word) || string(s.src[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits()
	}
	return true
}

// digits moves past one digit or more.
func (s *scanner) digits() bool {
	from := s.at
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.at++
	}
	return s.at > from
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// sameName reports whether raw, the inside of a valid JSON string, means key.
func sameName(raw []byte, key string) bool {
	if !slices.Contains(raw, '\\') {
		return string(raw) == key
	}
	name := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			name = append(name, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			name = append(name, '\b')
		case 'f':
			name = append(name, '\f')
		case 'n':
			name = append(name, '\n')
		case 'r':
			name = append(name, '\r')
		case 't':
			name = append(name, '\t')
		case 'u':
			r := unit(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				// A half without its other half becomes U+FFFD, as decoders have it.
				pair := utf8.RuneError
				if len(raw) > i+6 && raw[i+1] == '\\' && raw[i+2] == 'u' {
					pair = utf16.DecodeRune(r, unit(raw[i+3:]))
				}
				if r = pair; pair != utf8.RuneError {
					i += 6
				}
			}
			name = utf8.AppendRune(name, r)
		default: // a quote, a backslash, a slash
			name = append(name, raw[i])
		}
	}
	return string(name) == key
}

// unit reads four hexadecimal digits.
func unit(digits []byte) rune {
	n, err := strconv.ParseUint(string(digits[:4]), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
