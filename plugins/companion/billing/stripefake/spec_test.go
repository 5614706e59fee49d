package stripefake_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/stripe/stripe-mock/embedded"
)

// schema is what of OpenAPI the description of Stripe's API uses.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Nullable   bool               `json:"nullable"`
	Enum       []any              `json:"enum"`
	AnyOf      []*schema          `json:"anyOf"`
	Items      *schema            `json:"items"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Additional json.RawMessage    `json:"additionalProperties"`
}

type content map[string]struct {
	Schema *schema `json:"schema"`
}

type operation struct {
	Parameters []struct {
		Name   string  `json:"name"`
		Schema *schema `json:"schema"`
	} `json:"parameters"`
	RequestBody struct {
		Content content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content content `json:"content"`
	} `json:"responses"`
}

// spec is Stripe's published description of its API, of the version that the
// fake speaks.
type spec struct {
	Info struct {
		Version string `json:"version"`
	} `json:"info"`
	Paths      map[string]map[string]*operation `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
	patterns map[string]*regexp.Regexp
}

var published = sync.OnceValue(func() *spec {
	s := new(spec)
	if err := json.Unmarshal(embedded.OpenAPISpec, s); err != nil {
		panic(err)
	}
	s.patterns = map[string]*regexp.Regexp{}
	for path := range s.Paths {
		s.patterns[path] = regexp.MustCompile("^" + regexp.MustCompile(`\{[^}]+\}`).ReplaceAllString(path, "[^/]+") + "$")
	}
	return s
})

// operation finds what the description says of an address; a literal path wins
// over one with a parameter.
func (s *spec) operation(method, path string) (*operation, error) {
	if ops, ok := s.Paths[path]; ok && ops[strings.ToLower(method)] != nil {
		return ops[strings.ToLower(method)], nil
	}
	for name, pattern := range s.patterns {
		if op := s.Paths[name][strings.ToLower(method)]; op != nil && pattern.MatchString(path) {
			return op, nil
		}
	}
	return nil, fmt.Errorf("the description has no %s %s", method, path)
}

// checkAnswer says what is wrong with an answer's shape.
func (s *spec) checkAnswer(method, path string, status int, body []byte) error {
	op, err := s.operation(method, path)
	if err != nil {
		return err
	}
	code := "200"
	if status != http.StatusOK {
		code = "default"
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return s.check(op.Responses[code].Content["application/json"].Schema, value, "answer")
}

func (s *spec) resolve(d *schema) *schema {
	for d != nil && d.Ref != "" {
		d = s.Components.Schemas[d.Ref[strings.LastIndexByte(d.Ref, '/')+1:]]
	}
	return d
}

// check says where a value differs from its description. A member that the
// description does not have is an error too.
func (s *spec) check(d *schema, value any, at string) error {
	d = s.resolve(d)
	if d == nil {
		return nil
	}
	if value == nil {
		if d.Nullable {
			return nil
		}
		return fmt.Errorf("%s is null", at)
	}
	if len(d.AnyOf) > 0 {
		return s.checkAny(d, value, at)
	}
	switch d.Type {
	case "string":
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%s is no string: %v", at, value)
		}
		if len(d.Enum) > 0 && !slices.Contains(d.Enum, any(text)) && !slices.Contains(d.Enum, any("")) {
			return fmt.Errorf("%s is %q, not one of %v", at, text, d.Enum)
		}
	case "integer":
		if n, ok := value.(float64); !ok || n != float64(int64(n)) {
			return fmt.Errorf("%s is no integer: %v", at, value)
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return fmt.Errorf("%s is no boolean: %v", at, value)
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			return fmt.Errorf("%s is no array: %v", at, value)
		}
		for i, x := range list {
			if err := s.check(d.Items, x, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case "object":
		return s.checkObject(d, value, at)
	}
	return nil
}

func (s *spec) checkAny(d *schema, value any, at string) error {
	var errs []string
	kind := ""
	if o, ok := value.(map[string]any); ok {
		kind, _ = o["object"].(string)
	}
	for _, one := range d.AnyOf {
		// Of several kinds of objects, the one that the value says it is.
		if p := s.resolve(one).Properties["object"]; p != nil && kind != "" && !slices.Contains(p.Enum, any(kind)) {
			continue
		}
		err := s.check(one, value, at)
		if err == nil {
			return nil
		}
		errs = append(errs, err.Error())
	}
	return fmt.Errorf("%s is nothing of what it may be: %s", at, strings.Join(errs, "; "))
}

func (s *spec) checkObject(d *schema, value any, at string) error {
	o, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object: %v", at, value)
	}
	for _, name := range d.Required {
		if _, ok := o[name]; !ok {
			return fmt.Errorf("%s lacks %s", at, name)
		}
	}
	for name, member := range o {
		below, known := d.Properties[name]
		if !known {
			if len(d.Properties) > 0 && len(d.Additional) == 0 {
				return fmt.Errorf("%s has %s, which the description lacks", at, name)
			}
			continue
		}
		if err := s.check(below, member, at+"."+name); err != nil {
			return err
		}
	}
	return nil
}

// accepts reports whether an address takes a parameter, written as the fake
// declares it: items[].price, created.gte, metadata.*.
func (s *spec) accepts(op *operation, name string) bool {
	head, rest, _ := strings.Cut(strings.ReplaceAll(name, "[]", ".[]"), ".")
	var steps []string
	if rest != "" {
		steps = strings.Split(rest, ".")
	}
	for _, p := range op.Parameters {
		if p.Name == head && s.reaches(p.Schema, steps) {
			return true
		}
	}
	for _, c := range op.RequestBody.Content {
		if below, ok := c.Schema.Properties[head]; ok && s.reaches(below, steps) {
			return true
		}
	}
	return false
}

func (s *spec) reaches(d *schema, steps []string) bool {
	if d = s.resolve(d); len(steps) == 0 {
		return true
	}
	for _, one := range d.AnyOf {
		if s.reaches(one, steps) {
			return true
		}
	}
	switch steps[0] {
	case "[]":
		return d.Items != nil && s.reaches(d.Items, steps[1:])
	case "*":
		return d.Type == "object"
	default:
		below, ok := d.Properties[steps[0]]
		return ok && s.reaches(below, steps[1:])
	}
}
