package caddymodule

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

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

// equivocalCookie reports whether the cookie was sent more than once.
func equivocalCookie(r *http.Request, name string) bool {
	sent := 0
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if key, _, _ := strings.Cut(pair, "="); strings.TrimSpace(key) == name {
				sent++
			}
		}
	}
	return sent > 1
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
