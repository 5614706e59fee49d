package caddymodule

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule/gate"
	"github.com/quotagate/quotagate/caddymodule/quota"
)

// keyPart is what of a request says whose counters a rule's limits use. A client
// could show the gateway another value of it than the backend.
type keyPart struct {
	what, name string
	equivocal  func(r *http.Request, name string) bool
}

// sentPlaceholder is a placeholder for what a client may send several times.
var sentPlaceholder = regexp.MustCompile(`\{http\.request\.(header|cookie|uri\.query)\.([^{}]+)\}`)

// placeholders are those in the text of a rule by placeholder.
var placeholders = regexp.MustCompile(`\{([^{}]+)\}`)

// valueNames are the placeholders whose values are the key, without their braces.
func valueNames(text string) []string {
	var names []string
	for _, m := range placeholders.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// valueKey is the text of a rule by placeholder with its values; empty if it has none.
// Of several each is preceded by its length: no two lists read alike.
func (r *Rule) valueKey(repl *caddy.Replacer) quota.Subject {
	if len(r.valueNames) == 1 {
		v, _ := repl.GetString(r.valueNames[0])
		return r.valueSubject(v)
	}
	var all []byte
	found := false
	for _, name := range r.valueNames {
		v, _ := repl.GetString(name)
		found = found || v != ""
		all = append(strconv.AppendInt(all, int64(len(v)), 10), ':')
		all = append(all, v...)
	}
	if !found {
		return ""
	}
	return r.valueSubject(string(all))
}

func (r *Rule) valueSubject(v string) quota.Subject {
	if v == "" {
		return ""
	}
	return quota.Subject("value:" + r.byText + "=" + v)
}

// keyParts are those of a rule by header, or those that the text of a rule by placeholder names.
func keyParts(by quota.By, text string) []keyPart {
	if by == quota.ByHeader {
		return []keyPart{newKeyPart("header", text)}
	}
	var parts []keyPart
	for _, m := range sentPlaceholder.FindAllStringSubmatch(text, -1) {
		parts = append(parts, newKeyPart(m[1], m[2]))
	}
	return parts
}

func newKeyPart(kind, name string) keyPart {
	switch kind {
	case "header":
		return keyPart{"header", http.CanonicalHeaderKey(name), equivocalHeader}
	case "cookie":
		return keyPart{"cookie", name, equivocalCookie}
	}
	return keyPart{"query parameter", name, equivocalQuery}
}

// equivocal refuses a request whose key a backend could read in another way.
func (r *Rule) equivocal(req *http.Request) error {
	if r.rule.Shadow {
		return nil
	}
	for _, p := range r.keyParts {
		if p.equivocal(req, p.name) {
			d := quota.Refuse(quota.CodeBadRequest)
			d.Rule, d.Message = r.Name, "The "+p.what+" "+p.name+" can be read in two ways"
			return d
		}
	}
	return nil
}

func equivocalHeader(r *http.Request, name string) bool { return gate.Equivocal(r.Header, name) }

// equivocalCookie reports whether the cookie was sent more than once, in another
// case, in which Caddy takes it and backends do not, or so that net/http leaves it out.
func equivocalCookie(r *http.Request, name string) bool {
	sent := 0
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, _ := strings.Cut(pair, "=")
			if !strings.EqualFold(gate.TrimCookie(key), name) {
				continue
			}
			if strings.Trim(key, " \t") != name || !isCookieValue(strings.Trim(value, " \t")) {
				return true
			}
			sent++
		}
	}
	return sent > 1
}

// isCookieValue reports whether net/http reads the value: RFC 6265, section 4.1.1,
// and what it takes beyond that, spaces and commas.
func isCookieValue(v string) bool {
	if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
		v = v[1 : n-1]
	}
	for i := range len(v) {
		if c := v[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// equivocalQuery reports whether the parameter was sent more than once, or so that
// Go leaves it out: beside a semicolon, which some take for '&', or badly escaped.
func equivocalQuery(r *http.Request, name string) bool {
	sent := 0
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		for pair := range strings.SplitSeq(part, ";") {
			key, value, _ := strings.Cut(pair, "=")
			if key, err := url.QueryUnescape(key); err != nil || key != name {
				continue
			}
			if _, err := url.QueryUnescape(value); err != nil || len(pair) < len(part) {
				return true
			}
			sent++
		}
	}
	return sent > 1
}
