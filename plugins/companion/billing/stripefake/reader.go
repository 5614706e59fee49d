package stripefake

import (
	"slices"
	"strconv"
	"strings"
)

// reader reads typed parameters and keeps the first error, so that an endpoint
// asks once, before it changes anything.
type reader struct {
	*values
	failed **apiError
}

func newReader(v *values) reader { return reader{values: v, failed: new(*apiError)} }

// err is what the first bad parameter earns.
func (r reader) err() *apiError { return *r.failed }

func (r reader) fail(e *apiError) {
	if *r.failed == nil {
		*r.failed = e
	}
}

// in is the reader of a hash below.
func (r reader) in(name string) reader { return reader{values: r.get(name), failed: r.failed} }

// each are readers of a list's elements.
func (r reader) each(name string) []reader {
	var out []reader
	for _, v := range r.get(name).list() {
		out = append(out, reader{values: v, failed: r.failed})
	}
	return out
}

func (r reader) name(name string) string {
	if r.values == nil || r.path == "" {
		return name
	}
	return r.path + "[" + name + "]"
}

// str is a text; empty if it was not sent.
func (r reader) str(name string) string {
	v := r.get(name)
	if v == nil {
		return ""
	}
	if !v.isText {
		r.fail(invalid(v.path, "Invalid string: %s is a hash", v.path))
		return ""
	}
	return v.text
}

// need is a text that must be there.
func (r reader) need(name string) string {
	s := r.str(name)
	if s == "" {
		r.fail(missing(r.name(name)))
	}
	return s
}

// word is one of the words, or the first of them if it was not sent.
func (r reader) word(name string, words ...string) string {
	s := r.str(name)
	if s == "" {
		return words[0]
	}
	if !slices.Contains(words, s) {
		r.fail(invalid(r.name(name), "Invalid %s: must be one of %s", r.name(name), strings.Join(words, ", ")))
		return words[0]
	}
	return s
}

// integer is a whole number; otherwise if it was not sent.
func (r reader) integer(name string, otherwise int64) int64 {
	s := r.str(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		e := invalid(r.name(name), "Invalid integer: %s", s)
		e.Code = "parameter_invalid_integer"
		r.fail(e)
		return otherwise
	}
	return n
}

// boolean is true or false; otherwise if it was not sent.
func (r reader) boolean(name string, otherwise bool) bool {
	switch s := r.str(name); s {
	case "":
		return otherwise
	case "true", "1":
		return true
	case "false", "0":
		return false
	default:
		r.fail(invalid(r.name(name), "Invalid boolean: %s", s))
		return otherwise
	}
}

// texts are the elements of a list of texts.
func (r reader) texts(name string) []string {
	var out []string
	for _, v := range r.get(name).list() {
		out = append(out, v.text)
	}
	return out
}

// metadata merges what was sent into a copy of old: an empty value removes a
// key, an empty hash all.
func (r reader) metadata(name string, old map[string]string) map[string]string {
	v := r.get(name)
	merged := map[string]string{}
	if v != nil && v.isText {
		return merged
	}
	for k, s := range old {
		merged[k] = s
	}
	if v == nil {
		return merged
	}
	for k, m := range v.members {
		switch {
		case !m.isText || len(k) > 40 || len(m.text) > 500:
			r.fail(invalid(m.path, "Invalid metadata: keys are of up to 40 characters, values texts of up to 500"))
		case m.text == "":
			delete(merged, k)
		default:
			merged[k] = m.text
		}
	}
	if len(merged) > 50 {
		r.fail(invalid(r.name(name), "Metadata has at most 50 keys"))
	}
	return merged
}

// span is a filter on a time: exact, or by gt, gte, lt and lte. It is nil if
// nothing was sent.
func (r reader) span(name string) func(int64) bool {
	v := r.get(name)
	if v == nil {
		return nil
	}
	if v.isText {
		want := r.integer(name, 0)
		return func(t int64) bool { return t == want }
	}
	in := r.in(name)
	const far = 1 << 60
	gt, gte := in.integer("gt", -far), in.integer("gte", -far)
	lt, lte := in.integer("lt", far), in.integer("lte", far)
	return func(t int64) bool { return t > gt && t >= gte && t < lt && t <= lte }
}
