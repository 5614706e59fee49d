package stripefake

import (
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// Bounds of a form, so that a hostile one costs little.
const (
	maxFormPairs = 1000
	maxFormDepth = 8
	maxFormList  = 100
)

// values is one place of a form: a text, or members by name, or by number. Stripe
// writes nested parameters as items[0][price]=x and expand[]=y.
type values struct {
	path    string // as an error names it: items[0][price]
	shape   string // as the endpoint declares it: items[].price
	text    string
	isText  bool
	members map[string]*values
	names   []string // of members, in the order in which they came
}

// parseForm reads pairs of an encoded form into a tree.
func parseForm(encoded string) (*values, *apiError) {
	root := &values{members: map[string]*values{}}
	if encoded == "" {
		return root, nil
	}
	pairs := strings.Split(encoded, "&")
	if len(pairs) > maxFormPairs {
		return nil, invalid("", "too many parameters: at most %d are read", maxFormPairs)
	}
	for _, pair := range pairs {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if err != nil {
			return nil, invalid("", "invalid encoding of a parameter's name")
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			return nil, invalid(name, "invalid encoding of the value of %s", name)
		}
		if e := root.put(name, text); e != nil {
			return nil, e
		}
	}
	return root, nil
}

// put places a value at a name like items[0][price].
func (v *values) put(name, text string) *apiError {
	steps, ok := splitName(name)
	if !ok {
		return invalid(name, "invalid parameter name: %s", name)
	}
	at := v
	for _, step := range steps {
		if at.isText {
			return invalid(name, "%s is both a value and a hash", at.path)
		}
		at = at.child(step)
		if at == nil {
			return invalid(name, "%s has too many elements", name)
		}
	}
	if len(at.members) > 0 {
		return invalid(name, "%s is both a value and a hash", name)
	}
	at.text, at.isText = text, true
	return nil
}

// splitName cuts a name at its brackets; false if it is not well formed.
func splitName(name string) ([]string, bool) {
	head, rest, nested := strings.Cut(name, "[")
	if head == "" || strings.ContainsAny(head, "]") {
		return nil, false
	}
	steps := []string{head}
	for nested {
		var step string
		step, rest, nested = strings.Cut(rest, "]")
		if !nested {
			return nil, false
		}
		steps = append(steps, step)
		if rest == "" {
			break
		}
		if rest[0] != '[' {
			return nil, false
		}
		rest = rest[1:]
	}
	return steps, len(steps) <= maxFormDepth
}

// child is the member of that name, made if there is none. An empty name is the
// next element of a list.
func (v *values) child(name string) *values {
	if v.members == nil {
		v.members = map[string]*values{}
	}
	if name == "" {
		name = strconv.Itoa(len(v.members))
	}
	if c, ok := v.members[name]; ok {
		return c
	}
	if v.path != "" && len(v.members) >= maxFormList {
		return nil
	}
	c := &values{path: name, shape: name}
	if v.path != "" {
		c.path = v.path + "[" + name + "]"
		c.shape = v.shape + "." + name
		if _, err := strconv.Atoi(name); err == nil {
			c.shape = v.shape + "[]"
		}
	}
	v.members[name] = c
	v.names = append(v.names, name)
	return c
}

// unknown is the first parameter that the endpoint does not declare. A declared
// name ending in .* stands for any member.
func (v *values) unknown(declared map[string]bool) *values {
	for _, name := range v.names {
		c := v.members[name]
		switch {
		case declared[c.shape+".*"]:
			continue
		case c.isText && declared[c.shape]:
			continue
		case c.isText && hasBelow(declared, c.shape) && c.text == "":
			continue // a hash or list that is emptied
		case c.isText:
			return c
		}
		if u := c.unknown(declared); u != nil {
			return u
		}
	}
	return nil
}

func hasBelow(declared map[string]bool, shape string) bool {
	for name := range declared {
		if strings.HasPrefix(name, shape+"[]") || strings.HasPrefix(name, shape+".") {
			return true
		}
	}
	return false
}

// get is the place of that name, or nil.
func (v *values) get(name string) *values {
	if v == nil {
		return nil
	}
	return v.members[name]
}

// has reports whether the parameter was sent, empty or not.
func (v *values) has(name string) bool { return v.get(name) != nil }

// list is the elements of a list, in the order of their numbers.
func (v *values) list() []*values {
	if v == nil {
		return nil
	}
	names := append([]string(nil), v.names...)
	sort.SliceStable(names, func(i, j int) bool {
		a, errA := strconv.Atoi(names[i])
		b, errB := strconv.Atoi(names[j])
		return errA == nil && errB == nil && a < b
	})
	out := make([]*values, len(names))
	for i, name := range names {
		out[i] = v.members[name]
	}
	return out
}

// canonical is a text that equals another's exactly if both forms say the same.
func (v *values) canonical() string {
	if v.isText {
		return strconv.Quote(v.text)
	}
	names := append([]string(nil), v.names...)
	sort.Strings(names)
	var b strings.Builder
	b.WriteByte('{')
	for _, name := range names {
		fmt.Fprintf(&b, "%q:%s,", name, v.members[name].canonical())
	}
	b.WriteByte('}')
	return b.String()
}
